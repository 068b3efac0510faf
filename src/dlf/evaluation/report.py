"""What people look at: a table over all pictures, and sheets of pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from PIL import Image, ImageDraw, ImageFont

from dlf.evaluation.dataset import Picture
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics import Metric
from dlf.evaluation.runner import DLF, Bench, Experiment

CAPTION, GAP, FONT_SIZE = 22, 6, 15  # pixels


def summary(rows: Sequence[Row], experiment: Experiment, missing: Sequence[str] = ()) -> str:
    """Return the Markdown table of means, a line for each quality and codec; then what went wrong.

    The mean runs over the pictures that every codec has a result for at that quality, so that all
    lines of a quality speak of the same pictures.
    """
    codecs = (DLF, *(baseline.name for baseline in experiment.baselines))
    titles = ["quality", "codec", "pictures", "bpp", *(m.title for m in experiment.metrics), "over budget"]
    lines = [_line(titles), _line(["---:" if title != "codec" else "---" for title in titles])]
    for quality in experiment.qualities:
        done = [row for row in rows if row.quality == quality and not row.error]
        common = {row.picture for row in done}.intersection(
            *({row.picture for row in done if row.codec == codec} for codec in codecs)
        )
        for codec in codecs:
            chosen = [row for row in done if row.codec == codec and row.picture in common]
            lines.append(_line(_means(quality, codec, chosen, experiment.metrics)))
    notes = [f"- {sentence}" for sentence in missing]
    notes += [
        f"- {row.picture}, {row.codec}, quality {row.quality}: {row.error}" for row in rows if row.error
    ]
    explained = (
        "Means over pictures. bpp: bits of the whole file for each pixel. A baseline has at most the bytes "
        "that dlf took for the same picture, at the scale that is best by "
        f"{experiment.judging.title}; over budget: pictures for which even its smallest file is larger."
    )
    return "\n".join(["# Evaluation", "", *lines, "", explained, *(["", *notes] if notes else []), ""])


def _means(quality: int, codec: str, rows: Sequence[Row], metrics: Sequence[Metric]) -> list[str]:
    """Cells of one line."""
    start = [str(quality), codec, str(len(rows))]
    if not rows:
        return [*start, *[""] * (len(metrics) + 2)]
    means = [f"{fmean(row.scores[metric.name] for row in rows):.{metric.digits}f}" for metric in metrics]
    over = "" if codec == DLF else str(sum(row.over_budget for row in rows))
    return [*start, f"{fmean(row.bpp for row in rows):.4f}", *means, over]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def contact_sheet(
    experiment: Experiment, pictures: Sequence[Picture], rows: Sequence[Row], quality: int
) -> Image.Image | None:
    """Put original, dlf and the first baseline of each picture side by side, at one quality.

    Pictures without a result are left out; None if there is none.  The pixels are neither scaled nor cut.
    """
    known = {row.key: row for row in rows if not row.error}
    codecs = (DLF, *(baseline.name for baseline in experiment.baselines[:1]))
    strips = []
    for picture in pictures:
        found = [known[key] for codec in codecs if (key := (picture.name, quality, codec)) in known]
        if not found:
            continue
        bench = Bench(experiment, picture)
        tiles = [(picture.name, Image.fromarray(bench.original))]
        tiles += [(_caption(row, experiment), Image.fromarray(bench.paint(row))) for row in found]
        strips.append(_strip(tiles))
    if not strips:
        return None
    size = max(strip.width for strip in strips), sum(strip.height for strip in strips)
    sheet = Image.new("RGB", size, "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def _caption(row: Row, experiment: Experiment) -> str:
    metric = experiment.judging
    return (
        f"{row.codec}  {row.size:,} bytes  {row.bpp:.4f} bpp  "
        f"{metric.title} {row.scores[metric.name]:.{metric.digits}f}"
    )


def _strip(tiles: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Put pictures of one size side by side, each under its caption."""
    width, height = tiles[0][1].size
    strip = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, CAPTION + height + GAP), "white")
    font = ImageFont.load_default(FONT_SIZE)
    for column, (caption, image) in enumerate(tiles):
        left = column * (width + GAP)
        label = Image.new("RGB", (width, CAPTION), "white")
        ImageDraw.Draw(label).text((2, 2), caption, fill="black", font=font)
        strip.paste(label, (left, 0))
        strip.paste(image, (left, CAPTION))
    return strip
