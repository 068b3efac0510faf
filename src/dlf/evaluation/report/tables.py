"""The results of an evaluation as tables that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from dlf.evaluation.complexity import CodecComplexity
from dlf.evaluation.curves import (
    HULL,
    Difference,
    HullRatio,
)
from dlf.evaluation.metrics.metric import Measure
from dlf.evaluation.report.published import PublishedPoint, PublishedRate
from dlf.evaluation.results import Results

DOUBTFUL = 0.5
"""Overlap of two curves below which a rate difference is marked."""


COMPLEXITY = (
    "On the first picture, with the setting and scale of its row at the middle target; each codec codes in a "
    "process of its own and decodes in another. Seconds of the second run, by network for our codecs; the "
    "rest: entropy coding and what is around it. GMAC: 10^9 multiply-accumulates of convolutions and matrix "
    "products, all runs of a network together. Peak: memory of the process, with Python and all libraries; "
    "(none): of one that does not code."
)


RATIOS = (
    f"Mean score of the codec divided by the mean score of {HULL}: for each picture, target and metric the "
    "best of the common formats, each at its scale, of those with at most the bytes of the target. Equal is "
    "1; below 1 is better where lower is better (<), else worse (>). Over: pictures for which no format, or "
    "not the codec, can be that small; the smallest file counts then."
)


@dataclass(frozen=True)
class Table:
    """A table of text; words: columns at the start that hold no numbers."""

    titles: list[str]
    lines: list[list[str]]
    words: int = 1

    def markdown(self) -> list[str]:
        """Return its lines; the first `words` columns are text."""
        rule = ["---" if place < self.words else "---:" for place in range(len(self.titles))]
        return [f"| {' | '.join(cells)} |" for cells in (self.titles, rule, *self.lines)]


def summary(results: Results) -> str:
    """Return all of it as Markdown."""
    parts = ["# Evaluation", "", *means_table(results).markdown(), "", explanation(results), ""]
    if results.hull_ratios:
        parts += ["## Against the best format", "", *ratio_table(results).markdown(), "", RATIOS, ""]
    if results.differences:
        parts += ["## BD-rate", "", *bd_table(results).markdown(), "", bd_explanation(results), ""]
        if reasons := bd_reasons(results):
            parts += [*(f"- {reason}" for reason in reasons), ""]
    if results.complexity:
        parts += ["## Complexity", "", *complexity_table(results.complexity).markdown(), "", COMPLEXITY, ""]
    if results.notes:
        parts += ["## Left out and failed", "", *(f"- {note}" for note in results.notes), ""]
    return "\n".join(parts)


def explanation(results: Results) -> str:
    """Say what the means are."""
    if not results.pictures:
        return "There are no means, for no picture has every result."
    plural = "" if results.pictures == 1 else "s"
    return (
        f"Means over {results.pictures} picture{plural}, those with every result. bpp: bits of the file a "
        "pixel. Every codec has at most the bytes of the target, a format that may be scaled down before "
        f"coding at the scale that is best by {results.comparison.judging.title}; over: pictures for which "
        "even its smallest file is larger. Seconds: of the chosen setting alone, while other work ran "
        "beside it."
    )


def means_table(results: Results) -> Table:
    """Return the table of means, a line for each target and codec."""
    titles = ["codec", "target", "bpp", *(m.title for m in results.metrics), "over", "encode s", "decode s"]
    lines = []
    targets = dict.fromkeys(point.target for points in results.curves.values() for point in points)
    for target in targets:
        for codec, points in results.curves.items():
            for point in points:
                if point.target == target:
                    values = [_value(point.scores.get(m.name), m) for m in results.metrics]
                    times = [f"{s:.3f}" if s else "" for s in (point.encode_s, point.decode_s)]
                    over = str(point.over_budget or "")
                    lines.append([codec, target, f"{point.bpp:.4f}", *values, over, *times])
    return Table(titles, lines)


def rows_table(results: Results) -> Table:
    """Return the table of all rows."""
    titles = ["picture", "codec", "target", "bytes", "bpp", *(m.title for m in results.metrics)]
    lines = []
    for row in results.rows:
        start = [row.picture, row.codec, row.target]
        if row.error:
            lines.append([*start, "", "", *[""] * len(results.metrics)])
            continue
        values = [_value(row.scores.get(m.name), m) for m in results.metrics]
        lines.append([*start, str(row.size), f"{row.bpp:.4f}", *values])
    return Table(titles, lines, words=2)


def _value(value: float | None, metric: Measure) -> str:
    return "" if value is None or isnan(value) else f"{value:.{metric.digits}f}"


def bd_table(results: Results) -> Table:
    """Return the table of rate differences, a line for each anchor and codec."""
    by_pair: dict[tuple[str, str], dict[str, Difference]] = {}
    for difference in results.differences:
        by_pair.setdefault((difference.anchor, difference.codec), {})[difference.metric] = difference
    lines = []
    metrics = [metric for metric in results.metrics if not metric.ratio]
    for (anchor, codec), by_metric in by_pair.items():
        cells = [difference_text(by_metric[m.name]) if m.name in by_metric else "" for m in metrics]
        lines.append([anchor, codec, *cells])
    return Table(["anchor", "codec", *(m.title for m in metrics)], lines, words=2)


def ratio_table(results: Results) -> Table:
    """Return the table of ratios to the best format, a line for each codec and target."""
    by_pair: dict[tuple[str, str], dict[str, HullRatio]] = {}
    for one in results.hull_ratios:
        by_pair.setdefault((one.codec, one.target), {})[one.metric] = one
    metrics = [m for m in results.metrics if any(m.name in by_metric for by_metric in by_pair.values())]
    titles = ["codec", "target", *(f"{m.title} {'<' if m.lower_is_better else '>'}" for m in metrics), "over"]
    lines = []
    for pair, by_metric in by_pair.items():
        cells = [f"{by_metric[m.name].ratio:.3f}" if m.name in by_metric else "" for m in metrics]
        over = max(one.over_budget for one in by_metric.values())
        lines.append([*pair, *cells, str(over or "")])
    return Table(titles, lines)


def difference_text(difference: Difference) -> str:
    """Return "-43.1 % (overlap 85 %)", or a dash."""
    rate = difference.rate
    if rate is None:
        return "–"  # noqa: RUF001
    doubt = "?" if rate.overlap < DOUBTFUL else ""
    return f"{rate.percent:+.1f} %{doubt} (overlap {100 * rate.overlap:.0f} %)"


def bd_explanation(results: Results) -> str:
    """Say what the rate differences are."""
    words = (
        "Bytes for the same quality compared with the anchor: -50 % is half of them. Overlap: share of the "
        "qualities spanned by both curves that both reach; ? marks less than a half."
    )
    if any(difference.anchor == HULL for difference in results.differences):
        words += f" {HULL}: for each picture, target and metric the best of the common formats."
    dropped = sum(d.rate.dropped for d in results.differences if d.rate)
    if dropped:
        words += f" {dropped} points at which more bytes gave no better quality are left out."
    return words


def bd_reasons(results: Results) -> list[str]:
    """Say why some rate differences are not there."""
    return [
        f"{d.codec} against {d.anchor}, {d.metric}: no rate difference: {d.reason}"
        for d in results.differences
        if d.rate is None
    ]


def complexity_table(costs: Sequence[CodecComplexity]) -> Table:
    """Return the table of all codecs, a line for each stage."""
    lines = []
    for cost in costs:
        for stage in cost.stages:
            parameters = "" if stage.parameters is None else f"{stage.parameters:,}"
            size = f"{stage.size / 1e6:.2f}" if stage.size else ""
            macs = [f"{m / 1e9:.3f}" if m else "" for m in (stage.encode_macs, stage.decode_macs)]
            times = [f"{s:.4f}" if s else "" for s in (stage.encode_s, stage.decode_s)]
            peaks = [f"{p / 1e6:.0f}" if p else "" for p in (stage.encode_peak, stage.decode_peak)]
            lines.append([cost.codec, stage.name, parameters, size, *macs, *times, *peaks])
    titles = ["codec", "stage", "parameters", "file MB", "encode GMAC", "decode GMAC"]
    titles += ["encode s", "decode s", "encode peak MB", "decode peak MB"]
    return Table(titles, lines, words=2)


def published_points_table(points: Sequence[PublishedPoint]) -> Table:
    """Return the table of points that others published."""
    titles = ["codec", "metric", "reading", "source", "bpp", "value"]
    return Table(
        titles, [[p.codec, p.metric, p.reading, p.source, f"{p.bpp:g}", f"{p.value:g}"] for p in points], 4
    )


def published_rates_table(rates: Sequence[PublishedRate]) -> Table:
    """Return the table of rate differences that others published."""
    titles = ["codec", "anchor", "metric", "reading", "source", "BD-rate"]
    return Table(
        titles, [[r.codec, r.anchor, r.metric, r.reading, r.source, f"{r.percent:+g} %"] for r in rates], 5
    )
