"""An encoder that searches: symbols are chosen by what the decoder paints of them.

The latent of the details goes down the gradient of a distance between image and painting, and of the bits:
each step rounds the latent as `write` would, has a judge paint and compare it, and moves every value that is
sent.  Tokens, tables and decoders stay as they are, so the file is an ordinary one::

    y ---> walk ---> symbols, bits ---> y_hat ---> judge: paint, compare ---> distance
    ^                   |                                                        |
    '---- one step <----+---- slope of the bits + slope of the distance <--------'

The latent with the least sum of distance and weighted bits is kept.  The judge needs gradients through the
decoder's network, and so the extra `torch`; this module does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlf.entropy.tables import UNSENT, Tables
from dlf.errors import InvalidArgument
from dlf.geometry import Plan
from dlf.limits import whole_number
from dlf.records import Float32, Float64, Int32, UInt8

STEPS = {0: 0, 3: 4, 9: 24}
"""Steps of each effort; docs/rate.md has what each brings and costs."""

EFFORTS = tuple(STEPS)

BIT_WEIGHT = 0.9
"""What all bits of the plain file weigh beside the distance."""

_PATH = 0.15  # quantisation steps that the mean symbol would move if it always went the same way
_LAST = 0.2  # length of the last step, as a share of the first
_STEEPEST = 6.0  # times the mean slope beyond which a slope does not count
_INERTIA = 0.6  # share of the direction before in the next one
_MEAN_INERTIA = 0.9  # likewise of the mean slope


@dataclass(frozen=True, eq=False)
class Rounded:
    """What `write` would send of a latent; arrays are (channels, rows, cols).

    y_hat: float32, what a decoder has of it.
    bits: information content of all details.
    bit_slope: float32, by how many bits a symbol would cost more if it were larger by one.
    sent: bool, symbols that are not 0 whatever the latent is.
    step: float32, quantisation step.
    """

    y_hat: Float32
    bits: float
    bit_slope: Float32
    sent: NDArray[np.bool_]
    step: Float32


@dataclass(frozen=True, eq=False)
class Judged:
    """How far a painting is from its image.

    distance: at least 0, without a unit.  slope: float32 (channels, rows, cols), its gradient by y_hat.
    """

    distance: float
    slope: Float32


class Round(Protocol):
    """Rounds the latent of one image."""

    def __call__(self, y: Float32) -> Rounded:
        """Round y, float32 (channels, rows, cols)."""
        ...


class Judge(Protocol):
    """Paints one image and compares."""

    def __call__(self, y_hat: Float32) -> Judged:
        """Paint y_hat, float32 (channels, rows, cols), and compare it with the image."""
        ...


class Judges(Protocol):
    """What makes the judges of one model."""

    def of(
        self, plan: Plan, rgb: UInt8, sent: Int32, quality: int, check: Callable[[], None] | None = None
    ) -> Judge:
        """Return the judge of an image, uint8 (height, width, 3).

        sent: int32 (windows, tokens a window), tokens of its file, -1 where there are none.  quality: 0..100.
        check: called before each tile, and raises where the time is over.
        """
        ...


@dataclass(frozen=True)
class Search:
    """How to search.

    steps: runs of decoder and gradient, one less than the paintings that are judged.
    bit_weight, path: for trials; see above.
    """

    steps: int
    bit_weight: float = BIT_WEIGHT
    path: float = _PATH

    def __call__(self, y: Float32, rounded: Round, judge: Judge) -> Float32:
        """Return a latent, float32 (channels, rows, cols) as y, that is worth more than y where any is."""
        first = rounded(y)
        plain = max(first.bits, 1.0)
        scaled, step = y / first.step, first.step
        speed, mean, best = np.zeros_like(scaled), 0.0, (math.inf, y)
        for turn in range(self.steps + 1):
            now = first if turn == 0 else rounded(scaled * step)
            judged = judge(now.y_hat)
            cost = judged.distance + self.bit_weight * now.bits / plain
            if cost < best[0]:
                best = cost, scaled * step
            if turn == self.steps:
                break
            slope = judged.slope * step + self.bit_weight / plain * now.bit_slope
            slope = np.where(now.sent, slope, 0)
            size = float(np.sqrt(np.square(slope).mean())) or 1.0
            mean = size if turn == 0 else _MEAN_INERTIA * mean + (1 - _MEAN_INERTIA) * size
            speed = _INERTIA * speed + (1 - _INERTIA) / mean * slope
            rate = self.path / self.steps * (1 - (1 - _LAST) * turn / self.steps)
            scaled = scaled - rate * speed.clip(-_STEEPEST, _STEEPEST)
        return best[1].astype(np.float32)


@dataclass(frozen=True)
class Effort:
    """What a codec that searches has beside others: how, and what judges for its model."""

    search: Search
    judges: Judges


def check_effort(effort: int) -> int:
    """Return an effort that there is; raises InvalidArgument, or TypeError for what is no number."""
    number = whole_number(effort, "the effort")
    if number not in STEPS:
        msg = f"the effort is {number}, but must be one of {', '.join(map(str, EFFORTS))}"
        raise InvalidArgument(msg)
    return number


def bit_slopes(symbols: Int32, index: NDArray[np.int16], tables: Tables) -> Float64:
    """Return how many bits more a symbol costs that is larger by one: the mean of both its neighbours'.

    symbols: int32 (n,).  index: int16 (n,), table of each.  Returns float64 (n,), 0 where not sent.
    """
    slopes = np.gradient(tables.gaussian_bits[:, : 2 * tables.limit + 1], axis=1)
    slopes[:UNSENT] = 0
    places = symbols.clip(-tables.limit, tables.limit) + tables.limit
    found: Float64 = slopes[index, places]
    return found
