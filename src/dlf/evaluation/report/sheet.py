"""Sheets of pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dlf.evaluation.dataset import Picture
from dlf.evaluation.ledger import Row
from dlf.evaluation.runner import Bench, Experiment

CAPTION, GAP, FONT_SIZE = 22, 6, 15  # pixels


def contact_sheet(
    experiment: Experiment, pictures: Sequence[Picture], rows: Sequence[Row], target: str, columns: int = 2
) -> Image.Image | None:
    """Return the originals beside the first `columns` codecs at one target, a line for each picture.

    rows: of the experiment; a picture without any result is left out, and None is returned if all are.
    """
    known = {row.key: row for row in rows if not row.error}
    codecs = [candidate.name for candidate in experiment.ordered[:columns]]
    strips = []
    for picture in pictures:
        found = [known[key] for codec in codecs if (key := (picture.name, target, codec)) in known]
        if not found:
            continue
        bench = Bench(experiment, picture)
        tiles = [(picture.name, Image.fromarray(bench.original))]
        tiles += [(caption(row, experiment), Image.fromarray(bench.paint(row))) for row in found]
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


def caption(row: Row, experiment: Experiment) -> str:
    """Return codec, size and one metric of a row."""
    metric = experiment.judging
    return (
        f"{row.codec}  {row.size:,} bytes  {row.bpp:.4f} bpp  "
        f"{metric.title} {row.scores[metric.name]:.{metric.digits}f}"
    )


def strip(tiles: Sequence[tuple[str, Image.Image]], font_size: int = FONT_SIZE) -> Image.Image:
    """Put pictures of one size side by side, each under its caption; font_size: pixels."""
    width, height = tiles[0][1].size
    result = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, CAPTION + height + GAP), "white")
    font = ImageFont.load_default(font_size)
    for column, (caption, image) in enumerate(tiles):
        left = column * (width + GAP)
        label = Image.new("RGB", (width, CAPTION), "white")
        ImageDraw.Draw(label).text((2, 2), caption, fill="black", font=font)
        result.paste(label, (left, 0))
        result.paste(image, (left, CAPTION))
    return result
