"""The range decoder of docs/bitstream.md, section 2, in whole numbers of Python."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from dlf.errors import FormatError

_DAMAGED = "the coded data are damaged"


class RangeDecoder:
    """Reads symbols from a payload; endless zero bytes follow it."""

    def __init__(self, payload: bytes) -> None:
        self._data, self._at = payload, 8
        self._point = int.from_bytes(
            payload[:8].ljust(8, b"\0"), "big"
        )  # minus the lower end of the interval
        self._range = 2**64 - 1

    def symbol(self, ends: Sequence[int]) -> int:
        """Read one symbol.

        ends: sums of the frequencies before each symbol, from 0, and 2**16 at last.

        Raises:
            FormatError: the data are none that an encoder writes.
        """
        scale = self._range >> 24
        quantile = self._point // scale >> 8
        if quantile >= 2**16:
            raise FormatError(_DAMAGED)
        symbol = bisect_right(ends, quantile) - 1
        self._point -= scale * (ends[symbol] << 8)
        self._range = scale * (ends[symbol + 1] - ends[symbol] << 8)
        if self._range < 2**32:
            word = self._data[self._at : self._at + 4].ljust(4, b"\0")
            self._at += 4
            self._point = self._point << 32 | int.from_bytes(word, "big")
            self._range <<= 32
        return symbol

    def finish(self) -> None:
        """Refuse a payload that is not the shortest and lowest one of the symbols read; FormatError.

        With V for the payload and the zeros read behind it as one number, V - point is the lower end of the
        numbers that decode to the same symbols, and there are `range` of them.
        """
        unread = self._at - len(self._data)
        unit = 1 << 8 * max(unread, 0)  # worth of the payload's last byte
        lowest = unread >= 0 and self._point < unit
        if self._data and lowest:
            # a byte less would do if a multiple of the worth of the byte before lay in the interval
            above = (self._point - self._data[-1] * unit) % (256 * unit)
            lowest = above >= self._range
        if not lowest:
            msg = "the coded data are damaged, cut off or followed by something else"
            raise FormatError(msg)


def ends_of(frequency: Sequence[int]) -> list[int]:
    """Return what `RangeDecoder.symbol` takes, of a table of frequencies."""
    ends = [0]
    for each in frequency:
        ends.append(ends[-1] + each)
    return ends
