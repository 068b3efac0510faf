"""Detail symbols: which table, which are not sent, and how large ones escape; both directions in one body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlf.entropy.coder import Exchanged, SymbolCoder, exchange_bits
from dlf.entropy.tables import UNSENT, Tables
from dlf.errors import FormatError
from dlf.records import Int32

# largest magnitude of a symbol; times 16 it is still far below 2**24, where float32 stops being exact
MAX_SYMBOL = 1 << 15

_TOO_LARGE = "the coded data are damaged: a detail symbol is too large"


def table_index(scale: Int32, tables: Tables) -> NDArray[np.int16]:
    """Return the table of each scale, int16 of the same shape: the number of bounds <= scale."""
    return np.searchsorted(tables.scale_bounds, scale, side="right").astype(np.int16)


def exchange_symbols(
    coder: SymbolCoder, symbols: Int32, index: NDArray[np.int16], tables: Tables
) -> Exchanged:
    """Write or read symbols, each under its own table.

    symbols: int32 (n,), each in -2**15..2**15; a reader uses only the length.
    index: int16 (n,), table of each symbol; those of the first table are not sent.
    Returns (n,): the symbols written or read, 0 where not sent.

    Symbols go table by table, within one in the given order, so that each table is set up once; the
    magnitudes of those outside -limit..limit follow after the last table.

    Raises:
        FormatError: a reader met a magnitude above 2**15, or data that nothing encodes to.
    """
    limit = tables.limit
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(len(tables.gaussian_frequency)), side="right")
    entries = np.clip(symbols[order], -limit - 1, limit + 1) + limit
    entries[entries < 0] = 2 * limit + 1  # both signs share the escape
    entries[: ends[UNSENT - 1]] = limit
    for table in (UNSENT + np.flatnonzero(np.diff(ends[UNSENT - 1 :]))).tolist():
        part = slice(ends[table - 1], ends[table])
        entries[part] = coder.exchange(entries[part], tables.gaussian_frequency[table])
    bits = np.zeros(len(symbols))
    sent = order[ends[UNSENT - 1] :]
    bits[sent] = tables.gaussian_bits[index[sent], entries[ends[UNSENT - 1] :]]
    exchanged = np.empty_like(symbols)
    exchanged[order] = entries - limit
    large = order[entries == 2 * limit + 1]
    exchanged[large] = _exchange_large(coder, symbols[large], limit)
    bits[large] += 2 * np.frexp(np.abs(exchanged[large]) - limit)[1]  # twice the binary digits of the excess
    return Exchanged(exchanged, bits)


def _exchange_large(coder: SymbolCoder, symbols: Int32, limit: int) -> list[int]:
    """Write or read symbols beyond the limit, each a sign bit, then |symbol| - limit as Elias gamma code.

    As many bits are exchanged at once as there must be at least, for a call of the coder costs as much as
    hundreds of them.  Where a reader has `ended`, symbols that are not complete are those given.
    """
    sent = "".join(_large_code(symbol, limit) for symbol in symbols.tolist())
    coded, start = "", 0
    received: list[int] = []
    while len(received) < len(symbols):
        one = coded.find("1", start + 1)
        if one < 0:
            one = max(start + 1, len(coded))  # at the earliest
        length = one - start - 1  # digits after the leading one
        end = one + 1 + length
        size = limit + int(coded[one:end] or "1", 2)
        if 1 << length > MAX_SYMBOL or (end <= len(coded) and size > MAX_SYMBOL):
            if coder.ended:
                break
            raise FormatError(_TOO_LARGE)
        if end > len(coded):
            if coder.ended:
                break
            least = end + len(_large_code(limit + 1, limit)) * (len(symbols) - len(received) - 1)
            before = coder.bits
            more = exchange_bits(coder, sent[len(coded) : least].ljust(least - len(coded), "0"))
            coded += more[: round(coder.bits - before)]  # all, unless the reader ended: each costs one bit
            continue
        received.append(-size if coded[start] == "1" else size)
        start = end
    given: list[int] = symbols[len(received) :].tolist()
    return received + given


def _large_code(symbol: int, limit: int) -> str:
    """Return a symbol's sign and gamma code in "0" and "1"; within the limit as if it were just beyond."""
    digits = f"{max(abs(symbol) - limit, 1):b}"
    return f"{int(symbol < 0)}{'0' * (len(digits) - 1)}{digits}"
