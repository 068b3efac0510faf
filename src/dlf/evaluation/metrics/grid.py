"""The grid meter: how much of a grid of 2 to 16 pixels a codec leaves in an image, in numpy.

A layer that enlarges by pixel shuffle can leave a pattern that repeats every 2, 4, 8 or 16 pixels.  It shows
as lines in the spectrum of the luma, at known frequencies, that the original does not have.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dlf.evaluation.metrics.metric import Metric, Score
from dlf.records import UInt8

PERIODS = (2, 4, 8, 16)
"""Pixels."""

SEGMENT = 256
"""Pixels of a line that are transformed at a time, a multiple of all periods."""

NEAREST, FARTHEST = 3, 8
"""Distances of the neighbours of a frequency in steps of 1 / SEGMENT: beyond the window's reach, and half
way to the next frequency of a grid."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G, B (ITU-R BT.601)."""

NOISE = sum(weight**2 for weight in LUMA) / 12
"""Variance that rounding R, G and B to whole levels gives the luma: what no file can say is no grid."""

_Array = NDArray[np.float64]


def grid_metric(period: int | None = None) -> Metric:
    """Return the metric of all PERIODS together, or of one of them; a ratio, 1 is no grid.

    An image of which both sides are under SEGMENT pixels has no value (nan).
    Raises ValueError if there is no such period.
    """
    if period is None:
        return _metric("grid", "grid", PERIODS)
    if period not in PERIODS:
        msg = f"the grid meter looks at the periods {', '.join(map(str, PERIODS))}, not {period}"
        raise ValueError(msg)
    return _metric(f"grid_{period}", f"grid of {period}", (period,))


def _metric(name: str, title: str, periods: tuple[int, ...]) -> Metric:
    against = partial(_against, periods=periods)
    return Metric(name, title, 2, against, lower_is_better=True, identity=f"{name} 1", ratio=True)


def _against(original: UInt8, periods: tuple[int, ...]) -> Score:
    original_excess = excess(original, periods)

    def score(image: UInt8) -> float:
        if not original_excess.size:
            return float("nan")
        return float(np.exp((excess(image, periods) - original_excess).mean()))

    return score


def excess(rgb: UInt8, periods: tuple[int, ...] = PERIODS) -> _Array:
    """Return how far the frequencies of grids stand out of their neighbours in an image, uint8 (H, W, 3).

    Natural logarithms of ratios of powers, (axes, periods): along the lines, then along the columns; an
    axis of less than SEGMENT pixels is left out.
    """
    luma = rgb.astype(np.float64) @ np.array(LUMA)
    powers = [spectrum(lines) for lines in (luma, luma.T) if lines.shape[1] >= SEGMENT]
    return np.array([[_standing_out(power, period) for period in periods] for power in powers])


def spectrum(lines: _Array) -> _Array:
    """Return the mean power at k / SEGMENT cycles a pixel, k = 0..SEGMENT / 2, of (lines, pixels).

    Welch's method (1967): Hann-windowed segments that overlap by at least half, each without its mean; the
    mean over all segments of all lines, and NOISE on top, so that a flat image has a spectrum too.
    """
    window = np.hanning(SEGMENT + 1)[:-1]
    spare = lines.shape[1] - SEGMENT
    starts = np.linspace(0, spare, -(-spare // (SEGMENT // 2)) + 1).astype(int)
    total = np.zeros(SEGMENT // 2 + 1)
    for start in starts:
        segment = lines[:, start : start + SEGMENT]
        transform = np.fft.rfft((segment - segment.mean(1, keepdims=True)) * window, axis=1)
        total += (np.square(transform.real) + np.square(transform.imag)).mean(0)
    power: _Array = total / (len(starts) * np.square(window).sum()) + NOISE
    return power


def frequencies(period: int) -> list[Fraction]:
    """Return those, in cycles a pixel, that a grid of this period has and a finer one of PERIODS has not."""
    return [Fraction(k, period) for k in range(1, period // 2 + 1, 2)]


def _standing_out(power: _Array, period: int) -> float:
    """Return the logarithm of mean power at the frequencies over mean power around them.

    Around a frequency the mean is one of logarithms, for a spectrum that falls as a power of the frequency
    then gives 1.
    """
    half = SEGMENT // 2
    at, around = [], []
    for frequency in frequencies(period):
        place = int(frequency * SEGMENT)
        steps = [d for d in range(-FARTHEST, FARTHEST + 1) if abs(d) >= NEAREST]
        # beyond half a cycle a pixel the spectrum is its own mirror image
        near = [half - abs(half - (place + d)) for d in steps]
        at.append(power[place])
        around.append(np.exp(np.log(power[near]).mean()))
    return float(np.log(np.mean(at) / np.mean(around)))
