"""One picture through one format at any number of bytes; the picture may be scaled down first.

At a hundredth of the usual size a common format shows its best side on a smaller picture, so a fair
comparison looks for the best scale of every picture at every size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from time import perf_counter

import numpy as np
from PIL import Image

from dlf.errors import DlfError
from dlf.evaluation.codecs.formats import Format
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.records import UInt8

log = logging.getLogger(__name__)

SCALES = tuple(Fraction(text) for text in ("1", "3/4", "1/2", "3/8", "1/4", "3/16", "1/8"))
"""Scales to choose from, largest first."""


class FitError(DlfError):
    """A format cannot hold a picture."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A picture in some format.

    scale: of both sides before coding.  quality: setting of the format.  data: the file; None where only
    the decoded picture is known.  size: its bytes.  rgb: uint8 (H, W, 3), decoded and scaled back.
    encode_s, decode_s: seconds, scaling left out; 0 where not known.
    """

    scale: Fraction
    quality: int
    data: bytes | None
    size: int
    rgb: UInt8
    encode_s: float = 0
    decode_s: float = 0


class Fitter:
    """One picture in one format, at any number of bytes; every file is made only once.

    scales: to choose from, largest first.  name: of the format, for messages.
    """

    def __init__(self, name: str, form: Format, original: UInt8, scales: Sequence[Fraction]) -> None:
        self._name, self._format, self._scales = name, form, scales
        self._original = Image.fromarray(original)
        self._small: dict[Fraction, Image.Image] = {}
        self._files: dict[tuple[Fraction, int], tuple[bytes, float] | Exception] = {}

    def fit(self, budget: int, metric: Metric, score: Score) -> Fitted:
        """Return the scale that `metric` finds best, each at its best quality of at most `budget` bytes.

        Where nothing is that small, the smallest file of all is taken.  `score` is `metric` against the
        original.  Raises FitError if the format cannot hold the picture.
        """
        lowest = self._format.qualities[0]
        fitting = [scale for scale in self._scales if self._size(scale, lowest) <= budget]
        if not fitting:
            scale = min(self._scales, key=lambda scale: self._size(scale, lowest))
            return self.paint(scale, lowest)
        painted: dict[int, Fitted] = {}
        scores: dict[int, float] = {}

        def better(one: int, other: int) -> bool:
            for place in (one, other):
                if place not in painted:
                    scale = fitting[place]
                    painted[place] = self.paint(scale, self._largest_quality(scale, budget))
                    scores[place] = score(painted[place].rgb)
            return metric.better(scores[one], scores[other])

        best = climb(len(fitting), better)
        if best not in painted:  # there was nothing to choose from
            return self.paint(fitting[best], self._largest_quality(fitting[best], budget))
        return painted[best]

    def paint(self, scale: Fraction, quality: int) -> Fitted:
        """Code and decode at one setting; raises FitError if the format cannot."""
        made = self._file(scale, quality)
        if isinstance(made, Exception):
            msg = f"{self._name} cannot hold the picture at scale {scale} ({type(made).__name__}: {made})"
            raise FitError(msg) from made
        data, encode_s = made
        start = perf_counter()
        rgb = self._format.decode(data)
        decode_s = perf_counter() - start
        return Fitted(scale, quality, data, len(data), self._whole(rgb), encode_s, decode_s)

    def decode(self, data: bytes) -> UInt8:
        """Return the picture of a file that `paint` made, scaled back, uint8 (H, W, 3)."""
        return self._whole(self._format.decode(data))

    def _whole(self, painted: Image.Image) -> UInt8:
        if painted.size != self._original.size:
            painted = painted.resize(self._original.size, Image.Resampling.BICUBIC)
        return np.asarray(painted)

    def _largest_quality(self, scale: Fraction, budget: int) -> int:
        """Search by halves, as if sizes grew with quality (nearly true); the smallest file does fit."""
        qualities = self._format.qualities
        low, high = 0, len(qualities)  # the file at `low` fits, the one at `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            if self._size(scale, qualities[middle]) <= budget:
                low = middle
            else:
                high = middle
        return qualities[low]

    def _size(self, scale: Fraction, quality: int) -> float:
        made = self._file(scale, quality)
        return float("inf") if isinstance(made, Exception) else len(made[0])

    def _file(self, scale: Fraction, quality: int) -> tuple[bytes, float] | Exception:
        """Return the file and the seconds it took, or why the format refuses."""
        key = scale, quality
        if key not in self._files:
            small, start = self.scaled(scale), perf_counter()
            try:
                self._files[key] = self._format.encode(small, quality), perf_counter() - start
            except MemoryError:
                raise
            except Exception as error:  # plugins raise nearly anything
                log.debug("%s refuses %s at %s: %s", self._name, quality, scale, error)
                self._files[key] = error
        return self._files[key]

    def scaled(self, scale: Fraction) -> Image.Image:
        """Return the original scaled down, as it is coded."""
        if scale == 1:
            return self._original
        if scale not in self._small:
            size = tuple(max(1, round(side * scale)) for side in self._original.size)
            self._small[scale] = self._original.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        return self._small[scale]


def climb(count: int, better: Callable[[int, int], bool]) -> int:
    """Return the place of the best of `count` things in a row of which each side falls off from the best.

    better: tells whether the first place is better than the second.  Of two equal neighbours the first is
    taken.  Looks at about 2 log2(count) of them instead of all.
    """
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if better(middle + 1, middle):
            low = middle + 1
        else:
            high = middle
    return low
