"""Other formats at the same number of bytes, through Pillow; the picture may be scaled down first.

At a hundredth of the usual size a common format shows its best side on a smaller picture, so a fair
comparison looks for the best scale of every picture at every size.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from typing import Protocol

import numpy as np
from PIL import Image, features

from dlf.errors import DlfError, MissingExtra
from dlf.evaluation.metrics import Metric, Score
from dlf.extras import need
from dlf.records import UInt8

log = logging.getLogger(__name__)

SCALES = tuple(Fraction(text) for text in ("1", "3/4", "1/2", "3/8", "1/4", "3/16", "1/8"))


class BaselineError(DlfError):
    """A format cannot hold a picture at any scale."""


class Baseline(Protocol):
    """A format to compare with."""

    @property
    def name(self) -> str:
        """As the command line and the table call it."""
        ...

    @property
    def identity(self) -> str:
        """Changes when its files would: versions of libraries, options."""
        ...

    @property
    def qualities(self) -> range:
        """Settings, worst and smallest first."""
        ...

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """Return the file of an RGB picture; any exception says that it cannot be written."""
        ...

    def decode(self, data: bytes) -> Image.Image:
        """Return the RGB picture of a file."""
        ...


@dataclass(frozen=True)
class PillowFormat:
    """A `Baseline` that Pillow or one of its plugins reads and writes."""

    name: str
    format: str
    identity: str
    options: Mapping[str, str | int] = field(default_factory=dict)
    qualities: range = range(101)

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """Return the file of an RGB picture."""
        file = io.BytesIO()
        image.save(file, self.format, quality=quality, **self.options)
        return file.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        """Return the RGB picture of a file."""
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")


def _avif() -> PillowFormat:
    return _built_in("avif", "AVIF", "avif", {"speed": 4, "subsampling": "4:2:0"})


def _webp() -> PillowFormat:
    return _built_in("webp", "WEBP", "webp", {"method": 6})


def _jxl() -> PillowFormat:
    need("pillow_jxl", "eval")  # registers the format
    return PillowFormat("jxl", "JXL", f"jxl {version('pillow-jxl-plugin')}", {"effort": 7})


def _heic() -> PillowFormat:
    plugin = need("pillow_heif", "eval")
    plugin.register_heif_opener()
    return PillowFormat("heic", "HEIF", f"heic {plugin.libheif_version()}")


def _built_in(name: str, kind: str, feature: str, options: Mapping[str, str | int]) -> PillowFormat:
    if not features.check(feature):
        msg = f"this build of Pillow has no {name.upper()}; run: pip install 'dlf-codec[eval]'"
        raise MissingExtra(msg)
    identity = f"{name} {features.version(feature)} {dict(options)}"
    return PillowFormat(name, kind, identity, options)


OPENERS: dict[str, Callable[[], Baseline]] = {"avif": _avif, "webp": _webp, "jxl": _jxl, "heic": _heic}
"""Every baseline by name; each opener raises MissingExtra if what it needs is not installed."""


def open_baseline(name: str) -> Baseline:
    """Return a baseline by its key in OPENERS.

    Raises:
        MissingExtra: what it needs is not installed.
    """
    try:
        return OPENERS[name]()
    except ImportError as error:  # a plugin that is there but does not fit the system
        msg = f"the plugin for {name} does not work here ({error})"
        raise MissingExtra(msg) from error


@dataclass(frozen=True, eq=False)
class Fitted:
    """A picture in some format.

    scale: of both sides before coding.  quality: setting of the format.  size: bytes of the file.
    rgb: uint8 (H, W, 3), decoded and scaled back.
    """

    scale: Fraction
    quality: int
    size: int
    rgb: UInt8


class Fitter:
    """One picture in one format, at any number of bytes; every file is made only once."""

    def __init__(self, baseline: Baseline, original: UInt8) -> None:
        self._baseline, self._original = baseline, Image.fromarray(original)
        self._small: dict[Fraction, Image.Image] = {}
        self._files: dict[tuple[Fraction, int], bytes | None] = {}

    def fit(self, budget: int, metric: Metric, score: Score) -> Fitted:
        """Return the scale that `metric` finds best, each at its best quality of at most `budget` bytes.

        Where nothing is that small, the smallest file of all is taken.  `score` is `metric` against the
        original.  Raises BaselineError if the format cannot hold the picture.
        """
        best: Fitted | None = None
        best_score = float("nan")
        for scale in SCALES:
            quality = self._largest_quality(scale, budget)
            if quality is None:
                continue
            fitted = self.paint(scale, quality)
            value = score(fitted.rgb)
            if best is None or metric.better(value, best_score):
                best, best_score = fitted, value
        return self.paint(*self._smallest()) if best is None else best

    def paint(self, scale: Fraction, quality: int) -> Fitted:
        """Code and decode at one setting; raises BaselineError if the format cannot."""
        data = self._file(scale, quality)
        if data is None:
            msg = f"{self._baseline.name} cannot hold the picture at scale {scale}"
            raise BaselineError(msg)
        painted = self._baseline.decode(data)
        if painted.size != self._original.size:
            painted = painted.resize(self._original.size, Image.Resampling.BICUBIC)
        return Fitted(scale, quality, len(data), np.asarray(painted))

    def _largest_quality(self, scale: Fraction, budget: int) -> int | None:
        """Search by halves, as if sizes grew with quality (nearly true); None if the smallest is larger."""
        qualities = self._baseline.qualities
        if self._size(scale, 0) > budget:
            return None
        low, high = 0, len(qualities)  # the file at `low` fits, the one at `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            if self._size(scale, middle) <= budget:
                low = middle
            else:
                high = middle
        return qualities[low]

    def _smallest(self) -> tuple[Fraction, int]:
        scale = min(SCALES, key=lambda scale: self._size(scale, 0))
        return scale, self._baseline.qualities[0]

    def _size(self, scale: Fraction, index: int) -> float:
        data = self._file(scale, self._baseline.qualities[index])
        return float("inf") if data is None else len(data)

    def _file(self, scale: Fraction, quality: int) -> bytes | None:
        """Return the file, None where the format refuses."""
        key = scale, quality
        if key not in self._files:
            try:
                self._files[key] = self._baseline.encode(self._scaled(scale), quality)
            except MemoryError:
                raise
            except Exception as error:  # plugins raise nearly anything
                log.debug("%s refuses %s at %s: %s", self._baseline.name, quality, scale, error)
                self._files[key] = None
        return self._files[key]

    def _scaled(self, scale: Fraction) -> Image.Image:
        if scale not in self._small:
            size = tuple(max(1, round(side * scale)) for side in self._original.size)
            self._small[scale] = self._original.resize((size[0], size[1]), Image.Resampling.LANCZOS)
        return self._small[scale]
