"""How many 1-D tokens are sent: by quality, and by how much of a window lies inside the image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.geometry import WINDOW_PATCHES
from dlf.nn.windows import Windows

QUALITIES = 101


def token_schedule(count: int, *, tail_drop: bool) -> NDArray[np.uint8]:
    """Tokens that a full window sends at each quality 0..100: half at 0, all from 50 on."""
    share = np.minimum(1.0, 0.5 + np.arange(QUALITIES) / 100) if tail_drop else np.ones(QUALITIES)
    return np.maximum(1, np.rint(count * share)).astype(np.uint8)


def sent_mask(keep: Tensor, count: int, win: Windows) -> Tensor:
    """Which tokens are sent when a full window of sample b sends keep[b]: bool (B * windows, count).

    A window partly outside sends its share of patches, rounded up, as `dlf.geometry.Plan` says.
    """
    patches = (win.region >= 0).sum(1)
    share = -(-keep[:, None] * patches[None, :] // WINDOW_PATCHES)
    return (torch.arange(count, device=keep.device) < share[..., None]).flatten(0, 1)
