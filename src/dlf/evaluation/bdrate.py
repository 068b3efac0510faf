"""Bjontegaard delta rate: how many per cent of bytes one codec takes less or more than another.

The mean, over the qualities that both curves reach, of the distance between their logarithmic rates
(Bjontegaard, VCEG-M33, 2001), through piecewise cubic curves that do not overshoot (library `bjontegaard`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dlf.errors import DlfError
from dlf.extras import need

Points = Sequence[tuple[float, float]]
"""Pairs of rate (above 0, any unit) and value of a metric, in any order."""

FEWEST = 3
"""Points of a curve below which nothing is said."""


class NoOverlap(DlfError):
    """Two curves have no qualities in common, or a curve has too few points."""


@dataclass(frozen=True)
class BdRate:
    """Rate difference of two curves.

    percent: above -100; -50 means half the bytes at the same quality.
    low, high: values of the metric between which it is measured.
    overlap: share of the range that the two curves span together, 0..1; below a half, believe little.
    dropped: points left out of both curves, because a smaller file was no worse.
    """

    percent: float
    low: float
    high: float
    overlap: float
    dropped: int


def bd_rate(anchor: Points, test: Points, *, lower_is_better: bool = False) -> BdRate:
    """Compare the rate of `test` with that of `anchor`.

    Raises:
        NoOverlap: there is no quality that both reach, or fewer than FEWEST points are left of a curve.
        MissingExtra: the library is not installed.
    """
    library = need("bjontegaard", "eval")
    sign = -1 if lower_is_better else 1
    curves = [_rising([(rate, sign * value) for rate, value in points]) for points in (anchor, test)]
    for name, curve in zip(("anchor", "test"), curves, strict=True):
        if len(curve) < FEWEST:
            msg = f"the curve of the {name} has only {len(curve)} points on which more bytes are better"
            raise NoOverlap(msg)
    first, second = curves
    low, high = max(first[0][1], second[0][1]), min(first[-1][1], second[-1][1])
    if low >= high:
        # in the metric's own sign, for a person
        ranges = [sorted((sign * curve[0][1], sign * curve[-1][1])) for curve in curves]
        (a, b), (c, d) = ranges
        msg = f"the curves do not overlap: {a:.4g} to {b:.4g} against {c:.4g} to {d:.4g}"
        raise NoOverlap(msg)
    span = max(first[-1][1], second[-1][1]) - min(first[0][1], second[0][1])
    percent = library.bd_rate(
        *_columns(first), *_columns(second), method="pchip", require_matching_points=False, min_overlap=0
    )
    ends = sorted((sign * low, sign * high))
    dropped = len(anchor) + len(test) - len(first) - len(second)
    return BdRate(float(percent), ends[0], ends[1], (high - low) / span, dropped)


def _rising(points: Points) -> list[tuple[float, float]]:
    """Return the points by rate of which each is better than all smaller ones; higher is better here."""
    kept: list[tuple[float, float]] = []
    for rate, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if rate > 0 and math.isfinite(value) and (not kept or value > kept[-1][1]):
            kept.append((rate, value))
    return kept


def _columns(curve: Points) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in curve], [value for _, value in curve]
