"""Sheets of images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from dlf.evaluation.comparison import Comparison
from dlf.evaluation.image_bench import ImageBench
from dlf.evaluation.ledger import Row
from dlf.evaluation.results import Results

CAPTION, GAP, FONT_SIZE = 22, 6, 15  # pixels


@dataclass(frozen=True)
class CaptionedImage:
    """An image and what stands above it."""

    caption: str
    image: Image.Image


def contact_sheet(results: Results, count: int, target: str, columns: int = 2) -> Image.Image | None:
    """Return the first `count` originals beside the first `columns` codecs at one target, a line for each.

    An image without any result is left out, and None is returned if all are.
    """
    by_key = {row.key: row for row in results.rows if not row.error}
    codecs = [codec.name for codec in results.comparison.ordered[:columns]]
    strips = []
    for image in results.images[:count]:
        rows = [by_key[key] for codec in codecs if (key := (image.name, target, codec)) in by_key]
        if not rows:
            continue
        bench = ImageBench(results.comparison, image)
        tiles = [CaptionedImage(image.name, Image.fromarray(bench.original))]
        tiles += [
            CaptionedImage(caption(row, results.comparison), Image.fromarray(bench.decoded(row)))
            for row in rows
        ]
        strips.append(strip(tiles))
    return stacked(strips) if strips else None


def stacked(strips: Sequence[Image.Image]) -> Image.Image:
    """Put strips, at least one, below each other."""
    size = max(each.width for each in strips), sum(each.height for each in strips)
    sheet = Image.new("RGB", size, "white")
    top = 0
    for each in strips:
        sheet.paste(each, (0, top))
        top += each.height
    return sheet


def caption(row: Row, comparison: Comparison) -> str:
    """Return codec, size and one metric of a row."""
    metric = comparison.judging
    return (
        f"{row.codec}  {row.size:,} bytes  {row.bpp:.4f} bpp  "
        f"{metric.title} {row.scores[metric.name]:.{metric.digits}f}"
    )


def strip(tiles: Sequence[CaptionedImage], font_size: int = FONT_SIZE) -> Image.Image:
    """Put images of one size side by side, each under its caption; font_size: pixels."""
    width, height = tiles[0].image.size
    result = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, CAPTION + height + GAP), "white")
    font = ImageFont.load_default(font_size)
    for column, tile in enumerate(tiles):
        left = column * (width + GAP)
        label = Image.new("RGB", (width, CAPTION), "white")
        ImageDraw.Draw(label).text((2, 2), tile.caption, fill="black", font=font)
        result.paste(label, (left, 0))
        result.paste(tile.image, (left, CAPTION))
    return result
