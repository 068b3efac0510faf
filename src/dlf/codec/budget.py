"""Many images, one number of bytes: all at one quality, which is searched.

Equal quality is as good as an equal slope of whatever distance it was compared with, and needs no image to be
painted (docs/rate.md).  Bytes between two qualities are filled up image by image::

    total  - - - - - - - - - - - - - - - - -   never above
             42 42 42 42 41 41 41 41           as many at the higher quality as there is room for
             41 41 41 41 41 41 41 41           the highest quality at which all fit
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlf.bitstream import container
from dlf.bitstream.spec import MAX_QUALITY, MIN_FILE_BYTES
from dlf.codec.codec import StreamCodec
from dlf.codec.rate_search import (
    LEAST,
    Setting,
    Target,
    Trials,
    encode_to_size,
    next_quality,
    search,
    typical_quality,
)
from dlf.errors import InvalidArgument, UnreachableSize
from dlf.limits import whole_number
from dlf.records import UInt8

log = logging.getLogger(__name__)

Load = Callable[[], tuple[UInt8, bytes]]
"""Gives an image, uint8 (height, width, 3), and its packed metadata; called again, it gives the same."""

PILOT = 4
"""Images by which the first quality is chosen; as many are held in memory at a time."""

_PASSES = 12  # over all images; one or two as a rule
_BY_CURVE = 4  # of them by the curve of typical sizes; the rest halve what is left


@dataclass(frozen=True)
class _Pass:
    """Files of all images at a few qualities next to each other; lowest first."""

    qualities: list[int]
    files: list[list[bytes]]  # of each quality, of each image

    def total(self, place: int) -> int:
        return sum(map(len, self.files[place]))


def check_total(total: int, images: int) -> int:
    """Return a number of bytes for so many images; raises InvalidArgument, TypeError for what is none."""
    number = whole_number(total, "total_bytes")
    if images < 1:
        msg = "there is no image to share the bytes among"
        raise InvalidArgument(msg)
    if number < MIN_FILE_BYTES * images:
        msg = (
            f"total_bytes is {number}, but the files of {_images(images)} have at least "
            f"{MIN_FILE_BYTES * images} bytes together"
        )
        raise InvalidArgument(msg)
    return number


def encode_set(
    codec: StreamCodec, images: Sequence[Load], total_bytes: int, *, best: bool = False
) -> list[bytes]:
    """Compress images to files that have at most `total_bytes` together, and LEAST of that where they can.

    All files and no more than `PILOT` images are in memory at a time; each image is loaded and analysed two
    or three times.
    best: return the nearest where the images have no files of that total, instead of raising.

    Raises:
        UnreachableSize: the smallest files have more together, or the largest less.
        InvalidArgument: no image, or no number of bytes that files can have.
    """
    total = check_total(total_bytes, len(images))
    if len(images) == 1:
        rgb, blob = images[0]()
        return [container.dump(encode_to_size(codec, rgb, Target(total), blob, best=best))]
    found = _search(codec, images, total)
    fitting = [place for place in range(len(found.qualities)) if found.total(place) <= total]
    if not fitting:
        return _nearest(found.files[0], total, "smallest", best=best)
    base = fitting[-1]
    files = list(found.files[base])
    if base + 1 == len(found.qualities):
        if found.total(base) < LEAST * total:
            return _nearest(files, total, "largest", best=best)
        return files
    raised = _raise(files, found.files[base + 1], total)
    if sum(map(len, files)) < LEAST * total:
        _fill(codec, images, files, raised, total)
    if sum(map(len, files)) < LEAST * total:
        log.warning("%d bytes are the nearest below %d that were found", sum(map(len, files)), total)
    return files


def _search(codec: StreamCodec, images: Sequence[Load], total: int) -> _Pass:
    """Return files around the highest quality at which all images fit, or at the end of the qualities."""
    quality = _first_quality(codec, images, total)
    # quality and logarithm of the bytes over the total: the highest known to fit, the lowest known not to
    low, high = (-1, -math.inf), (MAX_QUALITY + 1, math.inf)
    for number in range(_PASSES):
        found = _encode_all(codec, images, quality)
        over = [math.log(found.total(place) / total) for place in range(len(found.qualities))]
        if over[0] > 0:
            high = found.qualities[0], over[0]
        elif over[-1] <= 0:
            low = found.qualities[-1], over[-1]
        else:
            return found
        if low[0] == MAX_QUALITY or high[0] == 0:
            return found
        if high[0] - low[0] <= 1:
            quality = high[0]  # what is beside it fits
        elif number < _BY_CURVE:
            quality = next_quality(low, high)
        else:
            quality = (low[0] + high[0]) // 2
    return found


def _first_quality(codec: StreamCodec, images: Sequence[Load], total: int) -> int:
    """Choose the quality by a few of the images, which get their share of the bytes."""
    count = min(PILOT, len(images))
    pilots = [images[place * len(images) // count]() for place in range(count)]
    trials = [Trials(codec, rgb, blob) for rgb, blob in pilots]
    pixels = sum(rgb.shape[0] * rgb.shape[1] for rgb, _ in pilots)
    share = max(total * count // len(images), 1)
    start = typical_quality(share / pixels)
    return search(lambda setting: sum(each.size(setting) for each in trials), share, start).quality


def _encode_all(codec: StreamCodec, images: Sequence[Load], quality: int) -> _Pass:
    """Return the files of all images at a quality and at both beside it."""
    qualities = [each for each in (quality - 1, quality, quality + 1) if 0 <= each <= MAX_QUALITY]
    files: list[list[bytes]] = [[] for _ in qualities]
    for load in images:
        trials = Trials(codec, *load())
        trials.choose(quality)
        trials.stream(Setting(quality))  # first, for its latents are exact
        for place, each in enumerate(qualities):
            files[place].append(container.dump(trials.stream(Setting(each))))
    return _Pass(qualities, files)


def _raise(files: list[bytes], higher: list[bytes], total: int) -> set[int]:
    """Put files of the higher quality in the place of as many as there is room for; returns which."""
    room = total - sum(map(len, files))
    raised = set()
    for place, file in enumerate(higher):
        more = len(file) - len(files[place])
        if more <= room:
            files[place], room = file, room - more
            raised.add(place)
    return raised


def _fill(
    codec: StreamCodec, images: Sequence[Load], files: list[bytes], raised: set[int], total: int
) -> None:
    """Encode the largest file that is left to what remains; where there are few images that is much."""
    left = [place for place in range(len(files)) if place not in raised]
    if not left:
        return
    place = max(left, key=lambda each: len(files[each]))
    rgb, blob = images[place]()
    room = total - sum(map(len, files)) + len(files[place])
    file = container.dump(encode_to_size(codec, rgb, Target(room), blob, best=True))
    if len(files[place]) < len(file) <= room:
        files[place] = file


def _nearest(files: list[bytes], total: int, end: str, *, best: bool) -> list[bytes]:
    if best:
        return files
    size = sum(map(len, files))
    msg = (
        f"no files of these {_images(len(files))} have about {total:,} bytes together: "
        f"the {end} have {size:,}"
    )
    raise UnreachableSize(msg)


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"
