"""How many 1-D tokens are sent: by quality, and by how much of a window lies inside the image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.geometry import WINDOW_PATCHES
from dlf.nn.windows import Windows

QUALITIES = 101


def token_schedule(count: int, *, tail_drop: bool, ends: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Tokens that a full window sends at each quality 0..100, more from 0 to 50, the same from 50 on.

    ends: how many at 0 and at 50; by default half and all of `count`, all without `tail_drop`.
    ValueError for ends that the model was not trained for.
    """
    low, high = ends or (max(1, count / 2) if tail_drop else count, count)
    if not 1 <= low <= high <= count or not (tail_drop or low == count):
        msg = f"a window cannot send {low} to {high} tokens: the model was trained with {count}"
        raise ValueError(msg + (", and as few as 1" if tail_drop else " at every quality"))
    share = np.minimum(1.0, np.arange(QUALITIES) / 50)
    return np.maximum(1, np.rint(low + (high - low) * share)).astype(np.uint8)


def sent_mask(keep: Tensor, count: int, win: Windows) -> Tensor:
    """Which tokens are sent when a full window of sample b sends keep[b] of int64 keep (B,).

    Returns bool (B * windows, count).

    A window partly outside sends its share of patches, rounded up, as `dlf.geometry.Plan` says.
    """
    patches = (win.region >= 0).sum(1)
    share = -(-keep[:, None] * patches[None, :] // WINDOW_PATCHES)
    return (torch.arange(count, device=keep.device) < share[..., None]).flatten(0, 1)
