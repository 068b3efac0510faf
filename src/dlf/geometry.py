"""All shape arithmetic: padding, patches, windows, latent grid, attention plans, tiles.

A *patch* is 16x16 pixels, a *latent cell* 32x32 pixels, a *window* 16x16 patches (256x256 pixels).
Windows are taken row by row from the top left; the last ones may lie partly outside the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

PATCH = 16
CELL = 32
WINDOW = 16
WINDOW_PIXELS = WINDOW * PATCH
WINDOW_PATCHES = WINDOW * WINDOW
WINDOW_CELLS = WINDOW_PIXELS // CELL

Int64 = NDArray[np.int64]


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up, for a >= 0 and b > 0."""
    return -(-a // b)


@dataclass(frozen=True)
class Plan:
    """Grids of an image of `height` x `width` pixels (both at least 1).

    unit: pixels; the image is padded to multiples of it, itself a multiple of a latent cell.
    corner: of a tile, the row and the column, within its first window, where its first pixel lies, multiples
        of 32 below 256; an image as a whole starts with a window.
    """

    height: int
    width: int
    unit: int = CELL
    corner: tuple[int, int] = (0, 0)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the latent grid."""
        height, width = self.padded
        return height // CELL, width // CELL

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width in pixels after padding right and bottom to whole units."""
        return ceil_div(self.height, self.unit) * self.unit, ceil_div(self.width, self.unit) * self.unit

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of the patch grid of the padded image."""
        rows, cols = self.cells
        return rows * CELL // PATCH, cols * CELL // PATCH

    @property
    def windows(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        (rows, cols), (row, col) = self.patches, self.first_patch
        return ceil_div(row + rows, WINDOW), ceil_div(col + cols, WINDOW)

    @property
    def first_patch(self) -> tuple[int, int]:
        """Row and column of the corner, in patches."""
        return self.corner[0] // PATCH, self.corner[1] // PATCH

    def window_patches(self) -> Int64:
        """Patches of the padded image inside each window: int64 (windows,), each in 4..256."""
        rows, cols = (np.minimum(WINDOW, n - np.arange(0, n, WINDOW)) for n in self.patches)
        return np.outer(rows, cols).reshape(-1)

    def token_counts(self, tokens: int) -> Int64:
        """Tokens each window sends when a full one sends `tokens`: int64 (windows,).

        A window partly outside sends its share of patches, rounded up.
        """
        return -(-self.window_patches() * tokens // WINDOW_PATCHES)

    def pad(
        self,
        rgb: NDArray[np.uint8],
        rows: tuple[int, int] | None = None,
        cols: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Replicate the last row and column of uint8 (height, width, 3) up to `padded`.

        rows, cols: half-open ranges of the padded image that are wanted; None is all.
        """
        (top, bottom), (left, right) = rows or (0, self.padded[0]), cols or (0, self.padded[1])
        part = rgb[min(top, self.height - 1) : bottom, min(left, self.width - 1) : right]
        missing = (bottom - top - part.shape[0], right - left - part.shape[1])
        return np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")

    def crop(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut the padding off again."""
        return rgb[: self.height, : self.width]


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """Index maps that cut a grid into attention windows and put it together again.

    A cyclic shift puts parts of the grid that are not neighbours into one window; places outside the
    grid fill windows up.  Both are told apart by `region`: two places may attend to each other exactly
    where their regions are equal.

    gather: int64 (windows, n), flat grid index of each place (0 where outside the grid).
    region: int64 (windows, n), region number, -1 where outside the grid.
    slot: int64 (n,), row * window + column of the place within a full window, for position tables.
    scatter: int64 (rows, cols), flat index into (windows, n) where each grid place went.
    """

    gather: Int64
    region: Int64
    slot: Int64
    scatter: Int64


@lru_cache(maxsize=64)
def window_plan(
    rows: int,
    cols: int,
    window: int,
    shift: int = 0,
    origin: tuple[int, int] = (0, 0),
    first: tuple[int, int] = (0, 0),
) -> WindowPlan:
    """Plan windows of `window` x `window` over a grid, cyclically shifted up and left by `shift`.

    A grid smaller than a window in one direction gives windows of just that size (unshifted, since
    nothing lies beyond); `origin` says where in a full window such a small window's places lie.
    A grid that is a part of another one starts `first` rows and columns below and right of where a window
    does, so that its windows are those of the other; what it lacks of them is outside.
    """
    r, r_region, r_slot = _axis(rows, window, shift, origin[0], first[0])
    c, c_region, c_slot = _axis(cols, window, shift, origin[1], first[1])
    inside = (r_region >= 0)[:, None, :, None] & (c_region >= 0)[None, :, None, :]
    gather = r[:, None, :, None] * cols + c[None, :, None, :]
    region = r_region[:, None, :, None] * 2 + c_region[None, :, None, :]
    slot = r_slot[:, None] * window + c_slot[None, :]
    windows, n = inside.shape[0] * inside.shape[1], inside.shape[2] * inside.shape[3]
    inside = inside.reshape(-1)
    flat = np.where(inside, gather.reshape(-1), 0)
    scatter = np.empty(rows * cols, np.int64)
    scatter[flat[inside]] = np.flatnonzero(inside)
    return WindowPlan(
        gather=flat.reshape(windows, n),
        region=np.where(inside, region.reshape(-1), -1).reshape(windows, n),
        slot=slot.reshape(-1),
        scatter=scatter.reshape(rows, cols),
    )


def _axis(size: int, window: int, shift: int, origin: int, first: int) -> tuple[Int64, Int64, Int64]:
    """One axis of a window plan: grid index and region, both (windows, length), and slot (length,)."""
    first %= window
    end = first + size
    length = window if first else min(size, window)
    count = ceil_div(end, length)
    shift = 0 if count == 1 and length < window else shift
    place = np.arange(count * length)
    index = (place + shift) % (count * length)
    outside = (index < first) | (index >= end)
    # places that the shift carried round the edge are not neighbours of the rest
    region = np.where(outside, -1, (place >= count * length - shift).astype(np.int64))
    slot = np.arange(length) + (origin if length < window else 0)
    index = np.where(outside, 0, index - first)
    return index.reshape(count, length), region.reshape(count, length), slot


def border_places(count: int, reach: int) -> Int64:
    """Place of each of `count` cells, int64 (count,), in a row of 2 * reach + 1 at most, its middle repeated.

    What looks at no more than `reach` cells to each side says the same of all cells in the middle.
    """
    index = np.arange(count)
    place: Int64 = np.minimum(index, np.maximum(reach, index - max(0, count - 1 - 2 * reach)))
    return place


@dataclass(frozen=True)
class Span:
    """Half-open ranges along one axis, in pixels: what a tile keeps and what it must see."""

    core: tuple[int, int]
    seen: tuple[int, int]


def tile_spans(size: int, core: int, halo: int) -> list[Span]:
    """Cut `size` padded pixels into cores of at most `core` pixels that see `halo` more on either side.

    A size of at most core + 2 * halo is one tile.  `core` is a multiple of a window, and every core starts at
    one; they are as equal as that allows.  `halo` is a multiple of a cell.
    """
    if size <= core + 2 * halo:
        return [Span((0, size), (0, size))]
    windows, count = ceil_div(size, WINDOW_PIXELS), ceil_div(size, core)
    cuts = [min(size, windows * i // count * WINDOW_PIXELS) for i in range(count + 1)]
    return [Span((a, b), (max(0, a - halo), min(size, b + halo))) for a, b in pairwise(cuts)]
