"""A file made of parts of another, which are read only when they are asked for."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO


class Excerpt(io.RawIOBase):
    """A seekable view of `parts` (offset, length) of `file`, one after the other."""

    def __init__(self, file: BinaryIO, parts: Sequence[tuple[int, int]]) -> None:
        self._file = file
        self._parts = parts
        self._starts = list(accumulate((length for _, length in parts), initial=0))
        self._at = 0

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought in: yes."""
        return True

    def tell(self) -> int:
        """Return the position in the view."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the view."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read from one part at most, as a raw file may."""
        part = bisect_right(self._starts, self._at) - 1
        if part >= len(self._parts):
            return 0
        inside = self._at - self._starts[part]
        offset, length = self._parts[part]
        self._file.seek(offset + inside)
        data = self._file.read(min(len(buffer), length - inside))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
