"""Tiles of the shipped models' networks of pixels, against the whole picture at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dlf.codec import bundle, tiling
from dlf.codec.onnx_backend import OnnxBackend
from dlf.geometry import Plan
from shipped_models import needs_models

PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"
SIZE, CORE = 512, 256  # four tiles

Pixels = NDArray[np.float64]


def rms(pixels: Pixels) -> float:
    return float(np.sqrt(np.square(pixels).mean()))


@needs_models
@pytest.mark.parametrize("role", ["fast", pytest.param("base", marks=pytest.mark.slow)])
def test_no_seam_can_be_seen(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the halo, or attention windows that begin with the tile, are off by 17 to 31 levels."""
    with Image.open(PHOTO) as photo:
        rgb = np.asarray(photo.convert("RGB").resize((SIZE, SIZE)))
    found = bundle.find(role)
    backend = OnnxBackend(found, found.tables(), 2)
    plan = Plan(SIZE, SIZE)
    whole = tiling.analyse(backend, plan, rgb, 40)
    tokens, y_hat = whole.tokens, np.rint(whole.y)
    at_once = tiling.synthesise(backend, plan, tokens, y_hat, 40)
    monkeypatch.setattr(tiling, "CORE", CORE)
    tiled = tiling.analyse(backend, plan, rgb, 40)
    np.testing.assert_array_equal(tiled.tokens, tokens)
    assert rms(tiled.y - whole.y) < 0.003 * rms(whole.y)
    off = np.abs(tiling.synthesise(backend, plan, tokens, y_hat, 40).astype(float) - at_once)
    near = off[CORE - 32 : CORE + 32]
    assert 0 < off.max() <= 12, "0 would be no tiles at all"
    assert rms(near) < 1.2
