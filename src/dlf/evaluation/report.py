"""The results of an evaluation as records, and as tables that people read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan
from types import MappingProxyType

from dlf.evaluation.curves import (
    HULL,
    Curve,
    Difference,
    HullRatio,
    common,
    curve,
    differences,
    hull,
    hull_ratios,
)
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.metric import Measure
from dlf.evaluation.runner import Experiment

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
class Results:
    """What an evaluation found.

    rows: all of them, in order.  pictures: how many the means run over.  metrics: as asked for.
    curves: by codec.  differences: of rates.  notes: sentences on what is missing or went wrong.
    complexity: what the codecs cost, if asked for.  hull_ratios: other codecs against the best format.
    """

    rows: list[Row]
    pictures: int
    metrics: tuple[Measure, ...]
    curves: dict[str, Curve]
    differences: list[Difference]
    notes: list[str]
    complexity: Table | None = None
    hull_ratios: tuple[HullRatio, ...] = ()


def results(
    rows: Sequence[Row],
    experiment: Experiment,
    anchors: Sequence[str] = (),
    missing: Sequence[str] = (),
    sets: Mapping[tuple[str, str], Mapping[str, float]] = MappingProxyType({}),
    set_metrics: Sequence[Measure] = (),
) -> Results:
    """Gather the results; rows: all, in any order.  anchors: names of codecs, or HULL; none: HULL if any.

    missing: sentences on what could not be opened.  sets: scores of sets by (codec, target), which
    `set_metrics` gave.
    """
    ordered = sorted(rows, key=experiment.place)
    good = common(ordered)
    names = [candidate.name for candidate in experiment.candidates]
    formats = [candidate.name for candidate in experiment.candidates if candidate.classical]
    if not anchors:
        anchors = [HULL] if formats else names[:1]
    there = {row.codec for row in good}
    metrics = (*experiment.metrics, *set_metrics)
    curves = {name: _joined(curve(good, name, metrics), name, sets) for name in names if name in there}
    found: list[Difference] = []
    for metric in [metric for metric in metrics if not metric.ratio]:
        best = curve(hull(good, formats, metric), HULL)
        found += differences(curves, metric, anchors, best)
    return Results(
        rows=ordered,
        pictures=len({row.picture for row in good}),
        metrics=metrics,
        curves=curves,
        differences=found,
        notes=[*missing, *_failures(ordered)],
        hull_ratios=tuple(
            hull_ratios(good, formats, [name for name in curves if name not in formats], experiment.metrics)
        ),
    )


def _joined(points: Curve, codec: str, sets: Mapping[tuple[str, str], Mapping[str, float]]) -> Curve:
    """Return the points with the scores of sets."""
    return [replace(p, scores=p.scores | dict(sets.get((codec, p.target), {}))) for p in points]


def _failures(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each failure, one for all codecs and targets that failed in the same way."""
    failed: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.error:
            failed.setdefault((row.picture, row.error, row.codec), []).append(row.target)
    alike: dict[tuple[str, str, str], list[str]] = {}
    for (picture, error, codec), targets in failed.items():
        alike.setdefault((picture, error, ", ".join(targets)), []).append(codec)
    return [
        f"{picture}, {', '.join(codecs)}, {targets}: {error}"
        for (picture, error, targets), codecs in alike.items()
    ]


def to_json(found: Results) -> str:
    """Return curves, rate differences and rows as JSON (numbers that are not finite as null)."""
    metrics = [
        {"name": m.name, "title": m.title, "lower_is_better": m.lower_is_better, "identity": m.identity}
        for m in found.metrics
    ]
    record = {
        "pictures": found.pictures,
        "metrics": metrics,
        "curves": {name: [asdict(point) for point in points] for name, points in found.curves.items()},
        "bd_rates": [asdict(difference) for difference in found.differences],
        "hull_ratios": [asdict(ratio) for ratio in found.hull_ratios],
        "notes": found.notes,
        "rows": [asdict(row) | {"bpp": None if row.error else row.bpp} for row in found.rows],
    }
    return json.dumps(_finite(record), indent=1, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


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


def summary(found: Results, experiment: Experiment) -> str:
    """Return all of it as Markdown."""
    parts = ["# Evaluation", "", *means_table(found).markdown(), "", explanation(found, experiment), ""]
    if found.hull_ratios:
        parts += ["## Against the best format", "", *ratio_table(found).markdown(), "", RATIOS, ""]
    if found.differences:
        parts += ["## BD-rate", "", *bd_table(found).markdown(), "", *bd_words(found), ""]
    if found.complexity:
        parts += ["## Complexity", "", *found.complexity.markdown(), "", COMPLEXITY, ""]
    if found.notes:
        parts += ["## Left out and failed", "", *(f"- {note}" for note in found.notes), ""]
    return "\n".join(parts)


def explanation(found: Results, experiment: Experiment) -> str:
    """Say what the means are."""
    if not found.pictures:
        return "There are no means, for no picture has every result."
    plural = "" if found.pictures == 1 else "s"
    return (
        f"Means over {found.pictures} picture{plural}, those with every result. bpp: bits of the file a "
        "pixel. Every codec has at most the bytes of the target, a format that may be scaled down before "
        f"coding at the scale that is best by {experiment.judging.title}; over: pictures for which even its "
        "smallest file is larger. Seconds: of the chosen setting alone, while other work ran beside it."
    )


def means_table(found: Results) -> Table:
    """Return the table of means, a line for each target and codec."""
    titles = ["codec", "target", "bpp", *(m.title for m in found.metrics), "over", "encode s", "decode s"]
    lines = []
    targets = dict.fromkeys(point.target for points in found.curves.values() for point in points)
    for target in targets:
        for codec, points in found.curves.items():
            for point in points:
                if point.target == target:
                    values = [_value(point.scores.get(m.name), m) for m in found.metrics]
                    times = [f"{s:.3f}" if s else "" for s in (point.encode_s, point.decode_s)]
                    over = str(point.over_budget or "")
                    lines.append([codec, target, f"{point.bpp:.4f}", *values, over, *times])
    return Table(titles, lines)


def rows_table(found: Results) -> Table:
    """Return the table of all rows."""
    titles = ["picture", "codec", "target", "bytes", "bpp", *(m.title for m in found.metrics)]
    lines = []
    for row in found.rows:
        start = [row.picture, row.codec, row.target]
        if row.error:
            lines.append([*start, "", "", *[""] * len(found.metrics)])
            continue
        values = [_value(row.scores.get(m.name), m) for m in found.metrics]
        lines.append([*start, str(row.size), f"{row.bpp:.4f}", *values])
    return Table(titles, lines, words=2)


def _value(value: float | None, metric: Measure) -> str:
    return "" if value is None or isnan(value) else f"{value:.{metric.digits}f}"


def bd_table(found: Results) -> Table:
    """Return the table of rate differences, a line for each anchor and codec."""
    by_pair: dict[tuple[str, str], dict[str, Difference]] = {}
    for difference in found.differences:
        by_pair.setdefault((difference.anchor, difference.codec), {})[difference.metric] = difference
    lines = []
    metrics = [metric for metric in found.metrics if not metric.ratio]
    for (anchor, codec), by_metric in by_pair.items():
        cells = [difference_text(by_metric[m.name]) if m.name in by_metric else "" for m in metrics]
        lines.append([anchor, codec, *cells])
    return Table(["anchor", "codec", *(m.title for m in metrics)], lines, words=2)


def ratio_table(found: Results) -> Table:
    """Return the table of ratios to the best format, a line for each codec and target."""
    by_pair: dict[tuple[str, str], dict[str, HullRatio]] = {}
    for one in found.hull_ratios:
        by_pair.setdefault((one.codec, one.target), {})[one.metric] = one
    metrics = [m for m in found.metrics if any(m.name in by_metric for by_metric in by_pair.values())]
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


def bd_words(found: Results) -> list[str]:
    """Say what the rate differences are; then why some are not there, as a Markdown list."""
    words = (
        "Bytes for the same quality compared with the anchor: -50 % is half of them. Overlap: share of the "
        "qualities spanned by both curves that both reach; ? marks less than a half."
    )
    if any(difference.anchor == HULL for difference in found.differences):
        words += f" {HULL}: for each picture, target and metric the best of the common formats."
    dropped = sum(d.rate.dropped for d in found.differences if d.rate)
    if dropped:
        words += f" {dropped} points at which more bytes gave no better quality are left out."
    reasons = [
        f"- {d.codec} against {d.anchor}, {d.metric}: no rate difference: {d.reason}"
        for d in found.differences
        if d.rate is None
    ]
    return [words, *([""] if reasons else []), *reasons]
