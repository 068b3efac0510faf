"""A bundle says the same as the torch model that it was exported from."""

# ruff: noqa: E402
from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from dlf.bundles import graphs, onnx_bundle
from dlf.bundles.bundle_writer import BundleSpec
from dlf.bundles.onnx_bundle import TokenUse, smooth_frequencies
from dlf.bundles.onnx_graph import SMALL, store_half
from dlf.bundles.parity import compare
from dlf.bundles.rewriting import MICROSOFT
from dlf.codec.bundle import FILES, GRAPHS, TABLES, ModelBundle, numerics_id
from dlf.codec.onnx_backend import OnnxBackend
from dlf.entropy.tables import Tables
from dlf.errors import BundleError
from dlf.nn.build import TINY
from dlf.nn.context import SCALES
from dlf.nn.model import Dlf
from dlf.nn.schedule import token_schedule
from dlf.records import UInt8

pytestmark = pytest.mark.torch

SIZES = [(32, 32), (256, 256), (64, 288), (288, 544)]
QUALITIES = (0, 37, 100)


@pytest.fixture(scope="module")
def model() -> Dlf:
    """Seeded, with every part that starts at zero moved away from it."""
    torch.manual_seed(8)
    model = Dlf(TINY).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    # float16, as the files store the large ones, so that both sides have the same weights
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
    return model


@pytest.fixture(scope="module")
def bundle(model: Dlf, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    folder = tmp_path_factory.mktemp("models") / "inner" / "tiny"
    counts = np.random.default_rng(0).integers(0, 50, (TINY.tokens.count, TINY.tokens.codes))
    spec = BundleSpec("a-name", 101, 40, {"by": "us"})
    onnx_bundle.write_onnx_bundle(model, folder, spec, TokenUse(counts))
    return ModelBundle.open(folder)


@pytest.fixture(scope="module")
def tables(bundle: ModelBundle) -> Tables:
    return bundle.tables()


@pytest.fixture(scope="module")
def backend(bundle: ModelBundle, tables: Tables) -> OnnxBackend:
    return OnnxBackend(bundle, tables, threads=1)


def windows(height: int, width: int) -> int:
    return -(-height // 256) * -(-width // 256)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_analysis(
    height: int, width: int, model: Dlf, backend: OnnxBackend, picture: Callable[[int, int], UInt8]
) -> None:
    rgb = picture(height, width)
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    for quality in QUALITIES:
        latents = backend.analyse(rgb, quality)
        z, feature = model.encoder(pixels, model.grid(height, width))
        np.testing.assert_array_equal(latents.tokens, model.quantize.nearest(z).numpy())
        y = model.details.analyse(feature, torch.tensor([float(quality)]))[0].numpy()
        np.testing.assert_allclose(latents.y, y, atol=1e-4 * max(1, np.abs(y).max()))
        assert y.std() > 0.1


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_synthesis(height: int, width: int, model: Dlf, backend: OnnxBackend) -> None:
    rng = np.random.default_rng(height)
    tokens = rng.integers(0, TINY.tokens.codes, (windows(height, width), TINY.tokens.count)).astype(np.int32)
    tokens[rng.random(tokens.shape) < 0.3] = -1
    y_hat = (3 * rng.standard_normal((8, height // 32, width // 32))).astype(np.float32)
    for quality in QUALITIES:
        rgb = backend.synthesise(tokens, y_hat, quality)
        sent = torch.from_numpy(tokens >= 0)
        codes = model.quantize.codebook()[torch.from_numpy(tokens).clamp(min=0).long()]
        fused = model.fuse(
            codes,
            sent,
            torch.from_numpy(y_hat)[None],
            torch.tensor([float(quality)]),
            model.grid(height, width),
        )
        painted = (model.vqgan.decode(fused.latent)[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5
        assert np.abs(rgb.astype(int) - painted.round().numpy()).max() <= 1
        assert rgb.std() > 1


# a prior of more than 5 rows or columns is computed near the border only
@pytest.mark.parametrize(("rows", "cols"), [(3, 5), (1, 7), (9, 13)])
def test_prior_and_context(rows: int, cols: int, model: Dlf, backend: OnnxBackend) -> None:
    network = model.details.context
    rng = np.random.default_rng(1)
    for quality in QUALITIES:
        wanted = network.prior(
            network.prior_vector(torch.tensor([float(quality)])).expand(-1, -1, rows, cols)
        )
        windows = -(-rows // 8) * -(-cols // 8)
        found = backend.prior(rows, cols, quality, np.full((windows, TINY.tokens.count), -1, np.int32))
        for got, tensor in zip(
            (found.first.scale, found.first.mean, found.step, found.common),
            (*wanted.first, wanted.step, wanted.common),
            strict=True,
        ):
            np.testing.assert_array_equal(got, tensor[0].numpy())
        y_hat = rng.integers(-900, 900, (8, rows, cols)).astype(np.int32)
        for step in (1, 2, 3):
            params = network.context(step - 1, torch.from_numpy(y_hat).float()[None], wanted.common)
            got = backend.context(step, y_hat, found.common)
            np.testing.assert_array_equal(got.scale, params.scale[0].numpy())
            np.testing.assert_array_equal(got.mean, params.mean[0].numpy())


def test_manifest(bundle: ModelBundle) -> None:
    manifest = bundle.manifest
    hashes = {name: hashlib.sha256((bundle.folder / name).read_bytes()).hexdigest() for name in FILES}
    assert manifest.files == hashes
    assert manifest.numerics == numerics_id(hashes)
    assert (manifest.name, manifest.id, manifest.default_quality) == ("a-name", 101, 40)
    assert (manifest.tokens, manifest.codes, manifest.channels) == (4, 16, 8)
    assert manifest.swin_window == 8
    assert manifest.card == {"by": "us"}
    assert {path.name for path in bundle.folder.iterdir()} == {*FILES, "manifest.json"}


@pytest.mark.parametrize(
    ("ends", "tail_drop"), [((0, 4), True), ((3, 2), True), ((1, 5), True), ((2, 4), False)]
)
def test_numbers_of_tokens_that_were_not_trained_are_refused(ends: tuple[int, int], tail_drop: bool) -> None:
    with pytest.raises(ValueError, match="a window cannot send"):
        token_schedule(4, tail_drop=tail_drop, ends=ends)


def test_tables(model: Dlf, bundle: ModelBundle) -> None:
    with np.load(bundle.folder / TABLES, allow_pickle=False) as arrays:
        found = dict(arrays)
    assert found["gaussian_frequency"].shape == (SCALES, 2 * onnx_bundle.SYMBOL_LIMIT + 2)
    for name in ("gaussian_frequency", "token_frequency"):
        assert found[name].dtype == np.uint32
        assert (found[name].sum(1) == 2**16).all()
        assert found[name].min() >= 1
    np.testing.assert_array_equal(found["token_count"], token_schedule(4, tail_drop=True))
    ends = {q: int(token_schedule(4, tail_drop=True, ends=(1, 3))[q]) for q in (0, 25, 50, 100)}
    assert ends == {0: 1, 25: 2, 50: 3, 100: 3}
    # the network's output is the table's index
    scale = np.arange(SCALES)
    np.testing.assert_array_equal(np.searchsorted(found["scale_bounds"], scale, side="right"), scale)
    assert found["prior"].dtype == np.int16
    for quality in QUALITIES:
        vector = model.details.context.prior_vector(torch.tensor([float(quality)]))
        np.testing.assert_array_equal(found["prior"][quality], vector[0, :, 0, 0].numpy())


def test_wider_tables_are_wider_distributions(bundle: ModelBundle) -> None:
    with np.load(bundle.folder / TABLES, allow_pickle=False) as arrays:
        rows = arrays["gaussian_frequency"].astype(np.int64)
    centre = onnx_bundle.SYMBOL_LIMIT
    symbols = np.arange(-centre, centre + 1)
    np.testing.assert_array_equal(rows[:, :-1], rows[:, -2::-1])
    assert (np.diff(rows[:, centre]) <= 0).all()
    spread = np.sqrt((rows[:, :-1] * symbols**2).sum(1) / rows[:, :-1].sum(1))
    assert (np.diff(spread) > 0).all()


@pytest.mark.parametrize("name", ["prior.onnx", "context.onnx"])
def test_integer_graphs_hold_whole_numbers(name: str, bundle: ModelBundle) -> None:
    graph = onnx.load_from_string(bundle.read(name)).graph
    floats = [t for t in graph.initializer if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)]
    assert len(floats) > 10
    for tensor in floats:
        values = numpy_helper.to_array(tensor)
        np.testing.assert_array_equal(values, np.rint(values))
        assert np.abs(values.astype(np.float64)).max() < 2**24


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_of_the_operator_set_that_we_promise(name: str, bundle: ModelBundle) -> None:
    model = onnx.load_from_string(bundle.read(name))
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    assert [entry.domain for entry in model.opset_import if entry.domain] == (
        [MICROSOFT] if name in (onnx_bundle.ANALYSIS, onnx_bundle.SYNTHESIS) else []
    )
    assert {node.op_type for node in model.graph.node if node.domain} <= {"MultiHeadAttention"}
    known = {"rgb", "quality", "prior", "y_hat", "common", "index", "tokens", *graphs.PLAN_INPUTS}
    assert {node.name for node in model.graph.input} <= known


def test_export_repeats_itself(model: Dlf, bundle: ModelBundle) -> None:
    for name in ("prior.onnx", "context.onnx"):
        assert onnx_bundle.graph_file(model, name) == bundle.read(name)


@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((3, 16), np.int64),
        np.array([[0] * 15 + [10**9], [1] * 16, list(range(16))]),
        np.random.default_rng(2).integers(0, 1000, (24, 1024)),
        np.zeros((1, 2**16), np.int64),
    ],
    ids=["none", "one code", "random", "as many codes as counts"],
)
def test_smooth_frequencies(counts: NDArray[np.int64]) -> None:
    found = smooth_frequencies(counts)
    assert found.dtype == np.uint32
    assert found.shape == counts.shape
    assert (found.sum(1, dtype=np.int64) == 2**16).all()
    assert found.min() >= 1
    # as near to the shares as whole numbers allow, so that no code gains at the cost of the others
    shares = (counts + 0.5) / (counts + 0.5).sum(1, keepdims=True)
    wanted = 1 + shares * (2**16 - counts.shape[1])
    assert np.abs(found - wanted).max() < 1


def half_model(values: dict[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """A graph that gives its initializers back."""
    nodes = [helper.make_node("Identity", [name], [f"out_{name}"]) for name in values]
    outputs = [
        helper.make_tensor_value_info(f"out_{k}", TensorProto.FLOAT, v.shape) for k, v in values.items()
    ]
    weights = [numpy_helper.from_array(v, k) for k, v in values.items()]
    graph = helper.make_graph(nodes, "graph", [], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


VALUES = {
    "whole": np.arange(-1024, 1024, dtype=np.float32),
    "odd": np.full(SMALL, 2049, np.float32),  # float16 has no such number
    "real": np.linspace(-1, 1, 2 * SMALL, dtype=np.float32),
    "huge": np.full(SMALL, 1e5, np.float32),
    "small": np.ones(SMALL - 1, np.float32),
}


@pytest.mark.parametrize(("lossless", "halved"), [(True, {"whole"}), (False, {"whole", "odd", "real"})])
def test_store_half(lossless: bool, halved: set[str]) -> None:
    model = half_model(VALUES)
    store_half(model, lossless=lossless)
    onnx.checker.check_model(model)
    half = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
    assert half == {f"{name}.half" for name in halved}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for (name, wanted), found in zip(VALUES.items(), session.run(None, {}), strict=True):
        if lossless or name not in halved:
            np.testing.assert_array_equal(found, wanted)
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-7)


def test_large_weights_are_stored_in_half_precision(bundle: ModelBundle) -> None:
    for name in ("analysis.onnx", "synthesis.onnx"):
        graph = onnx.load_from_string(bundle.read(name)).graph
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                assert np.prod(tensor.dims) < SMALL, tensor.name


def test_bundles_are_replaced(model: Dlf, tmp_path: Path) -> None:
    counts = np.zeros((TINY.tokens.count, TINY.tokens.codes), np.int64)
    for number in (1, 2):
        onnx_bundle.write_onnx_bundle(model, tmp_path, BundleSpec("x", number), TokenUse(counts))
        opened = ModelBundle.open(tmp_path)
        assert opened.manifest.id == number
        for name in FILES:
            opened.read(name)


@pytest.mark.parametrize("quality", QUALITIES)
def test_parity_check(
    quality: int, model: Dlf, bundle: ModelBundle, picture: Callable[[int, int], UInt8]
) -> None:
    compare(model, bundle, [picture(96, 320), picture(256, 256)], quality).check()


def test_parity_check_fails_for_other_weights(
    model: Dlf, bundle: ModelBundle, picture: Callable[[int, int], UInt8]
) -> None:
    for part in (
        "encoder.conv_out.weight",
        "vqgan.decoder.conv_out.weight",
        "details.context.y_prior_fusion.0.1.conv.weight",
    ):
        other = copy.deepcopy(model)
        other.get_parameter(part).mul_(-1)
        with pytest.raises(BundleError, match="does not compute"):
            compare(other, bundle, [picture(96, 320)], 50).check()
