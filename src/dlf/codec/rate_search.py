"""A file of a given size: the quality is searched, then the rounding is made cheaper by a few per cent.

Bytes grow by about 6 % from one quality to the next, so that no whole quality may come near enough.  What is
left between a target and the next larger quality is taken out by `rate_weight` (`dlf.codec.rounding`), of
which a decoder needs to know nothing::

    bytes     quality 41 .  rate_weight 0          too large, by less than a step
    target -- - - - - - -:- - - - - - - - - - -
                         v  rate_weight 0.01       from LEAST to 1 of the target
              quality 40 .
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np

from dlf.bitstream import container
from dlf.bitstream.container import Stream
from dlf.bitstream.spec import CHECKSUM_BYTES, MAX_BPP, MAX_QUALITY, MIN_FILE_BYTES
from dlf.codec.codec import StreamCodec
from dlf.codec.quality_shift import ShiftedLatents
from dlf.errors import InvalidArgument, UnreachableSize
from dlf.records import UInt8

log = logging.getLogger(__name__)

LEAST = 0.97
"""Share of the target that a file should have at least."""

_TYPICAL = (-7.70, -7.41, -7.13, -6.68, -5.95, -5.54, -5.17, -4.85, -4.58, -4.42, -4.20)
"""Logarithm of the bytes a pixel at qualities 0, 10 .. 100: means over photographs, for the default model.
What an image and a model really take is this curve, moved by what the first trial tells."""

_QUALITIES = np.linspace(0, MAX_QUALITY, len(_TYPICAL))
_AIM = 0.985  # the middle of what is good enough
_TRIM = 0.04  # logarithm of what cheaper rounding takes before the next quality is asked for
# logarithm of what a little rate weight saves, divided by it, at qualities 0, 20 .. 100
_SAVING = (8.0, 4.5, 3.5, 1.7, 1.3, 1.0)
_MOST_WEIGHT = 0.1  # beyond it details are lost that a lower quality would keep
_QUALITY_TRIALS, _WEIGHT_TRIALS = 9, 5


@dataclass(frozen=True)
class Setting:
    """What decides a file: quality, 0..100, and rate_weight, see `dlf.codec.rounding`."""

    quality: int
    rate_weight: float = 0.0


Size = Callable[[Setting], int]
"""Bytes of the file of a setting; costs a run of the coder."""


def search(size: Size, target: int, start: int, fixed: int = 0) -> Setting:
    """Return the setting whose file has the most bytes up to the target, among those that are tried.

    size: nearly increasing with the quality, nearly decreasing with the rate weight.
    target: bytes.  start: quality to begin with.  fixed: bytes of every file, whatever the setting.
    Where all files are larger, the setting of the smallest is returned.
    """
    sizes: dict[Setting, int] = {}

    def tried(setting: Setting) -> int:
        sizes[setting] = size(setting)
        return sizes[setting]

    def good() -> bool:
        return any(LEAST * target <= each <= target for each in sizes.values())

    above = _search_quality(tried, target, start, fixed)
    if above is not None and not good():
        _search_weight(tried, target, above, sizes[Setting(above)], fixed)
    fitting = {setting: each for setting, each in sizes.items() if each <= target}
    if fitting:
        return max(fitting, key=lambda setting: fitting[setting])
    return min(sizes, key=lambda setting: sizes[setting])


def _search_quality(size: Size, target: int, start: int, fixed: int) -> int | None:
    """Look for a quality that is good enough, or for the next above the target.

    Returns a quality whose file is too large by so little that cheaper rounding may do the rest; None if one
    is good enough, or nothing is left to try.
    """
    low, high = (-1, -math.inf), (MAX_QUALITY + 1, math.inf)  # quality, logarithm of bytes over the target
    quality = start
    for _ in range(_QUALITY_TRIALS):
        over = _over(size(Setting(quality)), target, fixed)
        if _over(LEAST * target, target, fixed) <= over <= 0:
            return None
        if over > 0:
            high = quality, over
        else:
            low = quality, over
        if high[0] - low[0] <= 1 or 0 < over <= _TRIM:
            break
        quality = next_quality(low, high)
    return high[0] if high[0] <= MAX_QUALITY else None


def next_quality(low: tuple[int, float], high: tuple[int, float]) -> int:
    """Return a quality strictly between two, from the logarithms of their bytes over the target.

    It aims at the middle of what ends the search.
    """
    aim = (_TRIM + math.log(LEAST)) / 2
    if math.isinf(low[1]):
        typical = _typical(high[0]) + aim - high[1]
    elif math.isinf(high[1]):
        typical = _typical(low[0]) + aim - low[1]
    else:
        share = (aim - low[1]) / (high[1] - low[1])
        typical = _typical(low[0]) + share * (_typical(high[0]) - _typical(low[0]))
    return min(max(round(_quality(typical)), low[0] + 1), high[0] - 1)


def _typical(quality: int) -> float:
    return float(np.interp(quality, _QUALITIES, _TYPICAL))


def _quality(typical: float) -> float:
    return float(np.interp(typical, _TYPICAL, _QUALITIES))


def typical_quality(bytes_per_pixel: float) -> int:
    """Return the quality at which photographs have so many bytes a pixel on the average."""
    return round(_quality(math.log(bytes_per_pixel)))


def _search_weight(size: Size, target: int, quality: int, plain: int, fixed: int) -> None:
    """Try rate weights at a quality whose plain file is too large, until one is good enough."""
    least, aim = (_over(share * target, target, fixed) for share in (LEAST, _AIM))
    low, high = (0.0, _over(plain, target, fixed)), (_MOST_WEIGHT, -math.inf)  # weight, as in _search_quality
    saving = float(np.interp(quality, np.linspace(0, MAX_QUALITY, len(_SAVING)), _SAVING))
    weight = (low[1] - aim) / saving
    for _ in range(_WEIGHT_TRIALS):
        weight = min(weight, _MOST_WEIGHT)
        over = _over(size(Setting(quality, weight)), target, fixed)
        if least <= over <= 0 or (over > 0 and weight == _MOST_WEIGHT):
            return
        if over > 0:
            low = weight, over
        else:
            high = weight, over
        if math.isinf(high[1]):
            saved = max(_over(plain, target, fixed) - over, 0.1 * saving * weight)
            weight += 1.1 * (over - aim) * weight / saved
        else:
            share = (low[1] - aim) / (low[1] - high[1])
            weight = low[0] + (high[0] - low[0]) * min(max(share, 0.1), 0.9)


def _over(size: float, target: int, fixed: int) -> float:
    """Return the logarithm of a size over the target, without the bytes of every file."""
    return math.log(max(size - fixed, 1) / max(target - fixed, 1))


@dataclass(frozen=True)
class Target:
    """Size of a file: bytes, or bits of it for each pixel of the image; the other is None."""

    max_bytes: int | None = None
    bpp: float | None = None

    def bytes_of(self, pixels: int) -> int:
        """Return how many bytes the file of an image of so many pixels may have."""
        if self.max_bytes is not None:
            return self.max_bytes
        return math.floor((self.bpp or 0) * pixels / 8)


def make_target(quality: int | None, max_bytes: int | None, bpp: float | None) -> Target | None:
    """Check what a caller says of the size of a file; None where that is nothing.

    Raises InvalidArgument where two say it, or one is no size of a file, and TypeError.
    """
    given = {"quality": quality, "max_bytes": max_bytes, "bpp": bpp}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        msg = f"{' and '.join(names)} are both given, but one decides the size of a file"
        raise InvalidArgument(msg)
    if max_bytes is not None and operator.index(max_bytes) < MIN_FILE_BYTES:
        msg = f"max_bytes is {max_bytes}, but no file has less than {MIN_FILE_BYTES} bytes"
        raise InvalidArgument(msg)
    ratio: object = bpp  # whatever the caller gave
    if ratio is not None and (isinstance(ratio, bool) or not isinstance(ratio, Real)):
        msg = f"bpp must be a number, not {type(ratio).__name__}"
        raise TypeError(msg)
    if bpp is not None and not 0 < bpp <= MAX_BPP:
        msg = f"bpp is {bpp}, but must be above 0 and at most {MAX_BPP}"
        raise InvalidArgument(msg)
    if max_bytes is None and bpp is None:
        return None
    return Target(None if max_bytes is None else operator.index(max_bytes), bpp)


class Trials:
    """Files of one image, uint8 (height, width, 3), at several settings.

    blob: metadata, packed.  importance: see `StreamCodec.background`.
    """

    def __init__(self, codec: StreamCodec, rgb: UInt8, blob: bytes, importance: UInt8 | None = None) -> None:
        self._codec, self._rgb, self._blob = codec, rgb, blob
        self._background = codec.background(importance, codec.header(rgb, 0, blob))
        self._latents = ShiftedLatents(codec, rgb)
        self._streams: dict[Setting, Stream] = {}

    def choose(self, quality: int) -> None:
        """Have the codec search at a quality, if it does; files of other qualities profit from it as well."""
        if self._codec.effort is not None:
            header = self._codec.header(self._rgb, quality, self._blob)
            plain = self._latents.at(quality)
            found = self._codec.searched(plain, self._rgb, header, self._background)
            self._latents.move(quality, found)
            self._streams.clear()

    def has(self, setting: Setting) -> bool:
        """Tell whether a setting has been tried."""
        return setting in self._streams

    def size(self, setting: Setting) -> int:
        """Return the bytes of the file of a setting."""
        return len(container.dump(self.stream(setting)))

    def stream(self, setting: Setting) -> Stream:
        """Return the file of a setting; the same each time."""
        if setting not in self._streams:
            header = self._codec.header(self._rgb, setting.quality, self._blob)
            latents = self._latents.at(setting.quality)
            weight = self._background + setting.rate_weight
            self._streams[setting] = self._codec.write(latents, header, self._blob, weight)
            log.debug("%s: %d bytes", setting, len(container.dump(self._streams[setting])))
        return self._streams[setting]


def encode_to_size(
    codec: StreamCodec,
    rgb: UInt8,
    wanted: Target,
    blob: bytes = b"",
    *,
    best: bool = False,
    importance: UInt8 | None = None,
) -> Stream:
    """Compress uint8 (height, width, 3) to at most the target, and to LEAST of it where that can be.

    blob: metadata, packed.
    best: return the nearest file where the image has none of that size, instead of raising UnreachableSize.
    importance: see `StreamCodec.background`.
    """
    trials = Trials(codec, rgb, blob, importance)
    pixels = rgb.shape[0] * rgb.shape[1]
    target = wanted.bytes_of(pixels)
    fixed = len(codec.header(rgb, 0, blob).pack()) + CHECKSUM_BYTES + len(blob)
    start = typical_quality(max(target - fixed, 1) / pixels)
    setting = search(trials.size, target, start, fixed)
    if codec.effort is not None:
        trials.choose(setting.quality)
        setting = search(trials.size, target, setting.quality, fixed)
    size, largest = trials.size(setting), Setting(MAX_QUALITY)
    ends = trials.has(largest) and trials.size(largest) <= target
    if size < LEAST * target and not ends:
        log.warning("%d bytes are the nearest below %d that were found", size, target)
    elif not LEAST * target <= size <= target and not best:
        end = "smallest" if size > target else "largest"
        msg = f"no file of this image has about {target:,} bytes: the {end} has {size:,}"
        raise UnreachableSize(msg)
    return trials.stream(setting)
