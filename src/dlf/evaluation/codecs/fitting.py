"""One image through one codec at any number of bytes; the image may be scaled down first.

At a hundredth of the usual size a common format shows its best side on a smaller image, so a fair
comparison looks for the best scale of every image at every size.
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
from dlf.evaluation.codecs.protocols import Codec, RatePoint
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.records import UInt8

log = logging.getLogger(__name__)

SCALES = tuple(Fraction(text) for text in ("1", "3/4", "1/2", "3/8", "1/4", "3/16", "1/8"))
"""Scales to choose from, largest first."""


class FitError(DlfError):
    """A codec cannot hold an image."""


@dataclass(frozen=True)
class ScaledCodec:
    """A `ComparedCodec` that codes the image at one of several scales, largest first."""

    name: str
    codec: Codec
    scales: tuple[Fraction, ...]
    own: bool = False
    classical: bool = False

    @property
    def identity(self) -> str:
        """Changes with the codec and the scales."""
        return f"{self.codec.identity} {' '.join(map(str, self.scales))}"

    @property
    def judged(self) -> bool:
        """Tell whether there is a choice of scales."""
        return len(self.scales) > 1

    def start(self, name: str, original: UInt8) -> ScaleSearch:
        """Begin with an image, uint8 (H, W, 3)."""
        return ScaleSearch(self.name, self.codec, original, self.scales)


@dataclass(frozen=True)
class _File:
    """A coded file and the seconds it took."""

    data: bytes
    seconds: float


class ScaleSearch:
    """A `RateSearch` over scales and qualities; every file is made only once.

    scales: to choose from, largest first.  name: of the codec, for messages.
    """

    def __init__(self, name: str, codec: Codec, original: UInt8, scales: Sequence[Fraction]) -> None:
        self._name, self._codec, self._scales = name, codec, scales
        self._original = Image.fromarray(original)
        self._small: dict[Fraction, Image.Image] = {}
        self._files: dict[tuple[Fraction, int], _File | Exception] = {}

    def fit(self, budget: int, metric: Metric, score: Score) -> RatePoint:
        """Return the scale that `metric` finds best, each at its best quality of at most `budget` bytes.

        Where nothing is that small, the smallest file of all is taken.  `score` is `metric` against the
        original.  Raises FitError if the codec cannot hold the image.
        """
        lowest = self._codec.qualities[0]
        fitting = [scale for scale in self._scales if self._size(scale, lowest) <= budget]
        if not fitting:
            scale = min(self._scales, key=lambda scale: self._size(scale, lowest))
            return self.code(scale, lowest)
        points: dict[int, RatePoint] = {}
        scores: dict[int, float] = {}

        def better(one: int, other: int) -> bool:
            for place in (one, other):
                if place not in points:
                    scale = fitting[place]
                    points[place] = self.code(scale, self._largest_quality(scale, budget))
                    scores[place] = score(points[place].rgb)
            return metric.better(scores[one], scores[other])

        best = climb(len(fitting), better)
        if best not in points:  # there was nothing to choose from
            return self.code(fitting[best], self._largest_quality(fitting[best], budget))
        return points[best]

    def code(self, scale: Fraction, quality: int) -> RatePoint:
        """Code and decode at one setting; raises FitError if the codec cannot."""
        file = self._file(scale, quality)
        if isinstance(file, Exception):
            msg = f"{self._name} cannot hold the picture at scale {scale} ({type(file).__name__}: {file})"
            raise FitError(msg) from file
        start = perf_counter()
        decoded = self._codec.decode(file.data)
        decode_s = perf_counter() - start
        rgb = self._upscaled(decoded)
        return RatePoint(scale, quality, file.data, len(file.data), rgb, file.seconds, decode_s)

    def decode(self, data: bytes) -> UInt8:
        """Return the image of a file that `code` made, scaled back, uint8 (H, W, 3)."""
        return self._upscaled(self._codec.decode(data))

    def _upscaled(self, decoded: Image.Image) -> UInt8:
        if decoded.size != self._original.size:
            decoded = decoded.resize(self._original.size, Image.Resampling.BICUBIC)
        return np.asarray(decoded)

    def _largest_quality(self, scale: Fraction, budget: int) -> int:
        """Search by halves, as if sizes grew with quality (nearly true); the smallest file does fit."""
        qualities = self._codec.qualities
        low, high = 0, len(qualities)  # the file at `low` fits, the one at `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            if self._size(scale, qualities[middle]) <= budget:
                low = middle
            else:
                high = middle
        return qualities[low]

    def _size(self, scale: Fraction, quality: int) -> float:
        file = self._file(scale, quality)
        return float("inf") if isinstance(file, Exception) else len(file.data)

    def _file(self, scale: Fraction, quality: int) -> _File | Exception:
        """Return the file, or why the codec refuses."""
        key = scale, quality
        if key not in self._files:
            small, start = self.scaled(scale), perf_counter()
            try:
                data = self._codec.encode(small, quality)
                self._files[key] = _File(data, perf_counter() - start)
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
