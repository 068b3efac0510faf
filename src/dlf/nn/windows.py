"""Attention windows in torch: index maps of `dlf.geometry.WindowPlan` as tensors, and their masks."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from dlf.geometry import WINDOW, window_plan


class Windows(NamedTuple):
    """A WindowPlan as int64 tensors (see there for shapes).

    whole: every window is one region, so that no mask is needed.
    """

    gather: Tensor
    region: Tensor
    slot: Tensor
    scatter: Tensor
    whole: bool


class Grid(NamedTuple):
    """All window plans that a model needs for one grid of patches."""

    token: Windows
    swin: Windows
    shifted: Windows


def windows(
    rows: int,
    cols: int,
    window: int,
    shift: int = 0,
    device: torch.device | None = None,
    first: tuple[int, int] = (0, 0),
) -> Windows:
    """Plan of a patch grid as tensors; arguments as `dlf.geometry.window_plan`."""
    plan = window_plan(rows, cols, window, shift, first=first)
    return Windows(
        gather=torch.from_numpy(plan.gather).to(device),
        region=torch.from_numpy(plan.region).to(device),
        slot=torch.from_numpy(plan.slot).to(device),
        scatter=torch.from_numpy(plan.scatter).to(device),
        whole=bool((plan.region == plan.region[:, :1]).all()),
    )


@lru_cache(maxsize=16)  # plans of a very large image take tens of megabytes
def make_grid(
    rows: int,
    cols: int,
    swin_window: int,
    device: torch.device | None = None,
    first: tuple[int, int] = (0, 0),
) -> Grid:
    """All plans of a grid of rows x cols patches; made once for each size and device.

    first: of a part of a grid, where it starts; see `dlf.geometry.window_plan`.
    """
    # what is made in inference mode could not be used in training later
    with torch.inference_mode(False):
        return Grid(
            token=windows(rows, cols, WINDOW, device=device, first=first),
            swin=windows(rows, cols, swin_window, device=device, first=first),
            shifted=windows(rows, cols, swin_window, swin_window // 2, device, first),
        )


def cut(x: Tensor, win: Windows) -> Tensor:
    """Grid (B, rows, cols, C) to windows (B * windows, n, C), batch-major."""
    batch, channels = x.shape[0], x.shape[-1]
    taken = x.flatten(1, 2).index_select(1, win.gather.flatten())
    return taken.reshape(batch * win.gather.shape[0], win.gather.shape[1], channels)


def paste(x: Tensor, win: Windows, batch: int) -> Tensor:
    """Windows (B * windows, n, C) back to the grid (B, rows, cols, C)."""
    rows, cols = win.scatter.shape
    flat = x.reshape(batch, win.gather.shape[0] * win.gather.shape[1], x.shape[-1])
    return flat.index_select(1, win.scatter.flatten()).reshape(batch, rows, cols, x.shape[-1])


def key_bias(win: Windows, before: int, after: int, batch: int) -> Tensor | None:
    """Additive mask that hides places outside the image from every query.

    The sequence is `before` always visible tokens, the n places, `after` always visible tokens:
    (B * windows, 1, 1, before + n + after) of 0 and -inf, or None where nothing is hidden.
    """
    if win.whole:
        return None
    outside = torch.nn.functional.pad(win.region < 0, (before, after), value=False)
    return _to_bias(outside).repeat(batch, 1)[:, None, None, :]


def pair_bias(win: Windows, batch: int) -> Tensor | None:
    """Additive mask between places of different regions: (B * windows, 1, n, n), or None."""
    if win.whole:
        return None
    apart = win.region[:, :, None] != win.region[:, None, :]
    return _to_bias(apart).repeat(batch, 1, 1)[:, None]


def _to_bias(hidden: Tensor) -> Tensor:
    """What is hidden, bool of any shape, as -inf and the rest as 0, float32."""
    zero = torch.zeros((), dtype=torch.float32, device=hidden.device)
    return torch.where(hidden, zero - torch.inf, zero)
