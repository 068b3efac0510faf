"""Range coder for integer symbols under integer frequencies; the only import of constriction.

Writer and reader have the same method, `exchange`: the writer takes symbols, writes them and returns
them, the reader takes an array of the same length, ignores its values and returns what it reads.  So
code that codes something is written once and works in both directions.

The stored form is canonical.  After the last symbol the coder holds an interval of numbers that all
decode to the same symbols; what is stored is the shortest byte string that, followed by endless zero
bytes, lies in that interval (the lowest if there are several).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from dlf.errors import FormatError
from dlf.records import Float64, Int32

FREQUENCY_BITS = 16

UInt32 = NDArray[np.uint32]

# constriction works with 24-bit probabilities
_MODEL_SCALE = 1 << (24 - FREQUENCY_BITS)
_WORD = 32
_STATE = 64
_BIT = np.full(2, 1 << (FREQUENCY_BITS - 1), np.uint32)
_BYTE = np.full(256, 1 << (FREQUENCY_BITS - 8), np.uint32)


@dataclass(frozen=True, eq=False)
class Exchanged:
    """Symbols that were written or read, and what they cost.

    symbols: int32, of any shape.
    bits: float64 of the same shape, information content of each in bits; 0 where not sent.
    """

    symbols: Int32
    bits: Float64


class SymbolCoder(Protocol):
    """What `SymbolWriter` and `SymbolReader` have in common."""

    @property
    def bits(self) -> float:
        """Information content of all symbols so far, in bits: the sum of -log2(frequency / 2**16)."""
        ...

    @property
    def ended(self) -> bool:
        """Whether `exchange` returns what it is given, for want of data (`dlf.entropy.cut`)."""
        ...

    def exchange(self, symbols: Int32, frequency: UInt32) -> Int32:
        """Write or read len(symbols) symbols that share one frequency table.

        symbols: int32 (n,), each in [0, len(frequency)); a reader uses only the length.
        frequency: uint32 (at least 2,), each at least 1, with sum 2**16.
        Returns the symbols written or read: int32 (n,).
        """
        ...


def exchange_bits(coder: SymbolCoder, bits: str) -> str:
    """Write or read bits with equal odds, in "0" and "1"; a reader uses only how many there are."""
    given = np.frombuffer(bits.encode("ascii"), np.uint8).astype(np.int32) - ord("0")
    return (coder.exchange(given, _BIT) + ord("0")).astype(np.uint8).tobytes().decode("ascii")


def exchange_byte(coder: SymbolCoder, byte: int) -> int:
    """Write or read a number of 0..255, all of them equally likely."""
    return int(coder.exchange(np.array([byte], np.int32), _BYTE)[0])


# tables that are kept, enough for a few models, and symbols of each at most, for it takes 20 bytes of each
_TABLES, _TABLE_SYMBOLS = 512, 2048


@dataclass(frozen=True, eq=False)
class _Table:
    """What a frequency table becomes.

    model: of constriction, with 24-bit probabilities that are exactly 256 times the frequencies.
    bits: float64, information content of each symbol.
    """

    model: Any
    bits: Float64


def information(symbols: Int32, frequency: UInt32) -> Float64:
    """Return what symbols of one table cost, in bits: float64 (n,), -log2(frequency / 2**16)."""
    bits: Float64 = FREQUENCY_BITS - np.log2(frequency[symbols])
    return bits


@dataclass(frozen=True)
class Interval:
    """The whole numbers low <= number < low + width, in units of the last of `size` bytes of a fraction."""

    low: int
    width: int
    size: int


class SymbolWriter:
    """Range encoder."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._bits = 0.0

    @property
    def bits(self) -> float:
        """Information content of all symbols so far, in bits."""
        return self._bits

    @property
    def ended(self) -> bool:
        """False: a writer has no end."""
        return False

    def exchange(self, symbols: Int32, frequency: UInt32) -> Int32:
        """Write `symbols` and return them."""
        if len(symbols):
            table = _table(frequency)
            self._encoder.encode(symbols, table.model)
            self._bits += float(table.bits[symbols].sum())
        return symbols

    def interval(self) -> Interval:
        """Return the numbers that all decode to the symbols so far."""
        state: tuple[int, tuple[int, int]] = self._encoder.pos()
        position, (lower, width) = state
        # The encoder's own ending begins with the words of low + 2**32 - 1, carries resolved; `lower`
        # has the last 64 bits of low, so both together give low in full.
        above = (1 << _WORD) - 1
        words = self._encoder.get_compressed()[: position + 1].astype(">u4").tobytes()
        low = (int.from_bytes(words, "big") << _WORD | (lower + above) & above) - above
        return Interval(low, width, _WORD // 8 * position + _STATE // 8)

    def finish(self) -> bytes:
        """Return the canonical bytes of everything written so far."""
        held = self.interval()

        def first(kept: int) -> int:
            """Return the lowest number of `kept` bytes that is at least low."""
            return -(-held.low >> 8 * (held.size - kept))

        def fits(kept: int) -> bool:
            return first(kept) << 8 * (held.size - kept) < held.low + held.width

        # with one more byte one can always say the same number, so `fits` is monotone
        kept = bisect_left(range(held.size), True, key=fits)
        return first(kept).to_bytes(kept, "big")


class SymbolReader:
    """Range decoder of bytes that `SymbolWriter.finish` made; endless zeros follow the data.

    Any data can be read for any number of symbols: what was not written under the same tables gives
    either arbitrary symbols or a `FormatError`, at the latest from `finish`.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % (_WORD // 8))
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        self._data = data
        # writing again what was read is cheap and tells whether the data are canonical
        self._echo = SymbolWriter()

    @property
    def bits(self) -> float:
        """Information content of all symbols so far, in bits."""
        return self._echo.bits

    @property
    def ended(self) -> bool:
        """False: behind the data are endless zeros."""
        return False

    def exchange(self, symbols: Int32, frequency: UInt32) -> Int32:
        """Read and return len(symbols) symbols; raises FormatError on data that nothing encodes to."""
        if not len(symbols):
            return symbols
        try:
            received: Int32 = self._decoder.decode(_table(frequency).model, len(symbols))
        except AssertionError as error:  # constriction's way to say "invalid data"
            msg = "the coded data are damaged"
            raise FormatError(msg) from error
        return self._echo.exchange(received, frequency)

    def certain_after(self) -> int | None:
        """Return how many bytes of the data settle all symbols so far, whatever bytes may follow them.

        None where only the end of the data does, as with the last symbols of all.
        """
        held = self._echo.interval()

        def settled(count: int) -> bool:
            unit = 8 * (held.size - count)
            number = int.from_bytes(self._data[:count], "big")
            return held.low <= number << unit and number + 1 << unit <= held.low + held.width

        counts = range(min(len(self._data), held.size) + 1)
        count = bisect_left(counts, True, key=settled)
        return count if count in counts else None

    def finish(self) -> None:
        """Check after the last symbol that the data were exactly these symbols and nothing else."""
        if self._echo.finish() != self._data:
            msg = "the coded data are damaged, cut off or followed by something else"
            raise FormatError(msg)


def _table(frequency: UInt32) -> _Table:
    make = _known_table if len(frequency) <= _TABLE_SYMBOLS else _made_table
    return make(frequency.tobytes())


def _made_table(frequency: bytes) -> _Table:
    """Set up the table of uint32 frequencies.

    constriction gives every symbol a weight of 1 and shares out the rest in proportion to the numbers
    it gets.  These numbers sum to just that rest, so its factor is 1 and no rounding takes place.
    """
    numbers = np.frombuffer(frequency, np.uint32)
    weights = numbers.astype(np.float64) * _MODEL_SCALE - 1
    model = constriction.stream.model.Categorical(weights, perfect=False)
    return _Table(model, information(np.arange(len(numbers), dtype=np.int32), numbers))


# to set one up takes longer than to code the few symbols that it has in a step
_known_table = lru_cache(_TABLES)(_made_table)
