"""Between the levels of an image's bytes and the numbers that the networks see."""

from __future__ import annotations

import torch
from torch import Tensor


def from_levels(rgb: Tensor) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W) in [0, 1]."""
    return rgb.permute(2, 0, 1)[None].to(torch.float32) / 255


def to_levels(signed: Tensor) -> Tensor:
    """Floats of any shape, in about [-1, 1], to uint8 of the same shape; what lies outside is clamped."""
    return ((signed.clamp(-1, 1) + 1) * 127.5 + 0.5).floor().to(torch.uint8)
