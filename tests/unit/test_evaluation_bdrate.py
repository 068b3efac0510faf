"""Rate differences: known ones, refusals, and the curves that they are made of."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dlf.evaluation.bdrate import NoOverlap, bd_rate
from dlf.evaluation.curves import HULL, HullRatio, common, curve, differences, hull, ratios_to_hull
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.fidelity import MS_SSIM, PSNR
from dlf.evaluation.metrics.metric import Metric

pytest.importorskip("bjontegaard")

CURVE = [(0.01, 20.0), (0.02, 22.5), (0.03, 23.5), (0.05, 25.0), (0.1, 27.0)]
DISTANCE = Metric("d", "d", 2, PSNR.against, lower_is_better=True)


def stretched(factor: float) -> list[tuple[float, float]]:
    return [(factor * rate, value) for rate, value in CURVE]


@pytest.mark.parametrize(("factor", "percent"), [(0.5, -50), (2, 100), (1, 0), (0.9, -10)])
def test_a_curve_against_itself_with_other_rates(factor: float, percent: float) -> None:
    found = bd_rate(CURVE, stretched(factor)[::-1])
    assert found.percent == pytest.approx(percent, abs=0.1)
    assert (found.low, found.high, found.overlap, found.dropped) == (20, 27, 1, 0)


def test_distances() -> None:
    anchor = [(rate, -value) for rate, value in CURVE]
    found = bd_rate(anchor, [(rate / 2, -value) for rate, value in CURVE], lower_is_better=True)
    assert found.percent == pytest.approx(-50, abs=0.1)
    assert (found.low, found.high) == (-27, -20)


def test_straight_lines_by_hand() -> None:
    """Log rates are straight in quality, their distance grows from 0 to log 4 over the shared 0..2."""
    anchor = [(math.exp(q), q) for q in (0.0, 1.0, 2.0, 3.0)]
    test = [(math.exp(q + q * math.log(4) / 2), q) for q in (-1.0, 0.0, 1.0, 2.0)]
    found = bd_rate(anchor, test)
    assert found.percent == pytest.approx(100 * (math.exp(math.log(4) / 2) - 1), abs=0.1)
    assert (found.low, found.high, found.overlap) == (0, 2, 0.5)


def test_points_that_are_no_better_are_left_out() -> None:
    noisy = [*CURVE, (0.04, 23.4), (0.2, 27.0), (0.3, float("inf"))]
    found = bd_rate(noisy, stretched(0.5))
    assert found.percent == pytest.approx(-50, abs=0.1)
    assert found.dropped == 3


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([(rate, value + 7) for rate, value in CURVE], "do not overlap: 20 to 27 against 27 to 34"),
        ([(rate, -value) for rate, value in CURVE], "the test has only 1 points"),
        (CURVE[:2], "the test has only 2 points"),
        ([], "the test has only 0 points"),
    ],
)
def test_refusals(points: list[tuple[float, float]], sentence: str) -> None:
    with pytest.raises(NoOverlap, match=sentence):
        bd_rate(CURVE, points)


def row(picture: str, target: str, codec: str, size: int, value: float, *, over: bool = False) -> Row:
    return Row(picture, target, codec, "", 8, 1, size, over_budget=over, scores={"psnr": value, "d": value})


def test_means_over_pictures() -> None:
    rows = [row("a", "1", "x", 2, 10), row("b", "1", "x", 4, 30), row("a", "2", "x", 5, 40)]
    points = curve(rows, "x")
    assert [(p.target, p.pictures, p.bpp, p.scores["psnr"]) for p in points] == [
        ("1", 2, 3, 20),
        ("2", 1, 5, 40),
    ]
    assert [r.picture for r in common(rows)] == ["a", "a"]
    bad = Row("a", "1", "y", "", error="no")
    assert [r.picture for r in common([*rows, bad])] == ["a", "a"]


def test_what_says_nothing_does_not_count() -> None:
    rows = [row("a", "1", "x", 2, 10), row("b", "1", "x", 2, math.nan), row("a", "2", "x", 2, math.nan)]
    assert [p.scores for p in curve(rows, "x")] == [{"psnr": 10, "d": 10}, {}]
    assert PSNR.better(1, math.nan)
    assert not PSNR.better(math.nan, math.nan)
    assert not PSNR.better(math.nan, 1)


def test_the_best_of_the_formats() -> None:
    rows = [
        row("a", "1", "x", 2, 10),
        row("a", "1", "y", 3, 30),
        row("a", "1", "z", 9, 90, over=True),  # too large, though better
        row("a", "1", "own", 2, 99),
        row("b", "1", "x", 7, 10, over=True),
        row("b", "1", "y", 5, 5, over=True),
    ]
    best = hull(rows, ["x", "y", "z"], PSNR)
    assert [(r.picture, r.codec, r.size, r.scores) for r in best] == [
        ("a", HULL, 3, {"psnr": 30}),
        ("b", HULL, 5, {"psnr": 5}),
    ]
    assert [r.size for r in hull(rows, ["x", "y", "z"], DISTANCE)] == [2, 5]


def test_the_ratio_to_the_best_of_the_formats() -> None:
    rows = [
        row("a", "1", "x", 2, 10),
        row("a", "1", "y", 3, 40),
        row("a", "1", "own", 2, 30),
        row("b", "1", "x", 7, 20),
        row("b", "1", "y", 5, 15, over=True),
        row("b", "1", "own", 4, 15, over=True),
        row("a", "2", "x", 9, math.inf),
        row("a", "2", "own", 9, 30),
        row("b", "2", "x", 9, 0),
        row("b", "2", "own", 9, 0),
    ]
    grid = replace(DISTANCE, name="d", ratio=True)
    found = ratios_to_hull(rows, ["x", "y"], ["own"], (PSNR, DISTANCE))
    # the best are 40 and 20 by PSNR, 10 and 20 by the distance: (30 + 15) over their sum; 0 / 0 is nothing
    assert found == [
        HullRatio("own", "1", "psnr", pytest.approx(0.75), 2, 1),
        HullRatio("own", "1", "d", pytest.approx(1.5), 2, 1),
    ]
    assert ratios_to_hull(rows, ["x", "y"], ["own"], (grid,)) == []
    assert ratios_to_hull(rows, [], ["own"], (PSNR,)) == []


def test_every_codec_against_every_anchor() -> None:
    rows = []
    for number, (rate, value) in enumerate(CURVE):
        rows.append(row("a", str(number), "x", round(1000 * rate), value))
        rows.append(row("a", str(number), "y", round(2000 * rate), value))
        rows.append(row("a", str(number), "far", round(1000 * rate), value + 50))
    curves = {codec: curve(rows, codec) for codec in ("x", "y", "far")}
    best = curve(hull(rows, ["x", "y"], PSNR), HULL)
    found = differences(curves, PSNR, ["y", HULL], best)
    by_pair = {(d.codec, d.anchor): d for d in found}
    assert set(by_pair) == {("x", "y"), ("far", "y"), ("x", HULL), ("y", HULL), ("far", HULL)}
    rate = by_pair["x", "y"].rate
    assert rate is not None
    assert rate.percent == pytest.approx(-50, abs=0.1)
    # of two equally good formats at one target the first counts
    same = by_pair["x", HULL].rate
    assert same is not None
    assert same.percent == pytest.approx(0, abs=1e-9)
    assert by_pair["far", "y"].rate is None
    assert "do not overlap" in by_pair["far", "y"].reason
    assert not [d for d in differences(curves, MS_SSIM, ["y"], []) if d.rate]
