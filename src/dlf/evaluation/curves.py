"""From rows to curves: means over pictures, the best of the common formats, and rate differences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import isfinite, isnan
from statistics import fmean, geometric_mean

from dlf.evaluation.bdrate import BdRate, NoOverlap, bd_rate
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.metric import Measure

HULL = "best-of-formats"
"""Name of the codec that is, for each picture and target, the best of the common formats."""


@dataclass(frozen=True)
class Point:
    """Means of one codec at one target.

    target: label.  pictures: how many.  bpp: of the files.  over_budget: pictures over the target.
    encode_s, decode_s: seconds a picture.  scores: of each metric.
    """

    target: str
    pictures: int
    bpp: float
    over_budget: int
    encode_s: float
    decode_s: float
    scores: dict[str, float]


Curve = list[Point]


@dataclass(frozen=True)
class Difference:
    """Rate of a codec against an anchor by one metric; `rate`, or the sentence `reason` why there is none."""

    codec: str
    anchor: str
    metric: str
    rate: BdRate | None
    reason: str = ""


@dataclass(frozen=True)
class HullRatio:
    """Mean score of a codec at one target, divided by the mean score of the best format of each picture.

    pictures: how many.  over_budget: pictures for which no format, or not the codec, is within the target.
    """

    codec: str
    target: str
    metric: str
    ratio: float
    pictures: int
    over_budget: int


def common(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without errors of the pictures that every codec has every target of.

    All means then speak of the same pictures.  A codec without any result is left out of that rule.
    """
    done = [row for row in rows if not row.error]
    every = {(row.target, row.codec) for row in done}
    by_image: dict[str, set[tuple[str, str]]] = {}
    for row in done:
        by_image.setdefault(row.picture, set()).add((row.target, row.codec))
    return [row for row in done if by_image[row.picture] == every]


def curve(rows: Sequence[Row], codec: str, metrics: Sequence[Measure] = ()) -> Curve:
    """Return the means of a codec at each target, in the order of the rows; pictures count equally.

    metrics: those whose scores are ratios get geometric means.
    """
    ratios = {metric.name for metric in metrics if metric.ratio}
    chosen = [row for row in rows if row.codec == codec]
    points = []
    for target in dict.fromkeys(row.target for row in chosen):
        at = [row for row in chosen if row.target == target]
        names = [name for name in at[0].scores if all(name in row.scores for row in at)]
        points.append(
            Point(
                target=target,
                pictures=len(at),
                bpp=fmean(row.bpp for row in at),
                over_budget=sum(row.over_budget for row in at),
                encode_s=fmean(row.encode_s for row in at),
                decode_s=fmean(row.decode_s for row in at),
                scores=_means(at, names, ratios),
            )
        )
    return points


def _means(rows: Sequence[Row], names: Sequence[str], ratios: Collection[str]) -> dict[str, float]:
    """Return the mean of each score over the rows for which it says something; geometric for `ratios`."""
    means = {}
    for name in names:
        values = [row.scores[name] for row in rows if not isnan(row.scores[name])]
        if values:
            means[name] = geometric_mean(values) if name in ratios else fmean(values)
    return means


def hull(rows: Sequence[Row], formats: Sequence[str], metric: Measure) -> list[Row]:
    """Return, for each picture and target, the row of the format that is best by `metric`, renamed HULL.

    A format that takes more bytes than the target counts only where all do; then the smallest is taken.
    """
    chosen = [row for row in rows if row.codec in formats and metric.name in row.scores]
    best = []
    for _, group in groupby(sorted(chosen, key=_pair), key=_pair):
        at = list(group)
        within = [row for row in at if not row.over_budget]
        if within:
            pick = within[0]
            for row in within[1:]:
                if metric.better(row.scores[metric.name], pick.scores[metric.name]):
                    pick = row
        else:
            pick = min(at, key=lambda row: row.size)
        best.append(replace(pick, codec=HULL, scores={metric.name: pick.scores[metric.name]}))
    order = {row.target: place for place, row in reversed(list(enumerate(chosen)))}
    return sorted(best, key=lambda row: order[row.target])


def ratios_to_hull(
    rows: Sequence[Row], formats: Sequence[str], codecs: Sequence[str], metrics: Sequence[Measure]
) -> list[HullRatio]:
    """Return the ratio of every codec, target and metric to the best of the formats (see `hull`).

    A picture counts where both scores are finite numbers.  Metrics that are ratios themselves have none.
    """
    hull_ratios = []
    for metric in [metric for metric in metrics if not metric.ratio]:
        best = {_pair(row): row for row in hull(rows, formats, metric)}
        for codec in codecs:
            pairs = [
                (row, best[_pair(row)])
                for row in rows
                if row.codec == codec and metric.name in row.scores and _pair(row) in best
            ]
            for target in dict.fromkeys(row.target for row, _ in pairs):
                at = [pair for pair in pairs if pair[0].target == target and _finite(pair, metric)]
                below = sum(other.scores[metric.name] for _, other in at)
                if below:
                    ratio = sum(row.scores[metric.name] for row, _ in at) / below
                    over = sum(row.over_budget or other.over_budget for row, other in at)
                    hull_ratios.append(HullRatio(codec, target, metric.name, ratio, len(at), over))
    return hull_ratios


def _finite(rows: Sequence[Row], metric: Measure) -> bool:
    return all(isfinite(row.scores[metric.name]) for row in rows)


def _pair(row: Row) -> tuple[str, str]:
    return row.picture, row.target


def differences(
    curves: Mapping[str, Curve], metric: Measure, anchors: Sequence[str], best: Curve
) -> list[Difference]:
    """Return the rate difference of every codec against every anchor by one metric.

    anchors: names of codecs, or HULL, whose curve is `best`.
    """
    rates = []
    for anchor in anchors:
        if anchor == HULL and not best:
            reason = "there is no best format of a picture by this metric"
            rates += [Difference(codec, anchor, metric.name, None, reason) for codec in curves]
            continue
        base = _pairs(best if anchor == HULL else curves.get(anchor, []), metric)
        for codec, points in curves.items():
            if codec == anchor:
                continue
            try:
                rate = bd_rate(base, _pairs(points, metric), lower_is_better=metric.lower_is_better)
                rates.append(Difference(codec, anchor, metric.name, rate))
            except NoOverlap as error:
                rates.append(Difference(codec, anchor, metric.name, None, str(error)))
    return rates


def _pairs(points: Curve, metric: Measure) -> list[tuple[float, float]]:
    return [(p.bpp, p.scores[metric.name]) for p in points if metric.name in p.scores]
