"""The results of an evaluation as records, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from dlf.evaluation.comparison import Comparison
from dlf.evaluation.complexity import CodecComplexity
from dlf.evaluation.curves import (
    HULL,
    Curve,
    Difference,
    HullRatio,
    common,
    curve,
    differences,
    hull,
    ratios_to_hull,
)
from dlf.evaluation.dataset import ImageFile
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.metric import Measure
from dlf.evaluation.set_scores import SetScore


@dataclass(frozen=True)
class Results:
    """What an evaluation gave.

    comparison: what was compared.  images: all of them.  rows: all of them, in order.
    pictures: how many images the means run over.  metrics: of images, then of sets.
    curves: by codec.  differences: of rates.  notes: sentences on what is missing or went wrong.
    complexity: what the codecs cost, if asked for.  hull_ratios: other codecs against the best format.
    """

    comparison: Comparison = field(repr=False)
    images: tuple[ImageFile, ...] = field(repr=False)
    rows: tuple[Row, ...] = field(repr=False)
    pictures: int
    metrics: tuple[Measure, ...]
    curves: dict[str, Curve]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    complexity: tuple[CodecComplexity, ...] = ()
    hull_ratios: tuple[HullRatio, ...] = ()

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that have no result."""
        return tuple(row for row in self.rows if row.error)


def gather(
    rows: Sequence[Row],
    comparison: Comparison,
    images: Sequence[ImageFile] = (),
    *,
    anchors: Sequence[str] = (),
    left_out: Sequence[str] = (),
    set_metrics: Sequence[Measure] = (),
    set_scores: Sequence[SetScore] = (),
) -> Results:
    """Gather the results; rows: all, in any order.  anchors: names of codecs, or HULL; none: HULL if any.

    left_out: sentences on what could not be opened.  set_scores: what `set_metrics` gave.
    """
    ordered = sorted(rows, key=comparison.place)
    good = common(ordered)
    names = [codec.name for codec in comparison.codecs]
    formats = [codec.name for codec in comparison.codecs if codec.classical]
    if not anchors:
        anchors = [HULL] if formats else names[:1]
    with_rows = {row.codec for row in good}
    metrics = (*comparison.metrics, *set_metrics)
    curves = {
        name: _joined(curve(good, name, metrics), [score for score in set_scores if score.codec == name])
        for name in names
        if name in with_rows
    }
    rates: list[Difference] = []
    for metric in [metric for metric in metrics if not metric.ratio]:
        best = curve(hull(good, formats, metric), HULL)
        rates += differences(curves, metric, anchors, best)
    others = [name for name in curves if name not in formats]
    return Results(
        comparison=comparison,
        images=tuple(images),
        rows=tuple(ordered),
        pictures=len({row.picture for row in good}),
        metrics=metrics,
        curves=curves,
        differences=tuple(rates),
        notes=(*left_out, *_failures(ordered)),
        hull_ratios=tuple(ratios_to_hull(good, formats, others, comparison.metrics)),
    )


def _joined(points: Curve, set_scores: Sequence[SetScore]) -> Curve:
    """Return the points of a codec with its scores of sets."""
    by_target = {score.target: score.scores for score in set_scores}
    return [replace(point, scores=point.scores | by_target.get(point.target, {})) for point in points]


def _failures(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each failure, one for all codecs and targets that failed in the same way."""
    failed: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.error:
            failed.setdefault((row.picture, row.error, row.codec), []).append(row.target)
    alike: dict[tuple[str, str, str], list[str]] = {}
    for (name, error, codec), targets in failed.items():
        alike.setdefault((name, error, ", ".join(targets)), []).append(codec)
    return [
        f"{name}, {', '.join(codecs)}, {targets}: {error}" for (name, error, targets), codecs in alike.items()
    ]


def to_json(results: Results) -> str:
    """Return curves, rate differences and rows as JSON (numbers that are not finite as null)."""
    metrics = [
        {"name": m.name, "title": m.title, "lower_is_better": m.lower_is_better, "identity": m.identity}
        for m in results.metrics
    ]
    record = {
        "pictures": results.pictures,
        "metrics": metrics,
        "curves": {name: [asdict(point) for point in points] for name, points in results.curves.items()},
        "bd_rates": [asdict(difference) for difference in results.differences],
        "hull_ratios": [asdict(ratio) for ratio in results.hull_ratios],
        "notes": results.notes,
        "rows": [asdict(row) | {"bpp": None if row.error else row.bpp} for row in results.rows],
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
