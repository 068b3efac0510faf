"""Images for the report: every codec at every target, and where the bits of our own files went."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from dlf.errors import DlfError
from dlf.evaluation.bits import Map, Spent, spent
from dlf.evaluation.codecs.fitting import ScaledCodec
from dlf.evaluation.codecs.formats import DlfCodec
from dlf.evaluation.comparison import Comparison
from dlf.evaluation.image_bench import ImageBench
from dlf.evaluation.ledger import Row
from dlf.evaluation.results import Results
from dlf.geometry import CELL, WINDOW_PIXELS
from dlf.records import UInt8

SHOWN_QUALITY = 90
LONGEST = 1600
"""Longest side of a shown picture in pixels; larger ones are scaled down."""


@dataclass(frozen=True)
class Tile:
    """An image as a data URI, and what to say about it."""

    image: str
    caption: str


@dataclass(frozen=True)
class Window:
    """Upper left corner and side of a window in pixels, and what was spent on it."""

    x: int
    y: int
    side: int
    tokens: int
    token_bits: float
    detail_bits: float


@dataclass(frozen=True)
class Bits:
    """Where the bits went; map: data URI with a pixel for each cell; covers: pixels right and down."""

    map: str
    covers: tuple[int, int]
    caption: str
    windows: list[Window]


@dataclass(frozen=True)
class Example:
    """One image; targets: tiles by target and codec; bits: by target."""

    name: str
    width: int
    height: int
    original: str
    targets: dict[str, dict[str, Tile]] = field(default_factory=dict)
    bits: dict[str, Bits] = field(default_factory=dict)


def examples(results: Results, count: int) -> list[Example]:
    """Return those of the first `count` images that have results, from the kept files; raises OSError."""
    comparison, shown = results.comparison, []
    for image in results.images[:count]:
        rows = [row for row in results.rows if row.picture == image.name and not row.error]
        if not rows:
            continue
        bench = ImageBench(comparison, image)
        height, width = bench.original.shape[:2]
        example = Example(image.name, width, height, _shown(bench.original))
        for row in rows:
            tile = Tile(_shown(bench.decoded(row)), _caption(row, comparison))
            example.targets.setdefault(row.target, {})[row.codec] = tile
            if row.target not in example.bits and (bits := _bits(bench, row)):
                example.bits[row.target] = bits
        shown.append(example)
    return shown


def _caption(row: Row, comparison: Comparison) -> str:
    scores = [f"{m.title} {row.scores[m.name]:.{m.digits}f}" for m in comparison.metrics]
    scale = "" if row.scale == "1" else f", coded at {row.scale} of the size"
    over = ", over the target" if row.over_budget else ""
    return f"{row.codec}: {row.size:,} bytes, {row.bpp:.4f} bpp{over}{scale}; {', '.join(scores)}"


def _bits(bench: ImageBench, row: Row) -> Bits | None:
    """Return where the bits of a file went, None if it is not one of ours."""
    compared = bench.comparison.codec(row.codec)
    data = bench.kept(row)
    if data is None or not isinstance(compared, ScaledCodec) or not isinstance(compared.codec, DlfCodec):
        return None
    try:
        usage = spent(compared.codec.model, data)
    except DlfError:  # the file is there but was damaged since
        return None
    rows, cols = usage.cells.shape
    most = usage.cells.max()
    image = Image.fromarray(_coloured(usage.cells / max(most, 1e-9)))
    caption = (
        f"{row.codec}: {usage.windows.sum():.0f} bits of tokens, {usage.cells.sum():.0f} of detail, "
        f"at most {most:.0f} in a cell; {row.size} bytes in all"
    )
    return Bits(_uri(image, "PNG"), (cols * CELL, rows * CELL), caption, _windows(usage))


def _windows(usage: Spent) -> list[Window]:
    ratio = WINDOW_PIXELS // CELL
    windows = []
    for y, x in np.ndindex(*usage.tokens.shape):
        cells = usage.cells[y * ratio : (y + 1) * ratio, x * ratio : (x + 1) * ratio]
        spent_on = int(usage.tokens[y, x]), float(usage.windows[y, x]), float(cells.sum())
        windows.append(Window(x * WINDOW_PIXELS, y * WINDOW_PIXELS, WINDOW_PIXELS, *spent_on))
    return windows


def _coloured(values: Map) -> UInt8:
    """Return 0..1 as colours from dark blue over red to yellow, uint8 (rows, cols, 3)."""
    stops = np.array([[12, 8, 60], [120, 20, 110], [225, 70, 60], [252, 200, 60], [252, 255, 180]])
    place = np.clip(values, 0, 1) * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)
    share = (place - low)[..., None]
    mixed: UInt8 = np.rint(stops[low] * (1 - share) + stops[low + 1] * share).astype(np.uint8)
    return mixed


def _shown(rgb: UInt8) -> str:
    image = Image.fromarray(rgb)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return _uri(image, "WEBP", quality=SHOWN_QUALITY)


def _uri(image: Image.Image, kind: str, **options: int) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
