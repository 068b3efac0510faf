"""The XMP of a GIF file, which Pillow passes over."""

from __future__ import annotations

import io
from typing import BinaryIO

from dlf.imageio.sidecar import Sidecar

MAGIC = (b"GIF87a", b"GIF89a")
MAX_XMP = 2**24
"""Limit of an XMP packet that is read: 16 MiB."""

MAX_BLOCKS = 2**12
"""Limit of the blocks that are walked: extensions and frames."""

_EXTENSION, _FRAME, _APPLICATION = 0x21, 0x2C, 0xFF
_XMP = b"\x0bXMP DataXMP"
# The packet is no chain of sub-blocks.  These bytes behind it lead whoever takes it for one to its end.
_TRAILER = bytes([1, *range(255, -1, -1), 0])


def sidecar(file: BinaryIO) -> Sidecar:
    """Walk over the blocks of a GIF file up to its XMP."""
    size = file.seek(0, io.SEEK_END)
    file.seek(10)
    _skip_colours(file)
    for _ in range(MAX_BLOCKS):
        kind = _byte(file)
        if kind == _EXTENSION and _byte(file) == _APPLICATION:
            start = file.tell()
            if file.read(len(_XMP)) == _XMP:
                packet, found, _ = file.read(min(size, MAX_XMP)).partition(_TRAILER)
                return Sidecar(xmp=packet if found else None)
            file.seek(start)
        elif kind == _FRAME:
            file.seek(8, io.SEEK_CUR)
            _skip_colours(file, rest=1)  # behind the colours: how wide the codes are
        elif kind != _EXTENSION:
            break
        while length := _byte(file):
            file.seek(length, io.SEEK_CUR)
    return Sidecar()


def _skip_colours(file: BinaryIO, rest: int = 2) -> None:
    """Read the byte that tells how many colours follow, and go behind them and `rest` bytes more."""
    flags = _byte(file)
    file.seek(rest + (3 << (flags & 7) + 1 if flags & 0x80 else 0), io.SEEK_CUR)


def _byte(file: BinaryIO) -> int:
    """Return the next byte; 0 behind the end, which ends every walk."""
    return (file.read(1) or b"\0")[0]
