"""Where images lie: files below a folder, or members of WebDataset shards (plain tar files).

A shard's headers are read once; an image is then one seek and one read away.  Any image can so be
drawn at any step, which keeps a resumed run exact and shuffles over all shards at once.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlf.files import find_files
from dlf.imageio import load_rgb
from dlf.records import UInt8

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
SHARD = ".tar"


@dataclass(frozen=True, order=True)
class ImageFile:
    """The bytes of one image: a whole file, or `size` bytes at `offset` of a shard.

    name: of the member within its shard; empty for a file.
    """

    path: Path
    offset: int = 0
    size: int = -1
    name: str = ""

    def __str__(self) -> str:
        """The path, and the member where there is one."""
        return f"{self.path}:{self.name}" if self.name else str(self.path)

    def pixels(self) -> UInt8:
        """Decode to upright sRGB (H, W, 3), as `dlf.imageio` does for the codec; raises its errors."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return load_rgb(file.read(self.size))[0]


def find_images(place: Path) -> list[ImageFile]:
    """All images of a shard, or of the files and shards below a folder; sorted by path."""
    files: list[ImageFile] = []
    for path in [place] if place.is_file() else find_files(place, SUFFIXES | {SHARD}, recursive=True):
        if path.suffix.lower() == SHARD:
            files.extend(_members(path))
        else:
            files.append(ImageFile(path))
    return sorted(files)


def _members(shard: Path) -> Iterator[ImageFile]:
    """Images of one shard; of a damaged shard those before the damage."""
    try:
        with tarfile.open(shard, "r:") as archive:
            end = 0
            for member in archive:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if member.isreg() and Path(member.name).suffix.lower() in SUFFIXES:
                    yield ImageFile(shard, member.offset_data, member.size, member.name)
        # tarfile takes a broken header for the end, which is a block of zeros
        with shard.open("rb") as file:
            file.seek(end)
            damage = "" if file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE) else "it breaks off"
    except tarfile.TarError as error:
        damage = str(error)
    if damage:
        log.warning("the shard %s is damaged (%s): images behind that are left out", shard, damage)
