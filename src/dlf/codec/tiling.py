"""Running the networks over images of any size in bounded memory.

Tokens and latent belong to the whole image; the analysis and synthesis networks work on tiles, and so does
a prior network that reads the tokens.
Each tile has a core that it is responsible for and sees a halo of pixels around it::

        seen 0          core 0 | core 1           seen 1
    |--------------------------|~~~~~~~~|
                      |~~~~~~~~|---------------------|
                             fade
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.codec.backend import Backend
from dlf.entropy.tables import Tables
from dlf.geometry import CELL, WINDOW_PIXELS, Plan, Span, ceil_div, tile_spans
from dlf.records import Float32, Int32, Latents, Place, Prior, StepParams, UInt8

CORE = 4 * WINDOW_PIXELS  # pixels of a side at most
HALO = 2 * CELL  # pixels on every side, where a model does not pad to more
PRIOR_HALO = WINDOW_PIXELS  # likewise of the prior network, whose tiles consist of whole windows
FADE = 2 * CELL  # pixels over which one tile fades into the next, centred on the border of their cores


@dataclass(frozen=True)
class Tile:
    """Where a tile of an image lies; its core belongs to no other tile.

    row, col: pixels, those of the core and those that are seen.  Units are the sides of windows or cells.
    """

    row: Span
    col: Span

    @property
    def corner(self) -> tuple[int, int]:
        """Where the tile starts within its first window, in pixels."""
        return self.row.seen[0] % WINDOW_PIXELS, self.col.seen[0] % WINDOW_PIXELS

    def seen(self, unit: int) -> tuple[slice, slice]:
        """Where what the tile sees lies in the whole grid."""
        return _cut(self.row.seen, unit), _cut(self.col.seen, unit)

    def core(self, unit: int) -> tuple[slice, slice]:
        """Where the core lies in the whole grid."""
        return _cut(self.row.core, unit), _cut(self.col.core, unit)

    def core_in_seen(self, unit: int) -> tuple[slice, slice]:
        """Where the core lies in what the tile sees."""
        low, high = (
            slice(core.start - seen.start, core.stop - seen.start)
            for core, seen in zip(self.core(unit), self.seen(unit), strict=True)
        )
        return low, high


def tiles(plan: Plan, core: int, halo: int | None = None) -> list[Tile]:
    """Cut a picture into tiles that a network is run on one by one, row by row.

    core, halo: pixels; of a side at most, and on every side (by default `HALO`, or what the model pads to).
    """
    reach = max(HALO, plan.unit) if halo is None else halo
    rows, cols = (tile_spans(size, core, reach) for size in plan.padded)
    return [Tile(row, col) for row in rows for col in cols]


def analyse(backend: Backend, plan: Plan, rgb: UInt8, quality: int) -> Latents:
    """Run the analysis on uint8 (height, width, 3); each tile gives what its core holds.

    Each is padded by itself, so that a large image is not held a second time.
    """
    cut = tiles(plan, CORE)
    if len(cut) == 1:
        return backend.analyse(plan.pad(rgb), quality)
    tokens: Int32 = np.empty(0, np.int32)
    y: Float32 = np.empty(0, np.float32)
    for tile in cut:
        pixels = plan.pad(rgb, tile.row.seen, tile.col.seen)
        found = backend.analyse(pixels, quality, Place(tile.corner, more=tile is not cut[-1]))
        if not y.size:
            tokens = np.empty((*plan.windows, found.tokens.shape[1]), np.int32)
            y = np.empty((len(found.y), *plan.cells), np.float32)
        down, across = tile.seen(WINDOW_PIXELS)
        seen = found.tokens.reshape(down.stop - down.start, across.stop - across.start, -1)
        tokens[tile.core(WINDOW_PIXELS)] = seen[tile.core_in_seen(WINDOW_PIXELS)]
        y[(slice(None), *tile.core(CELL))] = found.y[(slice(None), *tile.core_in_seen(CELL))]
    return Latents(tokens.reshape(-1, tokens.shape[2]), y)


def prior(backend: Backend, tables: Tables, plan: Plan, tokens: Int32, quality: int) -> Prior:
    """Run the prior network; the same numbers as without tiles, for a halo is more than it looks around.

    tokens: int32 (windows, tokens a window), -1 where not sent.
    """
    cut = tiles(plan, CORE, PRIOR_HALO)
    if not tables.token_prior or len(cut) == 1:
        return backend.prior(*plan.cells, quality, tokens)
    grid = tokens.reshape(*plan.windows, -1)
    whole: list[NDArray[Any]] = []
    for tile in cut:
        seen, (down, across) = grid[tile.seen(WINDOW_PIXELS)], tile.seen(CELL)
        size = down.stop - down.start, across.stop - across.start
        found = backend.prior(*size, quality, seen.reshape(-1, seen.shape[2]))
        parts = (found.first.scale, found.first.mean, found.step, found.common)
        if not whole:
            whole = [np.empty((len(part), *plan.cells), part.dtype) for part in parts]
        for into, part in zip(whole, parts, strict=True):
            into[(slice(None), *tile.core(CELL))] = part[(slice(None), *tile.core_in_seen(CELL))]
    scale, mean, step, common = whole
    return Prior(first=StepParams(scale, mean), common=common, step=step)


def synthesise(backend: Backend, plan: Plan, tokens: Int32, y_hat: Float32, quality: int) -> UInt8:
    """Run the synthesis; returns uint8 (padded height, padded width, 3).

    A row of tiles is joined before it goes below the rows above it.
    """
    rows, cols = (tile_spans(size, CORE, max(HALO, plan.unit)) for size in plan.padded)
    grid = tokens.reshape(*plan.windows, -1)

    def paint(row: Span, col: Span) -> UInt8:
        tile = Tile(row, col)
        seen = grid[tile.seen(WINDOW_PIXELS)]
        cells = y_hat[(slice(None), *tile.seen(CELL))]
        place = Place(tile.corner, more=(row, col) != (rows[-1], cols[-1]))
        return backend.synthesise(seen.reshape(-1, seen.shape[2]), cells, quality, place)

    def paint_row(row: Span) -> UInt8:
        return _join(cols, 1, lambda col: paint(row, col))

    return _join(rows, 0, paint_row)


def _join(spans: list[Span], axis: int, paint: Callable[[Span], UInt8]) -> UInt8:
    """Paint the tiles along one axis and fade each into the one before."""
    joined = paint(spans[0])
    if len(spans) == 1:
        return joined
    shape = list(joined.shape)
    shape[axis] = spans[-1].seen[1]
    canvas = np.empty(shape, np.uint8)
    canvas.swapaxes(0, axis)[: spans[0].seen[1]] = joined.swapaxes(0, axis)
    del joined
    weight = ((np.arange(FADE) + 0.5) / FADE)[:, None, None]
    for span in spans[1:]:
        start = span.core[0] - FADE // 2
        tile = paint(span).swapaxes(0, axis)[start - span.seen[0] :]
        # what the tile before painted beyond the fade is overwritten
        below = canvas.swapaxes(0, axis)[start : span.seen[1]]
        below[FADE:] = tile[FADE:]
        below[:FADE] = np.rint(below[:FADE] * (1 - weight) + tile[:FADE] * weight)
    return canvas


def _cut(pixels: tuple[int, int], unit: int) -> slice:
    """The windows or cells that a range of pixels covers."""
    return slice(pixels[0] // unit, ceil_div(pixels[1], unit))
