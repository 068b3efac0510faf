"""The grid meter on made-up grids, notches and sizes; and means of ratios."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dlf.errors import SpecError
from dlf.evaluation.curves import curve
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.catalogue import open_metric
from dlf.evaluation.metrics.fidelity import PSNR
from dlf.evaluation.metrics.grid import PERIODS, SEGMENT, excess, frequencies, grid_metric
from dlf.evaluation.metrics.metric import Metric
from dlf.records import UInt8


@pytest.fixture
def original() -> UInt8:
    """A picture of which the power falls with the frequency, as in photographs."""
    rng = np.random.default_rng(0)
    height, width = 300, 420
    far = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) + 1e-2
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(0, 1, (height, width))) / far, (height, width))
    grey = np.clip(128 + 20 * noise / noise.std(), 0, 255)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)


def with_grid(rgb: UInt8, period: int, amount: float, axis: int = 1) -> UInt8:
    """Add a grid: one raised line in each period."""
    lines = amount * (np.arange(rgb.shape[axis]) % period == 0)
    pattern = lines[None, :, None] if axis == 1 else lines[:, None, None]
    return np.clip(rgb + np.round(pattern), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_grid_is_seen_at_its_period(original: UInt8, period: int, axis: int) -> None:
    coded = with_grid(original, period, 4 * period, axis)
    found = {p: grid_metric(p).against(original)(coded) for p in PERIODS}
    assert found[period] > 2
    # a raised line has all harmonics, so that the finer periods have it too, but no coarser one
    assert all(found[p] == pytest.approx(1, abs=0.1) for p in PERIODS if p > period)
    together = grid_metric().against(original)(coded)
    assert together > 1.2
    assert grid_metric().against(original)(with_grid(original, period, 6 * period, axis)) > together


def test_no_grid_is_one(original: UInt8) -> None:
    score = grid_metric().against(original)
    assert score(original) == 1
    noise = np.random.default_rng(1).normal(0, 10, original.shape)
    assert score(np.clip(original + noise, 0, 255).astype(np.uint8)) == pytest.approx(1, abs=0.15)
    flat = np.full_like(original, 77)
    assert grid_metric().against(flat)(flat) == 1
    assert score(flat) == pytest.approx(1, abs=0.15)


def test_all_periods_together_are_their_geometric_mean(original: UInt8) -> None:
    coded = with_grid(with_grid(original, 8, 5), 2, 3, 0)
    values = [grid_metric(p).against(original)(coded) for p in PERIODS]
    assert grid_metric().against(original)(coded) == pytest.approx(np.prod(values) ** 0.25)
    assert grid_metric().against(coded)(original) == pytest.approx(1 / np.prod(values) ** 0.25)


def test_what_the_original_has_does_not_count(original: UInt8) -> None:
    gridded = with_grid(original, 8, 32)
    assert grid_metric(8).against(original)(gridded) > 2
    assert grid_metric(8).against(gridded)(gridded) == 1


def test_the_frequencies_do_not_meet() -> None:
    places = [int(f * SEGMENT) for p in PERIODS for f in frequencies(p)]
    assert len(set(places)) == len(places) == SEGMENT // 2 // 16
    assert frequencies(8) == [Fraction(1, 8), Fraction(3, 8)]


@pytest.mark.parametrize(
    ("size", "axes"), [((255, 255), 0), ((256, 100), 1), ((100, 257), 1), ((256, 300), 2)]
)
def test_a_short_axis_is_left_out(size: tuple[int, int], axes: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert len(excess(rgb)) == axes
    value = grid_metric().against(rgb)(rgb)
    assert np.isnan(value) if not axes else value == 1


def test_names() -> None:
    assert open_metric("grid").name == "grid"
    assert open_metric("grid:8").name == "grid_8"
    for text in ("grid:3", "grid:x"):
        with pytest.raises(SpecError, match="grid:2, grid:4, grid:8, grid:16"):
            open_metric(text)


def test_nearer_to_one_is_better() -> None:
    metric = grid_metric()
    assert metric.better(1.1, 1.2)
    assert metric.better(1.1, 0.8)
    assert metric.better(0.9, 1.2)
    assert not metric.better(0.1, 5)
    assert not metric.better(float("nan"), 5)


def row(picture: str, scores: dict[str, float]) -> Row:
    return Row(picture, "1", "x", "", width=10, height=10, size=10, scores=scores)


@pytest.mark.parametrize(("metrics", "wanted"), [((), 4.25), ((PSNR, grid_metric()), 2)])
def test_the_mean_of_ratios_is_geometric(metrics: tuple[Metric, ...], wanted: float) -> None:
    rows = [row("a", {"psnr": 20, "grid": 8}), row("b", {"psnr": 30, "grid": 0.5})]
    rows.append(row("c", {"psnr": 40, "grid": float("nan")}))
    (point,) = curve(rows, "x", metrics)
    assert point.scores == {"psnr": 30, "grid": pytest.approx(wanted)}
