"""Photos as one tar shard of a size that travels: shrunk, WebP, readable by ``--data``."""

from __future__ import annotations

import io
import logging
import os
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dlf.errors import DlfError, TrainingError
from dlf.train.shards import ImageFile, find_images

log = logging.getLogger(__name__)

QUALITIES = (92, 88, 84, 80, 75, 70, 65)
SAMPLE = 48  # images that tell which quality fits
CAUTION = 1.05  # the rest may be larger than the sample
EFFORT = 4  # of WebP, 0 to 6
END = 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE  # two blocks of zeros, filled up to a record


@dataclass(frozen=True)
class Packed:
    """What became of the images.

    path, size: of the shard, in bytes.  taken, whole: images in it, and readable images that there
    are as far as was looked.  unread: images that could not be read.  quality: of WebP.
    """

    path: Path
    size: int
    taken: int
    whole: int
    unread: int
    quality: int
    short_side: int

    def __str__(self) -> str:
        """One line to read."""
        unread = f", {self.unread} unreadable" if self.unread else ""
        return (
            f"{self.path}: {self.taken} of {self.whole} images{unread}, {self.size / 1e6:.1f} MB, WebP of "
            f"quality {self.quality}, shorter side {self.short_side} at most"
        )


def pack(
    places: Sequence[Path],
    target: Path,
    *,
    max_bytes: int,
    short_side: int,
    seed: int = 0,
    skip: int = 0,
    most: int | None = None,
    lowest: int = QUALITIES[-1],
) -> Packed:
    """Write a tar shard of the images of folders or shards, in an order that the seed says.

    The best of `QUALITIES` at which all fit, judged by a sample; at the worst as many images as fit.
    The same images give the same file.  short_side: images are shrunk to it, never enlarged.  skip: so
    many of the order are left out, which another shard has.  most: so many images at most.
    lowest: the worst of `QUALITIES` that may be taken.

    Raises:
        TrainingError: there are no images, or not one fits.
        OSError: the shard cannot be written; an older one stays.
    """
    files = [file for place in places for file in find_images(place)]
    if not files:
        msg = f"there are no images in {', '.join(map(str, places))}"
        raise TrainingError(msg)
    order = np.random.default_rng(seed).permutation(len(files))
    drawn = [files[i] for i in order[skip:][:most]]
    if not drawn:
        msg = f"there are {len(files)} images, and {skip} are to be left out"
        raise TrainingError(msg)
    quality = _best_quality(drawn, max_bytes, short_side, lowest)
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        make = partial(encode, short_side=short_side, quality=quality)
        taken, unread = _write(part, drawn, max_bytes, make)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    size = target.stat().st_size
    return Packed(target, size, taken, len(drawn) - unread, unread, quality, short_side)


def encode(file: ImageFile, *, short_side: int, quality: int) -> bytes | None:
    """WebP of an image, shrunk; None with a line in the log if it cannot be read."""
    try:
        image = Image.fromarray(file.pixels())
    except (DlfError, OSError) as error:
        log.warning("skipping %s: %s", file, error)
        return None
    scale = short_side / min(image.size)
    if scale < 1:
        width, height = (max(short_side, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=EFFORT)
    return out.getvalue()


def _best_quality(files: Sequence[ImageFile], max_bytes: int, short_side: int, lowest: int) -> int:
    sample, allowed = files[:SAMPLE], [quality for quality in QUALITIES if quality >= lowest]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for quality in allowed:
            encoded = threads.map(partial(encode, short_side=short_side, quality=quality), sample)
            size = sum(_room(len(data)) for data in encoded if data is not None)
            if size * len(files) / len(sample) * CAUTION + END <= max_bytes:
                return quality
    return allowed[-1]


def _room(size: int) -> int:
    """Bytes of a member in a tar file."""
    return tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE))


def _write(
    path: Path, files: Sequence[ImageFile], max_bytes: int, make: partial[bytes | None]
) -> tuple[int, int]:
    """Write members until the next does not fit; returns how many there are, and were unreadable."""
    taken = unread = 0
    used = END
    with tarfile.open(path, "w:", format=tarfile.USTAR_FORMAT) as archive, ThreadPoolExecutor() as threads:
        for start in range(0, len(files), SAMPLE):
            for data in threads.map(make, files[start : start + SAMPLE]):
                if data is None:
                    unread += 1
                    continue
                used += _room(len(data))
                if used > max_bytes:
                    break
                member = tarfile.TarInfo(f"{taken:06d}.webp")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
                taken += 1
            if used > max_bytes:
                break
    if not taken:
        full = used > max_bytes
        msg = f"not one image fits into {max_bytes / 1e6:.3g} MB" if full else "not one image can be read"
        raise TrainingError(msg)
    return taken, unread
