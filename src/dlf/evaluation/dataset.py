"""Images of a folder, in an order that stays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dlf.errors import ImageError, SpecError
from dlf.files import find_files
from dlf.records import UInt8

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".heic", ".jpeg", ".jpg", ".jxl", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class ImageFile:
    """One image of a folder.

    name: path below the folder, with "/" on every system.
    """

    name: str
    path: Path


def find_images(folder: Path) -> list[ImageFile]:
    """Return the images below `folder`, sorted by path, files and folders with a leading dot left out.

    Raises:
        ImageError: it is not a folder or holds no file with the ending of a picture.
    """
    if not folder.is_dir():
        msg = f"'{folder}' is not a folder"
        raise ImageError(msg)
    images = [
        ImageFile(path.relative_to(folder).as_posix(), path)
        for path in find_files(folder, IMAGE_SUFFIXES, recursive=True)
    ]
    if not images:
        msg = f"the folder '{folder}' holds no pictures"
        raise ImageError(msg)
    return images


@dataclass(frozen=True)
class NamedSet:
    """A data set that users have on their own disk.

    count: images.  checksum: SHA-256 of the sorted names, one a line; "" where the names differ between
    copies.  published: name in the tables of published numbers, "" if none.
    """

    title: str
    count: int
    checksum: str = ""
    published: str = ""


NAMED = {
    "kodak": NamedSet(
        "Kodak", 24, "0dd1d752d3656c4db7541f88bf73da9cc79f25f568fb8e9d10399d5d677babc8", "kodak"
    ),
    "clic2020": NamedSet("CLIC2020 test", 428, published="clic2020"),
    "div2k": NamedSet(
        "DIV2K validation", 100, "901d07961d1c5e19fe221bbad81dccb5cfeaa7d52d3fb6f6b74fa5c81d86e31e"
    ),
    "tecnick": NamedSet("Tecnick, 1200 x 1200", 100),
}
"""Data sets by name."""


def check_set(name: str, images: Sequence[ImageFile]) -> NamedSet:
    """Return the data set of that name if `images` are those that it should have.

    Raises:
        ImageError: there are more or fewer, or others.
        SpecError: there is no data set of that name.
    """
    if name not in NAMED:
        msg = f"'{name}' is not one of the data sets {', '.join(NAMED)}"
        raise SpecError(msg)
    named = NAMED[name]
    if len(images) != named.count:
        msg = f"{named.title} has {named.count} pictures, the folder {len(images)}"
        raise ImageError(msg)
    if named.checksum and checksum(images) != named.checksum:
        msg = f"the names of the pictures are not those of {named.title}"
        raise ImageError(msg)
    return named


def checksum(images: Sequence[ImageFile]) -> str:
    """Return the SHA-256 of the sorted names of the files, folders left out, one a line."""
    names = sorted(image.path.name for image in images)
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def cropped(rgb: UInt8, side: int) -> UInt8:
    """Scale uint8 (H, W, 3) so that its shorter side has `side` pixels, and cut out the square in the middle.

    The rule of PerCo and of the paper for FID on CLIC2020 (768 x 768).
    """
    image = Image.fromarray(rgb)
    ratio = side / min(image.size)
    width, height = (max(side, round(length * ratio)) for length in image.size)
    scaled = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(scaled.crop((left, top, left + side, top + side)))
