"""The results of an evaluation as records, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

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
    hull_ratios,
)
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.metric import Measure
from dlf.evaluation.runner import Experiment


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
    complexity: tuple[CodecComplexity, ...] = ()
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
