"""Boxes of AVIF, JPEG XL and JPEG 2000 files, as far as Pillow and its plugins leave them unread."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from dlf.imageio.sidecar import Sidecar, Signal

MAX_BOX = 2**24
"""Limit of a box that is read: 16 MiB."""

MAX_META = 2**20
"""Limit of the box that describes the items of a file: 1 MiB."""
MAX_BOXES = 2**12
"""Limit of the boxes that are walked in one place."""

JXL_CODESTREAM = b"\xff\x0a"
JXL_CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
JP2_CONTAINER = b"\x00\x00\x00\x0cjP  \r\n\x87\n"

# what a "uuid" box of a JPEG 2000 file starts with that holds the one or the other
_JP2_EXIF = b"JpgTiffExif->JP2"
_JP2_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


@dataclass(frozen=True)
class _Box:
    name: bytes
    start: int  # of what it holds
    length: int


def avif_sidecar(file: BinaryIO) -> Sidecar:
    """Return the code points of an AVIF picture, which Pillow does not hand out."""
    for box in _boxes(file, 0, file.seek(0, io.SEEK_END)):
        if box.name == b"meta" and box.length <= MAX_META:
            file.seek(box.start)
            return Sidecar(signal=_signal(file.read(box.length)))
    return Sidecar()


def jxl_sidecar(file: BinaryIO) -> Sidecar:
    """Return the XMP of a JPEG XL file, which its plugin does not hand out."""
    for box in _jxl_boxes(file):
        if box.name == b"xml " and box.length <= MAX_BOX:
            file.seek(box.start)
            return Sidecar(xmp=file.read(box.length))
    return Sidecar()


def jp2_sidecar(file: BinaryIO) -> Sidecar:
    """Return EXIF and XMP of a JPEG 2000 file, which Pillow passes over."""
    held: dict[bytes, bytes] = {}
    for box in _boxes(file, 0, file.seek(0, io.SEEK_END)):
        if box.name == b"uuid" and box.length <= MAX_BOX:
            file.seek(box.start)
            content = file.read(box.length)
            held.setdefault(content[:16], content[16:])
    return Sidecar(exif=held.get(_JP2_EXIF), xmp=held.get(_JP2_XMP))


def jxl_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height by the header of a JPEG XL file, whose plugin decodes it before one can ask."""
    file.seek(0)
    start = 0
    if file.read(2) != JXL_CODESTREAM:
        skip = {b"jxlc": 0, b"jxlp": 4}
        first = next((box for box in _jxl_boxes(file) if box.name in skip), None)
        if first is None:
            return None
        start = first.start + skip[first.name]
    file.seek(start + 2)
    bits = int.from_bytes(file.read(16), "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(small: int) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = side(small)
    ratio = take(3)
    if ratio == 0:
        return side(small), height
    over, under = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * over // under, height


def _jxl_boxes(file: BinaryIO) -> Iterator[_Box]:
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    return _boxes(file, 0, end) if file.read(12) == JXL_CONTAINER else iter(())


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[_Box]:
    """Boxes from `at` to `end`; a length that makes no sense ends the walk."""
    for _ in range(MAX_BOXES):
        if at + 8 > end:
            return
        file.seek(at)
        head = file.read(16)
        length, skip = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, skip = int.from_bytes(head[8:], "big"), 16
        elif length == 0:
            length = end - at
        if length < skip:
            return
        yield _Box(head[4:8], at + skip, min(length, end - at) - skip)
        at += length


def _signal(meta: bytes) -> Signal | None:
    """Code points that belong to the primary item."""
    file = io.BytesIO(meta)
    inside = {box.name: meta[box.start : box.start + box.length] for box in _boxes(file, 4, len(meta))}
    properties = inside.get(b"iprp", b"")
    parts = list(_boxes(io.BytesIO(properties), 0, len(properties)))
    items = inside.get(b"pitm", b"\0" * 6)
    primary = int.from_bytes(items[4 : 6 if items[0] == 0 else 8], "big")
    known: list[bytes] = []
    for container in (part for part in parts if part.name == b"ipco"):
        span = range(container.start, container.start + container.length)
        held = _boxes(io.BytesIO(properties), span.start, span.stop)
        known += [box.name + properties[box.start : box.start + box.length] for box in held]
    for part in (part for part in parts if part.name == b"ipma"):
        for index in _associations(properties[part.start : part.start + part.length], primary):
            value = known[index - 1] if 0 < index <= len(known) else b""
            if value.startswith(b"colrnclx"):
                return Signal(int.from_bytes(value[8:10], "big"), int.from_bytes(value[10:12], "big"))
    return None


def _associations(table: bytes, item: int) -> list[int]:
    """Numbers of the properties, counted from 1, that an item has."""
    wide_items, wide_indices = table[0] > 0, table[3] & 1
    at = 8
    for _ in range(int.from_bytes(table[4:8], "big")):
        size = 4 if wide_items else 2
        owner = int.from_bytes(table[at : at + size], "big")
        count = table[at + size] if at + size < len(table) else 0
        at += size + 1
        width = 2 if wide_indices else 1
        mask = 0x7FFF if wide_indices else 0x7F
        places = range(at, at + count * width, width)
        if owner == item:
            return [int.from_bytes(table[place : place + width], "big") & mask for place in places]
        at += count * width
        if at >= len(table):
            break
    return []
