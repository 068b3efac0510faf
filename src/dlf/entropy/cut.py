"""Range decoder of data whose end is missing: it reads what is certain, and tells where that ends.

The missing bytes may be anything between all 0x00 and all 0xFF.  A symbol that is the same at both ends of
this span is the same for whatever is missing, because a larger number never decodes to a lower symbol.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from dlf.entropy.coder import FREQUENCY_BITS, UInt32, information
from dlf.errors import FormatError
from dlf.records import Int32

_TOTAL = 1 << FREQUENCY_BITS
_WORD_BYTES, _START_BYTES = 4, 8


class CutReader:
    """A `SymbolCoder` that reads while symbols are certain, and from then on returns what it is given.

    data: what there is of a payload.
    doubtful: how many of its last bytes may be something else, behind a payload that ends before them.
    most: symbols after which it ends, whatever follows; None is no limit.
    """

    def __init__(self, data: bytes, doubtful: int = 0, most: int | None = None) -> None:
        self._lowest, self._highest = data[: len(data) - doubtful], data
        self._at = _START_BYTES
        # both minus the lower end of the interval, as in docs/bitstream.md, section 2
        self._low = int.from_bytes(self._lowest[:_START_BYTES].ljust(_START_BYTES, b"\0"), "big")
        self._high = int.from_bytes(data[:_START_BYTES].ljust(_START_BYTES, b"\xff"), "big")
        self._range = 2 ** (8 * _START_BYTES) - 1
        self._most, self._bits = most, 0.0
        self.count = 0
        """Symbols read so far, bits of escapes included."""
        self.ended = False

    @property
    def bits(self) -> float:
        """Information content of the symbols read so far, in bits."""
        return self._bits

    def exchange(self, symbols: Int32, frequency: UInt32) -> Int32:
        """Read what is certain of len(symbols) symbols; the others are those given.

        Raises:
            FormatError: nothing encodes to these data, however they go on.
        """
        if not len(symbols) or self.ended:
            return symbols
        received, count = symbols.copy(), 0
        ends = np.cumsum(frequency, dtype=np.int64).tolist()
        sizes = frequency.tolist()
        while count < len(symbols) and not self.ended:
            symbol = None if self.count == self._most else self._symbol(ends)
            if symbol is None:
                self.ended = True
                break
            self._narrow(ends[symbol] - sizes[symbol], sizes[symbol])
            received[count] = symbol
            count += 1
            self.count += 1
        self._bits += float(information(received[:count], frequency).sum())
        return received

    def _symbol(self, ends: list[int]) -> int | None:
        """Return the next symbol, None if it is uncertain; ends: sums of the frequencies up to each."""
        scale = self._range >> 24
        low, high = self._low // scale >> 8, self._high // scale >> 8
        if low >= _TOTAL:
            msg = "the coded data are damaged"
            raise FormatError(msg)
        symbol = bisect_right(ends, low)
        # no payload lies at `_TOTAL` or above
        return symbol if high < ends[symbol] or symbol == len(ends) - 1 else None

    def _narrow(self, below: int, size: int) -> None:
        """Take the interval of a symbol.  below: sum of the frequencies before its own, which is size."""
        scale = self._range >> 24
        self._low -= scale * (below << 8)
        self._high -= scale * (below << 8)
        self._range = scale * (size << 8)
        if self._range < 1 << 8 * _WORD_BYTES:
            word = slice(self._at, self._at + _WORD_BYTES)
            self._at += _WORD_BYTES
            low = int.from_bytes(self._lowest[word].ljust(_WORD_BYTES, b"\0"), "big")
            high = int.from_bytes(self._highest[word].ljust(_WORD_BYTES, b"\xff"), "big")
            self._low = self._low << 8 * _WORD_BYTES | low
            self._high = self._high << 8 * _WORD_BYTES | high
            self._range <<= 8 * _WORD_BYTES
