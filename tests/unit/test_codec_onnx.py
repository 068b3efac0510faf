"""The ONNX Runtime backend on hand-made graphs: what it feeds, checks and leaves unloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlf.codec.bundle import ModelBundle
from dlf.codec.onnx_backend import OnnxBackend
from dlf.errors import BundleError
from dlf.records import Place, UInt8

onnx = pytest.importorskip("onnx")

FLOAT, INT64, UINT8 = 1, 7, 2
LATENT = [1, 8, "rows", "cols"]
TOKENS = np.full((1, 6), -1, np.int32)

PRIOR = """
<ir_version: 8, opset_import: ["" : 18]>
prior (float[1, 2, r, c] prior) => (float[1, 8, r, c] scale, float[1, 8, r, c] mean,
                                    float[1, 8, r, c] step, float[1, 8, r, c] common) {
  four = Constant <value_ints = [1, 4, 1, 1]> ()
  scale = Tile (prior, four)
  one = Constant <value_float = 1.0> ()
  mean = Neg (scale)
  size = Abs (scale)
  step = Add (size, one)
  common = Identity (scale)
}
"""
CONTEXT = """
<ir_version: 8, opset_import: ["" : 18]>
context (float[1, 8, r, c] y_hat, float[1, 8, r, c] common, int64 index)
     => (float[1, 8, r, c] scale, float[1, 8, r, c] mean) {
  i = Cast <to = 1> (index)
  scale = Add (common, i)
  mean = Add (y_hat, common)
}
"""
ANALYSIS = """
<ir_version: 8, opset_import: ["" : 18]>
analysis (uint8[h, w, 3] rgb, float[1] quality, int64[n, m] token_gather)
      => (int64[n, 6] indices, float[8, r, c] y) {
  start = Constant <value_ints = [0]> ()
  end = Constant <value_ints = [6]> ()
  axis = Constant <value_ints = [1]> ()
  sixteen = Constant <value_int = 16> ()
  first = Slice (token_gather, start, end, axis)
  indices = Mod (first, sixteen)
  half = Constant <value_ints = [0, 0, 0]> ()
  ends = Constant <value_ints = [9000000, 9000000, 1]> ()
  axes = Constant <value_ints = [0, 1, 2]> ()
  steps = Constant <value_ints = [32, 32, 1]> ()
  corner = Slice (rgb, half, ends, axes, steps)
  turned = Transpose <perm = [2, 0, 1]> (corner)
  float = Cast <to = 1> (turned)
  gained = Mul (float, quality)
  eight = Constant <value_ints = [8, 1, 1]> ()
  y = Tile (gained, eight)
}
"""
SYNTHESIS = """
<ir_version: 8, opset_import: ["" : 18]>
synthesis (int64[n, 6] tokens, float[1, 8, r, c] y_hat, float[1] quality) => (uint8[h, w, 3] rgb) {
  begin = Constant <value_ints = [0, 0]> ()
  end = Constant <value_ints = [1, 3]> ()
  axes = Constant <value_ints = [0, 1]> ()
  three = Slice (y_hat, begin, end, axes)
  scales = Constant <value_floats = [1.0, 1.0, 32.0, 32.0]> ()
  none = Constant <value_floats = [0.0]> ()
  large = Resize <mode = "nearest"> (three, , scales)
  axis = Constant <value_ints = [0]> ()
  flat = Squeeze (large, axis)
  turned = Transpose <perm = [1, 2, 0]> (flat)
  rgb = Cast <to = 2> (turned)
}
"""


def graphs(**changes: str) -> dict[str, bytes]:
    texts = {"prior": PRIOR, "context": CONTEXT, "analysis": ANALYSIS, "synthesis": SYNTHESIS} | changes
    return {f"{name}.onnx": onnx.parser.parse_model(text).SerializeToString() for name, text in texts.items()}


@pytest.fixture
def make(tmp_path: Path, write_bundle: Callable[..., Path]) -> Callable[..., OnnxBackend]:
    def build(files: dict[str, bytes] | None = None) -> OnnxBackend:
        bundle = ModelBundle.open(write_bundle(tmp_path, graphs() if files is None else files))
        return OnnxBackend(bundle, bundle.tables(), threads=1)

    return build


def test_every_graph_gets_its_inputs(
    make: Callable[..., OnnxBackend], picture: Callable[[int, int], UInt8]
) -> None:
    backend = make()
    rgb = picture(64, 352)
    latents = backend.analyse(rgb, 2)
    assert latents.tokens.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    assert latents.tokens.dtype == np.int32
    np.testing.assert_array_equal(latents.y[0], rgb[::32, ::32, 0] * np.float32(2))
    prior = backend.prior(2, 3, 40, TOKENS)
    assert prior.first.scale[:, 0, 0].tolist() == [40, 20] * 4
    assert prior.first.mean[:, 1, 2].tolist() == [-40, -20] * 4
    assert prior.step.min() == 21
    assert prior.step.dtype == prior.first.scale.dtype == prior.first.mean.dtype == np.int32
    params = backend.context(3, np.full((8, 2, 3), -5, np.int32), prior.common)
    assert params.scale[0, 0, 0] == 42
    assert params.mean[0, 0, 0] == 35
    painted = backend.synthesise(
        np.zeros((1, 6), np.int32), np.full((8, 2, 3), 77, np.float32)[:, :, ::-1], 50
    )
    assert painted.shape == (64, 96, 3)
    assert (painted == 77).all()


def test_decoding_never_reads_the_analysis_and_encoding_never_the_synthesis(
    make: Callable[..., OnnxBackend], picture: Callable[[int, int], UInt8]
) -> None:
    backend = make(graphs() | {"analysis.onnx": b"not a graph"})
    backend.prior(1, 1, 0, TOKENS)
    backend.synthesise(np.zeros((1, 6), np.int32), np.zeros((8, 1, 1), np.float32), 0)
    with pytest.raises(BundleError, match="analysis network cannot be loaded"):
        backend.analyse(picture(64, 352), 0)
    make(graphs() | {"synthesis.onnx": b"not a graph"}).analyse(picture(64, 352), 0)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (
            "common = Identity (scale)",
            "half = Constant <value_float = 0.5> () common = Add (scale, half)",
            "integer",
        ),
        (
            "common = Identity (scale)",
            "big = Constant <value_float = 1e9> () common = Add (scale, big)",
            "integer",
        ),
        ("common = Identity (scale)", "zero = Sub (one, one) common = Div (scale, zero)", "integer"),
        ("step = Add (size, one)", "step = Identity (mean)", "step"),
        ("common = Identity (scale)", "common = Identity (prior)", "instead of"),
        ("common", "other", "cannot be run"),
    ],
)
def test_wrong_networks_are_refused(make: Callable[..., OnnxBackend], old: str, new: str, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        make(graphs(prior=PRIOR.replace(old, new))).prior(2, 2, 50, TOKENS)


@pytest.mark.parametrize(("old", "new"), [("= 16", "= 1000"), ("[8, 1, 1]", "[9, 1, 1]"), ("[6]", "[5]")])
def test_wrong_analyses_are_refused(
    make: Callable[..., OnnxBackend], picture: Callable[[int, int], UInt8], old: str, new: str
) -> None:
    backend = make(graphs(analysis=ANALYSIS.replace(old, new, 1)))
    with pytest.raises(BundleError):
        backend.analyse(picture(64, 352), 50)


def test_memory_is_kept_between_tiles(
    make: Callable[..., OnnxBackend], picture: Callable[[int, int], UInt8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of the last one; a picture in one piece keeps it if it is small."""
    backend = make()
    network, runs = backend._network("analysis"), []

    def run_large(outputs: Any, feeds: Any) -> list[Any]:
        runs.append("large")
        return network.run(outputs, feeds)

    monkeypatch.setattr(backend, "_network", lambda graph: replace(network, run_large=run_large))
    for more, wanted in ((True, 0), (None, 0), (False, 1)):
        backend.analyse(picture(64, 352), 2, Place(more=more))
        assert len(runs) == wanted
