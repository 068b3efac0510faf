"""Pictures of a folder, in an order that stays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlf.errors import ImageError

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".heic", ".jpeg", ".jpg", ".jxl", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class Picture:
    """One picture of a folder.

    name: path below the folder, with "/" on every system.
    """

    name: str
    path: Path


def find_pictures(folder: Path) -> list[Picture]:
    """Return the pictures below `folder`, sorted by path, files and folders with a leading dot left out.

    Raises:
        ImageError: it is not a folder or holds no file with the ending of a picture.
    """
    if not folder.is_dir():
        msg = f"'{folder}' is not a folder"
        raise ImageError(msg)
    pictures = []
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and not hidden and path.is_file():
            pictures.append(Picture(place.as_posix(), path))
    if not pictures:
        msg = f"the folder '{folder}' holds no pictures"
        raise ImageError(msg)
    return pictures
