"""Models whose numbers could leave float32's whole numbers, or whose graphs are none, are refused."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import dlf
from dlf.cli.main import main
from dlf.codec import bundle
from dlf.codec.bundle import ModelBundle
from dlf.codec.exactness import check_model
from dlf.errors import BundleError
from dlf.reference.bounds import WHOLE, Range, prove
from dlf.reference.fixed import LIMIT, Fixed, from_bits
from dlf.reference.model import prove_networks
from dlf.reference.network import Network
from dlf.reference.onnx_file import read_graph
from dlf.reference.wire import fields
from shipped_models import NAMES, needs_models

MODEL = bundle.ASSETS / "fast"  # by whose layers the changes below were chosen


@pytest.mark.parametrize("folder", NAMES)
def test_shipped_models_are_proved_exact(folder: str) -> None:
    """Ten times below the limit and more, as docs/exactness.md says."""
    checked = check_model(ModelBundle.open(bundle.ASSETS / folder))
    assert checked.prior is not None
    assert checked.context is not None
    assert 0 < max(checked.prior, checked.context) < LIMIT / 10


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["tiny", "tiny_v2"])
def test_exported_models_are_proved_exact(kind: str, request: pytest.FixtureRequest) -> None:
    checked = check_model(ModelBundle.open(request.getfixturevalue(f"{kind}_bundle")))
    assert checked.prior is not None


def graph(body: str, inputs: str = "float[1, 2, r, c] x", outputs: str = "float[1, 2, r, c] y") -> bytes:
    onnx = pytest.importorskip("onnx")
    text = f'<ir_version: 8, opset_import: ["" : 18]> g ({inputs}) => ({outputs}) {{ {body} }}'
    data: bytes = onnx.parser.parse_model(text).SerializeToString()
    return data


def of(body: str, low: int, high: int, **more: str) -> Range:
    return prove(read_graph(graph(body, **more)), {"x": Range(low, high)}).outputs["y"]


SIXTEEN = "c = Constant <value = float {16}> ()"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"{SIXTEEN} y = Add (x, c)", (13, 23)),
        (f"{SIXTEEN} y = Mul (x, c)", (-48, 112)),
        (f"{SIXTEEN} z = Div (x, c) y = Floor (z)", (-1, 0)),
        (
            "h = Constant <value = float {0.5}> () e = Constant <value = float {0.125}> () "
            "a = Mul (x, e) b = Add (a, h) y = Floor (b)",
            (0, 1),
        ),
        (f"d = Constant <value = float {{-2}}> () {SIXTEEN} y = Clip (x, d, c)", (-2, 7)),
        (f"z = Constant <value = float {{0}}> () {SIXTEEN} y = Clip (x, z, c)", (0, 7)),
        ("z = Constant <value = float {0}> () w = GreaterOrEqual (x, z) y = Where (w, x, z)", (-3, 7)),
        ("y = Concat <axis = 1> (x, x)", (-3, 7)),
        ("y = Identity (x)", (-3, 7)),
        ("y = Transpose <perm = [0, 1, 3, 2]> (x)", (-3, 7)),
    ],
)
def test_ranges_follow_the_operators(body: str, expected: tuple[int, int]) -> None:
    """And running them on all whole numbers of a range stays inside, up to both ends where they are sharp."""
    found = of(body, -3, 7)
    assert (found.low, found.high) == expected
    numbers = np.broadcast_to(np.arange(-3, 8, dtype=np.int32), (1, 2, 3, 11))
    (y,) = Network(read_graph(graph(body))).run(["y"], {"x": Fixed(numbers)})
    assert expected[0] <= y.min()
    assert y.max() <= expected[1]


def conv(weight: int, bias: int) -> str:
    weights = ", ".join([str(weight)] * 4)
    return (
        f"w = Constant <value = float[2, 2, 1, 1] {{{weights}}}> () "
        f"b = Constant <value = float[2] {{{bias}, {-bias}}}> () y = Conv (x, w, b)"
    )


def test_the_limit_is_sharp() -> None:
    """Two products of 2047 * 4096 and a bias reach 2**24 or stay one below."""
    most = LIMIT - 1 - 2 * 2047 * 4096
    assert of(conv(2047, most), -4096, 4095).high == LIMIT - 1
    with pytest.raises(BundleError, match="not exact: a number in them can reach 16,777,216"):
        of(conv(2047, most + 1), -4096, 4095)
    network = Network(read_graph(graph(conv(2047, most + 1))))
    ones = np.ones((1, 2, 1, 1), np.int32)
    network.run(["y"], {"x": Fixed(4095 * ones)})
    with pytest.raises(BundleError, match="not exact"):
        network.run(["y"], {"x": Fixed(4096 * ones)})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("y = Abs (x)", "uses Abs"),
        ("h = Constant <value = float {0.5}> () y = Add (x, h)", "not an integer"),
        ("h = Constant <value = float {3}> () z = Div (x, h) y = Floor (z)", "no power of two"),
        ("y = Div (x, x)", "no constant"),
        ("h = Constant <value = float {0.1}> () z = Mul (x, h) y = Floor (z)", "binary places"),
        ("h = Constant <value = float {1e9}> () y = Mul (x, h)", "16,777,216"),
        ("h = Constant <value = float {nan}> () y = Mul (x, h)", "none at all"),
        ("h = Constant <value = float {4000000}> () y = Mul (x, h)", "28,000,000"),
        ("y = Conv (x, x, x)", "weights that are no constants"),
        (conv(1, 1).replace("Conv (", "Conv <strides = [2, 2]> ("), "strides"),
        (conv(1, 1).replace("Conv (", 'Conv <auto_pad = "SAME_UPPER"> ('), "auto_pad"),
        ("y = Cast <to = 10> (x)", "float32"),
        ("s = Shape (x) y = Cast <to = 1> (s)", "whole numbers of any size"),
        ("h = Constant <value_float = 0.5> () y = Add (x, h)", "not known to be exact"),
        ("h = Constant <value = double {0.5}> () y = Add (x, h)", "not known to be exact"),
    ],
)
def test_what_is_not_known_to_be_exact_is_refused(body: str, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        of(body, -3, 7)


def test_inputs_and_outputs_must_be_there() -> None:
    data = read_graph(graph("y = Identity (x)"))
    with pytest.raises(BundleError, match="input"):
        prove(data, {"other": Range(0, 1)})
    with pytest.raises(BundleError, match="lack"):
        Network(data).run(["z"], {"x": Fixed(np.zeros((1, 2, 1, 1), np.int32))})
    with pytest.raises(BundleError, match="lack"):
        Network(data).run(["y"], {})


def test_a_graph_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlf.reference.fixed.MAX_ELEMENTS", 10**6)
    doubling = "a0 = Identity (x) " + " ".join(
        f"a{i + 1} = Concat <axis = 3> (a{i}, a{i})" for i in range(40)
    )
    network = Network(read_graph(graph(doubling + " y = Identity (a40)")))
    with pytest.raises(BundleError, match="more than 1,000,000 numbers"):
        network.run(["y"], {"x": Fixed(np.zeros((1, 2, 10, 100), np.int32))})


def check_damaged(data: bytes) -> bool:
    """Whether a damaged graph is refused; any other error than BundleError fails the test."""
    try:
        prove(read_graph(data), {"prior": Range(-255, 255), "x": Range(-255, 255), "tokens": WHOLE})
    except BundleError:
        return True
    return False


def test_damaged_graphs_raise_no_other_error() -> None:
    """Cut anywhere or with any bit changed, a file is refused or read."""
    data = graph(conv(3, 4))
    assert not check_damaged(data)
    assert all(check_damaged(data[:length]) for length in range(len(data)))
    refused = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        refused += check_damaged(bytes(changed))
    assert refused > 4 * len(data)


@needs_models
def test_damaged_graphs_of_a_model_raise_no_other_error() -> None:
    data = (MODEL / "prior.onnx").read_bytes()
    rng = np.random.default_rng(0)
    assert all(check_damaged(data[:length]) for length in rng.integers(0, len(data), 8))
    for at in rng.integers(len(data) - 60_000, len(data), 24):  # where the operations are
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        check_damaged(bytes(changed))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80" * 11,
        b"\x08" + b"\xff" * 9 + b"\x7f",
        b"\x0b\x01",
        b"\x0a\x05abc",
        b"\x02\x01a",
        b"\x09abc",
    ],
)
def test_malformed_messages(data: bytes) -> None:
    with pytest.raises(BundleError):
        list(fields(data))


@pytest.mark.parametrize(("dtype", "bits", "sizes"), [("f2", "u2", (5, 10)), ("f4", "u4", (8, 23))])
def test_floats_are_read_bit_by_bit(dtype: str, bits: str, sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    for shift in (0, 1, 6, 10):
        numbers = rng.integers(-2047, 2048, (7, 9))
        floats = (numbers / 2**shift).astype(dtype)
        found = from_bits(floats.view(bits).astype(np.int64), *sizes)
        assert found.shift <= shift
        np.testing.assert_array_equal(found.numbers / 2.0**found.shift, floats)
    for wrong in (np.inf, -np.inf, np.nan, np.finfo(dtype).smallest_subnormal):
        with pytest.raises(BundleError):
            from_bits(np.array([1, wrong], dtype).view(bits).astype(np.int64), *sizes)


def change_constant(data: bytes, ending: str, number: float) -> bytes:
    """The graph with one number of one of its constants changed."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(data)
    tensor = next(each for each in model.graph.initializer if each.name.endswith(ending))
    array: NDArray[np.generic] = onnx.numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[0] = number
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    changed: bytes = model.SerializeToString()
    return changed


def hostile(folder: Path, **files: Callable[[bytes], bytes]) -> Path:
    """A copy of a shipped model with some files changed, whose hashes are right."""
    shutil.copytree(MODEL, folder)
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    for name, change in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(change(path.read_bytes()))
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest["numerics"] = bundle.numerics_id(manifest["files"])
    manifest["name"] = "hostile"
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    return folder


def change_table(data: bytes, **changes: object) -> bytes:
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    buffer = io.BytesIO()
    np.savez(buffer, **(arrays | changes))  # type: ignore[arg-type]
    return buffer.getvalue()


def widen(data: bytes) -> bytes:
    with np.load(io.BytesIO(data)) as file:
        return change_table(data, prior=np.full_like(file["prior"], 32767))


CHANGES: dict[str, dict[str, Callable[[bytes], bytes]]] = {
    "a bias of the prior": {"prior_onnx": lambda data: change_constant(data, "reduction.bias", 2.0**24)},
    "a weight of the context": {
        "context_onnx": lambda data: change_constant(data, ".conv2.weight.half", 65504)
    },
    "a fraction": {"context_onnx": lambda data: change_constant(data, "conv.bias", 0.5)},
    "vectors of the prior": {
        "tables_npz": widen,
        "prior_onnx": lambda data: change_constant(data, "0.0.conv1.weight.half", 1000),
    },
    "the unit of means": {"tables_npz": lambda data: change_table(data, mean_unit=np.array(1024, np.int64))},
}


@needs_models
@pytest.mark.parametrize("what", CHANGES)
def test_a_model_beyond_the_bound_is_refused_when_it_is_loaded(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hostile(tmp_path / "models" / "hostile", **CHANGES[what])
    codec = dlf.Codec(folder, threads=1)
    with pytest.raises(BundleError, match="exact"):
        codec.encode(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BundleError, match="exact"):
        check_model(ModelBundle.open(folder))
    monkeypatch.setenv("DLF_MODELS", str(tmp_path / "models"))
    assert main(["models", "--check"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert sum("the files are whole" in line for line in told) == len(NAMES)
    assert [line for line in told if line.startswith("hostile: ")] == [told[-1]]


@pytest.mark.torch
def test_a_bundle_beyond_the_bound_is_not_written(tiny_bundle: Path, tmp_path: Path) -> None:
    from dlf.bundles.bundle_writer import seal_like

    shutil.copytree(tiny_bundle, tmp_path / "m")
    prior = tmp_path / "m" / "prior.onnx"
    prior.write_bytes(change_constant(prior.read_bytes(), ".bias", 2.0**24))
    before = (tmp_path / "m" / bundle.MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="not exact"):
        seal_like(tmp_path / "m", ModelBundle.open(tiny_bundle).manifest, "other", {})
    assert (tmp_path / "m" / bundle.MANIFEST).read_bytes() == before


@pytest.mark.parametrize(
    ("prior", "context", "words"),
    [
        ("step = Identity (x)", "scale = Identity (y_hat) mean = Identity (y_hat)", "step below"),
        ("step = Add (x, n)", "scale = Identity (y_hat) mean = Add (y_hat, common)", "no bound"),
        ("step = Add (x, n)", "mean = Identity (common)", "lacks an output: scale"),
    ],
)
def test_networks_that_do_not_fit_the_walk(prior: str, context: str, words: str) -> None:
    shape = "float[1, 2, r, c]"
    outputs = ", ".join(f"{shape} {name}" for name in ("scale", "mean", "step", "common"))
    nine = "n = Constant <value = float {9}> ()"
    body = f"{nine} scale = Identity (x) mean = Identity (x) common = Identity (x) {prior}"
    first = graph(body.replace("(x", "(prior"), inputs=f"{shape} prior", outputs=outputs)
    names = ["scale", "mean"] if "scale" in context else ["mean"]
    found = ", ".join(f"{shape} {name}" for name in names)
    second = graph(context, inputs=f"{shape} y_hat, {shape} common", outputs=found)
    with pytest.raises(BundleError, match=words):
        prove_networks(np.array([[-3, 7]]), 16, read_graph(first), read_graph(second))
