"""How much texture a decoded image has where the original has some, wherever its details lie.

A distance of features place by place asks for the mean of all images that the symbols allow, which is
blurred.  This one compares how strongly the features of a frozen network vary within a window, as the texture
part of DISTS does (Ding et al. 2020) over the whole image, and leaves open how.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 8  # of a map; windows overlap by half
FLOOR = 0.1  # variances far below this share of a channel's variance in the originals do not count


def contrast_distance(decoded: Sequence[Tensor], originals: Sequence[Tensor]) -> Tensor:
    """Mean over maps, channels and windows of (s - t)^2 / (s^2 + t^2) for the deviations s and t: (B,)."""
    total = torch.zeros(decoded[0].shape[0], device=decoded[0].device)
    for a, b in zip(decoded, originals, strict=True):
        b = b.float()
        floor = FLOOR * b.var((0, 2, 3), correction=0, keepdim=True) + 1e-8
        s, t = _variances(a.float()) + floor, _variances(b) + floor
        total = total + (1 - 2 * (s * t).sqrt() / (s + t)).mean((1, 2, 3))
    return total / len(decoded)


def _variances(maps: Tensor) -> Tensor:
    """Within windows; float32, since they are differences."""
    maps = maps - maps.mean((2, 3), keepdim=True)
    side = min(WINDOW, *maps.shape[2:])
    mean, square = (F.avg_pool2d(x, side, max(1, side // 2)) for x in (maps, maps * maps))
    return (square - mean * mean).clamp(min=0)
