"""Camera raw files that look like TIFF: Pillow would give their preview, or one colour of the sensor."""

from __future__ import annotations

import io
import struct
from typing import IO

from dlf.errors import ImageError

TIFF_MAGICS = (b"II*\0", b"MM\0*")
MAX_DIRECTORIES = 32

WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC = 256, 257, 259, 262
NEW_SUBFILE_TYPE, SUBFILE_TYPE, SUB_DIRECTORIES = 254, 255, 330
CFA_REPEAT, CFA_PATTERN, DNG_VERSION = 33421, 33422, 50706
SENSOR_PHOTOMETRICS = (32803, 34892)  # colour filter array, linear raw
SENSOR_COMPRESSIONS = (32767, 32769, 32770, 34713, 65000, 65535)  # Sony, Epson, Samsung, Nikon, Kodak, Pentax


def refuse_camera_raw(file: IO[bytes], head: bytes) -> None:
    """Refuse a TIFF file whose first picture is not the picture.

    Raises:
        ImageError: it is a camera raw file, or its first page is a preview of another.
    """
    if head[:4] in TIFF_MAGICS and (head[8:10] == b"CR" or _is_raw(_directories(file))):
        msg = (
            "this is a camera raw file, or a TIFF that starts with a preview of its picture; "
            "develop or export it to an image first"
        )
        raise ImageError(msg)


def _is_raw(directories: list[tuple[bool, dict[int, int]]]) -> bool:
    """Judge (is a sub-directory, tags) of every directory, the first page in front."""
    if not directories:
        return False
    first = directories[0][1]
    if {CFA_REPEAT, CFA_PATTERN, DNG_VERSION} & first.keys():
        return True
    preview = first.get(NEW_SUBFILE_TYPE, 0) & 1 or first.get(SUBFILE_TYPE) == 2
    pixels = first.get(WIDTH, 0) * first.get(HEIGHT, 0)
    for is_sub, tags in directories:
        if tags.get(PHOTOMETRIC) in SENSOR_PHOTOMETRICS or tags.get(COMPRESSION) in SENSOR_COMPRESSIONS:
            return True
        if (is_sub or preview) and tags.get(WIDTH, 0) * tags.get(HEIGHT, 0) > pixels:
            return True
    return False


def _directories(file: IO[bytes]) -> list[tuple[bool, dict[int, int]]]:
    """Directories of a TIFF file; of every tag its first number, where that is a short or a long."""
    file.seek(0)
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    end = file.seek(0, io.SEEK_END)
    pending = [(False, struct.unpack(order + "I", head[4:8])[0])] if len(head) == 8 else []
    seen: set[int] = set()
    directories: list[tuple[bool, dict[int, int]]] = []
    while pending and len(directories) < MAX_DIRECTORIES:
        is_sub, offset = pending.pop(0)
        if offset in seen or not 8 <= offset < end:
            continue
        seen.add(offset)
        tags, subs, following = _directory(file, order, offset)
        directories.append((is_sub, tags))
        pending += [(True, sub) for sub in subs]
        if not is_sub:
            pending.append((False, following))
    return directories


def _directory(file: IO[bytes], order: str, offset: int) -> tuple[dict[int, int], list[int], int]:
    """Tags, offsets of sub-directories and of the next directory."""
    file.seek(offset)
    (count,) = struct.unpack(order + "H", file.read(2).ljust(2, b"\0"))
    entries = file.read(12 * count)
    following = int.from_bytes(file.read(4), "little" if order == "<" else "big")
    tags: dict[int, int] = {}
    subs: list[int] = []
    for at in range(0, len(entries) - 11, 12):
        tag, kind, length = struct.unpack(order + "HHI", entries[at : at + 8])
        value = entries[at + 8 : at + 12]
        tags[tag] = (
            struct.unpack(order + "H", value[:2])[0] if kind == 3 else struct.unpack(order + "I", value)[0]
        )
        if tag == SUB_DIRECTORIES and length <= MAX_DIRECTORIES:
            if length > 1:
                file.seek(tags[tag])
                value = file.read(4 * length)
            subs = list(struct.unpack(f"{order}{len(value) // 4}I", value[: len(value) // 4 * 4]))
    return tags, subs, following
