"""Weights in 8 bits: near to what they were, exact behind the cast, folded by the runtime, got back."""

# ruff: noqa: E402
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

from dlf.bundles import eight_bits, onnx_bundle
from dlf.bundles.eight_bits import ENCODER_SIDE, pack, round_to_eight
from dlf.bundles.exporter import round_weights
from dlf.bundles.onnx_bundle import ANALYSIS, CONTEXT, PRIOR, SYNTHESIS
from dlf.bundles.onnx_graph import EIGHT, SCALE
from dlf.bundles.parity import compare
from dlf.bundles.recover import recover
from dlf.cli.main import main
from dlf.codec.bundle import ModelBundle
from dlf.nn.build import TINY
from dlf.nn.model import Dlf
from dlf.records import UInt8
from dlf.train import checkpoint
from dlf.train.checkpoint import Checkpoint

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """The tiny preset has no weight that is worth 8 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eight_bits, "SMALLEST", 256)
        patch.setattr(eight_bits, "FAN_IN", 8)
        yield


@pytest.fixture(scope="module")
def plain() -> Dlf:
    torch.manual_seed(8)
    model = Dlf(TINY).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not parameter.any() and "adaptor" not in name and "conv2" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.encoder.spread.mean.normal_()
    model.encoder.spread.square.uniform_(4, 9)
    return model


@pytest.fixture(scope="module")
def model(plain: Dlf) -> Dlf:
    """The same with rounded weights."""
    model = copy.deepcopy(plain)
    assert round_weights(model, "int8", [noise()])
    return model


def noise() -> UInt8:
    return np.random.default_rng(3).integers(0, 256, (64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def bundle(plain: Dlf, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """What the command makes of the model that is not rounded yet."""
    folder = tmp_path_factory.mktemp("models")
    weights = dict(plain.state_dict())
    checkpoint.save(folder / "a.pt", Checkpoint(0, {"preset": "tiny"}, weights, weights, {}))
    Image.fromarray(noise()).save(folder / "picture.png")
    line = ["export", str(folder / "a.pt"), "-o", str(folder / "tiny"), "--data", str(folder)]
    assert main([*line, "--name", "tiny", "--id", "101", "--weights", "int8"]) == 0
    return ModelBundle.open(folder / "tiny")


def test_a_channel_has_the_scale_of_least_error() -> None:
    rng = np.random.default_rng(0)
    weight = rng.uniform(-1, 1, (40, 20000)).astype(np.float32)
    weight[:, 0] = 1.05  # one of many that is a little larger is better clipped
    weight[1] *= 1e-4
    weight[2] = 0
    weight[3, 5] = 2000  # for the sake of so large a one none is clipped
    found = pack(weight)
    assert found.codes.dtype == np.int8
    assert found.scale.shape == (40, 1)
    error = np.square(found.restore() - weight).sum(1)
    most = np.abs(weight).max(1, keepdims=True)
    step = np.where(most > 0, most / 127, 1)
    unclipped = np.square(np.rint(weight / step) * step - weight).sum(1)
    assert (error[4:] < 0.98 * unclipped[4:]).all()
    assert error[1] < 0.98 * unclipped[1]
    assert not found.restore()[2].any()
    assert found.restore()[3, 5] == pytest.approx(2000)
    again = pack(found.restore())
    np.testing.assert_array_equal(again.codes, found.codes)
    np.testing.assert_allclose(again.scale, found.scale, rtol=1e-6)


@pytest.mark.parametrize("shape", [(8, 5), (8, 5, 3, 3)])
def test_shapes(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    forms = list(pack(weight).forms())
    wanted = [weight, weight.T] if len(shape) == 2 else [weight]
    for form, values in zip(forms, wanted, strict=True):
        assert form.restore().shape == values.shape
        np.testing.assert_allclose(form.restore(), values, atol=0.02)


def test_a_bias_takes_what_rounding_does_to_inputs_that_hardly_vary(plain: Dlf) -> None:
    """Constants that are large against what varies, as the warm start sets some, would make it an offset."""
    picture = np.random.default_rng(5).integers(0, 256, (64, 96, 3), np.uint8)
    shifts = []
    for pictures in ([], [picture]):
        model = copy.deepcopy(plain)
        layer = model.details.dec_trans_0[0][1].conv  # type: ignore[index,union-attr]
        inputs = torch.randn(1, layer.weight.shape[1], 4, 6) * 0.01 + 40.0
        means = {"details.dec_trans_0.0.1.conv": inputs.mean((0, 2, 3))}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(eight_bits, "_input_means", lambda *_, m=means if pictures else {}: m)
            before = layer(inputs)
            round_to_eight(model, pictures)
        shifts.append((layer(inputs) - before).abs().mean().item())
    assert shifts[1] < shifts[0] / 20
    model = copy.deepcopy(plain)
    layers = dict(eight_bits._worth_it(model, ()))
    means = eight_bits._input_means(layers, [picture, picture], partial(eight_bits._code, model))
    assert {name.partition(".")[0] for name in means} >= {"encoder", "details", "fusion", "decoder"}
    for name, mean in means.items():
        assert mean.shape == (layers[name].weight.shape[1],), name


def test_what_is_the_only_way_of_the_details_keeps_sixteen_bits(plain: Dlf) -> None:
    packed = round_to_eight(copy.deepcopy(plain))
    assert "decoder.init_feat_up.weight" not in packed
    assert "encoder.down_proj.weight" not in packed


def test_what_decides_symbols_or_is_to_be_kept_is_not_rounded(plain: Dlf) -> None:
    model = copy.deepcopy(plain)
    packed = round_to_eight(model, keep=ENCODER_SIDE)
    for name, tensor in model.state_dict().items():
        moved = not torch.equal(tensor, plain.state_dict()[name])
        assert moved == (name in packed), name
        assert not (moved and name.startswith(("details.context", "quantize", "encoder.", "details.enc_")))
    assert {name.partition(".")[0] for name in packed} >= {"decoder", "fusion", "vqgan", "details"}


def test_graphs_hold_the_rounded_weights_in_eight_bits(model: Dlf, bundle: ModelBundle) -> None:
    for name in (ANALYSIS, SYNTHESIS):
        graph = onnx.load_from_string(bundle.read(name)).graph
        stored = {t.name: t for t in graph.initializer}
        eight = [key for key in stored if key.endswith(EIGHT)]
        assert len(eight) > 10
        for key in eight:
            assert stored[key].data_type == TensorProto.INT8
            scale = numpy_helper.to_array(stored[key.removesuffix(EIGHT) + SCALE])
            assert scale.dtype == np.float32
            assert scale.size == max(scale.shape)
    for name in (PRIOR, CONTEXT):
        assert bundle.read(name) == onnx_bundle.graph_file(model, name)


def test_the_runtime_folds_them_when_it_loads(bundle: ModelBundle, tmp_path: Path) -> None:
    for name in (ANALYSIS, SYNTHESIS):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(tmp_path / name)
        onnxruntime.InferenceSession(bundle.read(name), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(tmp_path / name).graph
        kinds = {t.data_type for t in graph.initializer}
        assert TensorProto.INT8 not in kinds
        assert TensorProto.FLOAT16 not in kinds
        constants = {t.name for t in graph.initializer}
        assert not [n for n in graph.node if n.op_type in ("Cast", "Mul") and set(n.input) <= constants]


def test_parity_and_back(model: Dlf, bundle: ModelBundle, picture: Callable[[int, int], UInt8]) -> None:
    compare(model, bundle, [picture(96, 320)], 50).check()
    found = recover(bundle, "tiny")
    for name, tensor in model.state_dict().items():
        combined = name.endswith(("class_embedding", "positional_embedding", "spread.square"))
        if not combined and name not in found.guessed and "details.context" not in name:
            # biases hold means over a picture, whose sums depend on how torch shares them out among threads
            near = 1e-5 if name.endswith(".bias") else 0
            torch.testing.assert_close(found.tensors[name], tensor, rtol=near, atol=near, msg=name)
    again = Dlf(TINY).eval().requires_grad_(False)
    again.load_state_dict(found.tensors)
    parity = compare(again, bundle, [picture(96, 320)], 50)
    parity.check()
    assert parity.tokens == 1
