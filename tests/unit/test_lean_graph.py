"""The graphs that decide symbols give the same whole numbers from fewer operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlf.codec import bundle
from dlf.codec.bundle import ModelBundle
from dlf.codec.graph_file import GraphFile
from dlf.codec.lean_graph import lean
from dlf.codec.onnx_backend import OnnxBackend, open_session

SHIPPED = pytest.mark.parametrize(
    "model", list(bundle.installed()), ids=lambda model: str(model.manifest.name)
)

# sums far beyond the clamp on both sides; two channels are bent by 1/8, the last one by 1/2
HALVES = """
<ir_version: 8, opset_import: ["" : 18]>
context (float[1, 1, r, c] x) => (float[1, 2, r, c] first, float[1, 1, r, c] second)
<float[3, 1, 1, 1] w = {127, -127, 90}, float[3] b = {-31, 32, -5000}> {
  sums = Conv (x, w, b)
  unit = Constant <value: tensor = float {64}> ()
  half = Constant <value: tensor = float {0.5}> ()
  low = Constant <value: tensor = float {-255}> ()
  high = Constant <value: tensor = float {255}> ()
  parts = Div (sums, unit)
  raised = Add (parts, half)
  whole = Floor (raised)
  clipped = Clip (whole, low, high)
  none = Constant <value: tensor = int64[1] {0}> ()
  two = Constant <value: tensor = int64[1] {2}> ()
  three = Constant <value: tensor = int64[1] {3}> ()
  axis = Constant <value: tensor = int64[1] {1}> ()
  left = Slice (clipped, none, two, axis)
  right = Slice (clipped, two, three, axis)
  zero = Constant <value: tensor = float {0}> ()
  eighth = Constant <value: tensor = float {0.125}> ()
  left_test = GreaterOrEqual (left, zero)
  left_part = Mul (left, eighth)
  left_whole = Floor (left_part)
  first = Where (left_test, left, left_whole)
  right_test = GreaterOrEqual (right, zero)
  right_part = Mul (right, half)
  right_whole = Floor (right_part)
  second = Where (right_test, right, right_whole)
}
"""
CHOICE = """
<ir_version: 8, opset_import: ["" : 18]>
context (float[1, 1, r, c] x, int64SHAPE index) => (float[1, 1, r, c] y) {
  one = Constant <value: tensor = int64[1] {1}> ()
  two = Constant <value: tensor = float {2}> ()
  is_one = Equal (index, one)
  doubled = Mul (x, two)
  less = Sub (doubled, two)
  y = Where (is_one, less, x)
}
"""


def _compiled(text: str) -> bytes:
    """Return a graph with its constants stored as exporters store them."""
    parser = pytest.importorskip("onnx.parser")
    helper = pytest.importorskip("onnx.numpy_helper")
    model = parser.parse_model(text)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                attribute.t.CopyFrom(helper.from_array(helper.to_array(attribute.t)))
    data: bytes = model.SerializeToString()
    return data


def _kinds(data: bytes) -> Counter[str]:
    return Counter(one.kind for one in GraphFile(data).operations)


def _feeds(model: ModelBundle, graph: str, rows: int, cols: int, seed: int) -> dict[str, NDArray[Any]]:
    """Whole numbers as far as inputs can have them, half of them at the clamp."""
    rng = np.random.default_rng(seed)
    shape = (1, model.manifest.channels, rows, cols)

    def numbers() -> NDArray[np.float32]:
        inner = rng.integers(-255, 256, shape)
        return np.where(rng.random(shape) < 0.5, inner, rng.choice([-255, 255], shape)).astype(np.float32)

    if graph == "context":
        return {"y_hat": 200 * numbers(), "common": numbers(), "index": np.array([seed % 3])}
    windows = -(-rows // 8), -(-cols // 8)
    tokens = rng.integers(-1, model.manifest.codes, (*windows, model.manifest.tokens))
    return {"prior": numbers(), "tokens": tokens}


@SHIPPED
@pytest.mark.parametrize("graph", ["context", "prior"])
def test_the_same_numbers(model: ModelBundle, graph: str) -> None:
    data = model.read(f"{graph}.onnx")
    whole, less = open_session(data, 1), open_session(lean(data), 1)
    names = [node.name for node in whole.get_inputs()]
    assert [node.name for node in less.get_inputs()] == names
    for seed in range(6):
        for rows, cols in ((1, 1), (5, 7), (16, 24)):
            given = _feeds(model, graph, rows, cols, seed)
            feeds = {name: given[name] for name in names}
            for expected, found in zip(whole.run(None, feeds), less.run(None, feeds), strict=True):
                assert np.array_equal(expected, found)


@SHIPPED
def test_a_step_computes_its_own_adaptor(model: ModelBundle) -> None:
    data = model.read("context.onnx")
    before, after = _kinds(data), _kinds(lean(data))
    assert before["Where"] > 0
    assert before["If"] == 0
    assert after["If"] == 1
    # two of the five parts of the network are left outside of the choice, and one is inside
    assert after["Conv"] == 12
    assert not {"Where", "GreaterOrEqual"} & {*after}


def test_the_backend_runs_it() -> None:
    model = bundle.find("base")
    backend = OnnxBackend(model, model.tables(), threads=1)
    assert backend.graph_as_run("context") == lean(model.read("context.onnx"))
    assert backend.graph_as_run("prior") == lean(model.read("prior.onnx"))
    assert backend.graph_as_run("analysis") == model.read("analysis.onnx")


def test_clamps_of_halves() -> None:
    data = _compiled(HALVES)
    changed = lean(data)
    assert _kinds(changed)["LeakyRelu"] == 2
    assert "Where" not in _kinds(changed)
    x = np.arange(-255, 256, dtype=np.float32).reshape(1, 1, 1, -1)
    expected, found = (open_session(each, 1).run(None, {"x": x}) for each in (data, changed))
    assert expected[0].min() == -32  # at the bent clamp
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(("shape", "kinds"), [("", {"If": 1}), ("[n]", {"Where": 1}), ("[1]", {"Where": 1})])
def test_a_choice_of_each_place_stays(shape: str, kinds: dict[str, int]) -> None:
    data = _compiled(CHOICE.replace("SHAPE", shape))
    changed = lean(data)
    found = _kinds(changed)
    assert {kind: found[kind] for kind in ("If", "Where") if found[kind]} == kinds
    x = np.full((1, 1, 2, 2), 5, np.float32)
    for number, expected in ((0, 5), (1, 8)):
        index = np.array(number, np.int64).reshape(() if not shape else (1,))
        (y,) = open_session(changed, 1).run(None, {"x": x, "index": index})
        assert (y == expected).all()


def test_what_is_no_graph_stays() -> None:
    assert lean(b"") == b""
    assert lean(b"\x0a\xff") == b"\x0a\xff"
