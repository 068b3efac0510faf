"""Files that were cut off behind the last pixel: the same file with an end, if the picture is all there."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from PIL import Image

Opener = Callable[[BinaryIO], Image.Image]

MAX_BYTES = 2**30
"""Files above 1 GiB are not mended, for that takes them into memory."""

JPEG_END = b"\xff\xd9"
FILLERS = (b"\x00" * 64, b"\x5a" * 64)
"""Two ways to go on where a file ends.  A decoder that still needs bits makes two pictures of them."""


def with_end(file: BinaryIO, kind: str, opener: Opener) -> Image.Image | None:
    """Decode a file that was cut off; None if pixels are missing, or nobody can know.

    kind: Pillow's name of the format.  opener: as `Image.open`.
    """
    if file.seek(0, io.SEEK_END) > MAX_BYTES:
        return None
    file.seek(0)
    data = file.read()
    try:
        if kind in ("JPEG", "MPO"):
            return _jpeg(data.rstrip(b"\xff"), opener)
        if kind == "JPEG2000":
            return _loaded(data.rstrip(b"\xff") + JPEG_END, opener)  # its decoder is strict about pixels
    except (OSError, SyntaxError, ValueError, IndexError):
        return None
    return None


def webp_with_end(file: BinaryIO) -> BinaryIO | None:
    """Leave out the incomplete last chunk of a WebP file that was cut off; None if that holds pixels."""
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(8)
    if end >= 8 + int.from_bytes(head[4:], "little") or end > MAX_BYTES:
        return None
    data = head + file.read()
    at, pixels = 12, False
    while at + 8 <= len(data):
        name, length = struct.unpack("<4sI", data[at : at + 8])
        if at + 8 + length > len(data):
            break
        pixels |= name in (b"VP8 ", b"VP8L", b"ANMF")
        at += 8 + length + length % 2
    if not pixels:
        return None
    kept = data[12:at].ljust(at - 12, b"\0")
    return io.BytesIO(b"RIFF" + struct.pack("<I", 4 + len(kept)) + b"WEBP" + kept)


def _loaded(data: bytes, opener: Opener) -> Image.Image:
    image = opener(io.BytesIO(data))
    image.load()
    return image


def _jpeg(data: bytes, opener: Opener) -> Image.Image | None:
    """Complete is what looks the same however it goes on, and has no scan to come."""
    if not _scans_are_complete(data):
        return None
    image, other = (_loaded(data + filler + JPEG_END, opener) for filler in FILLERS)
    return image if np.array_equal(np.asarray(image), np.asarray(other)) else None


def _scans_are_complete(data: bytes) -> bool:
    """Whether all bits of all coefficients of a progressive JPEG are announced; True for other kinds."""
    at, progressive, open_bands = 2, False, set[tuple[int, int]]()
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker in (0xC2, 0xCA):
            progressive = True
            open_bands = {(part, band) for part in body[6::3] for band in range(64)}
        elif marker == 0xDA and progressive and body[-1] & 0x0F == 0:
            parts = body[1 : 1 + 2 * body[0] : 2]
            open_bands -= {(part, band) for part in parts for band in range(body[-3], body[-2] + 1)}
        at += 2 + length
    return not open_bands
