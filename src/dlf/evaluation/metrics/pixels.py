"""Pixels as networks and programs want them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dlf.records import UInt8


def extended(rgb: UInt8, side: int) -> UInt8:
    """Return uint8 (H, W, 3) with no side under `side` pixels: the last line is repeated down and right."""
    missing = [(0, max(0, side - length)) for length in rgb.shape[:2]]
    return np.pad(rgb, [*missing, (0, 0)], mode="edge")


def png(rgb: UInt8) -> bytes:
    """Return uint8 (H, W, 3) as the bytes of a PNG file that is quick to write."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", compress_level=0)
    return file.getvalue()
