"""Rewritten graphs compute what the traced ones do, from the same weights."""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
import onnx
from onnx import ModelProto, TensorProto, helper

from dlf.bundles import onnx_bundle
from dlf.bundles.onnx_bundle import ANALYSIS, SYNTHESIS, plan_tensors, trace
from dlf.bundles.rewriting import rewrite
from dlf.codec import bundle as bundles
from dlf.codec.onnx_backend import open_session
from dlf.nn.build import TINY
from dlf.nn.model import Dlf
from dlf.nn.model_config import StemConfig
from dlf.records import UInt8

pytestmark = pytest.mark.torch

# with whole windows, partly filled ones, and less than one
SIZES = [(256, 256), (288, 544), (32, 64)]
PARTS = (ANALYSIS, SYNTHESIS)


@pytest.fixture(scope="module")
def model() -> Dlf:
    """Seeded, with the shipped models' stem, and with every part that starts at zero moved away from it."""
    torch.manual_seed(3)
    model = Dlf(replace(TINY, stem=StemConfig(tokenizer=True))).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def traced(model: Dlf) -> dict[str, ModelProto]:
    """The graphs as the tracer makes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_bundle, "rewrite", lambda graph: None)
        return {name: trace(model, name) for name in PARTS}


def rewritten(graph: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(graph)
    rewrite(copy)
    onnx.checker.check_model(copy)
    return copy


def kinds(graph: ModelProto) -> list[str]:
    return [node.op_type for node in graph.graph.node]


def run(graph: ModelProto, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    session = open_session(graph.SerializeToString(), threads=1)
    outputs: list[NDArray[Any]] = session.run(
        None, {node.name: feeds[node.name] for node in session.get_inputs()}
    )
    return outputs


def feeds_for(model: Dlf, rgb: UInt8) -> dict[str, NDArray[Any]]:
    height, width = rgb.shape[:2]
    rng = np.random.default_rng(height)
    windows = -(-height // 256) * -(-width // 256)
    names = onnx_bundle.graphs.PLAN_INPUTS
    plans = dict(zip(names, (t.numpy() for t in plan_tensors(model.grid(height, width))), strict=True))
    return plans | {
        "rgb": rgb,
        "quality": np.array([63], np.float32),
        "tokens": rng.integers(-1, TINY.tokens.codes, (windows, TINY.tokens.count)),
        "y_hat": (3 * rng.standard_normal((1, 8, height // 32, width // 32))).astype(np.float32),
    }


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_same_comes_out(
    height: int,
    width: int,
    model: Dlf,
    traced: dict[str, ModelProto],
    picture: Callable[[int, int], UInt8],
) -> None:
    feeds = feeds_for(model, picture(height, width))
    before, after = run(traced[ANALYSIS], feeds), run(rewritten(traced[ANALYSIS]), feeds)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(after[1], before[1], atol=1e-4 * np.abs(before[1]).max())
    assert before[1].std() > 0.1
    (old,), (new,) = run(traced[SYNTHESIS], feeds), run(rewritten(traced[SYNTHESIS]), feeds)
    assert new.shape == (height, width, 3)
    assert new.dtype == np.uint8
    assert np.abs(new.astype(int) - old).max() <= 1
    assert (new != old).mean() < 0.001
    assert old.std() > 1


@pytest.mark.parametrize("name", PARTS)
def test_every_pattern_is_found(name: str, traced: dict[str, ModelProto]) -> None:
    before, after = kinds(traced[name]), kinds(rewritten(traced[name]))
    blocks = 3  # two layers of the ViT, and one where the branches meet
    assert after.count("MultiHeadAttention") == blocks
    assert after.count("Softmax") == before.count("Softmax") - blocks
    assert "Squeeze" not in after or name == SYNTHESIS
    assert "DepthToSpace" not in after
    assert after.count("Floor") == before.count("Floor") - (name == SYNTHESIS)
    assert len(after) < len(before)


@pytest.mark.parametrize("name", PARTS)
def test_weights_stay_as_they_are(name: str, traced: dict[str, ModelProto]) -> None:
    assert list(rewritten(traced[name]).graph.initializer) == list(traced[name].graph.initializer)


@pytest.mark.parametrize("name", PARTS)
def test_once_is_enough(name: str, traced: dict[str, ModelProto]) -> None:
    once = rewritten(traced[name])
    assert rewritten(once) == once


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("role", ["fast", "base"])
def test_shipped_graphs_are_rewritten(role: str, name: str) -> None:
    graph = onnx.load_from_string(bundles.find(role).read(name))
    assert "MultiHeadAttention" in kinds(graph)
    assert rewritten(graph) == graph


def test_other_graphs_stay_as_they_are() -> None:
    """Attention without a mask, and a shuffle in the other order."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["y"]),
        helper.make_node("DepthToSpace", ["y"], ["z"], blocksize=2, mode="DCR"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", 4, "h", "w"]) for name in ("x", "z")
    ]
    graph = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:]))
    assert rewritten(graph) == graph
