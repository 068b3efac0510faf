"""Detail symbols: which table, which are not sent, and how large ones escape; both directions in one body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlf.entropy.coder import Exchanged, SymbolCoder, exchange_bit, information
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
    bits = np.zeros(len(symbols))
    for table in range(UNSENT, len(ends)):
        part = slice(ends[table - 1], ends[table])
        frequency = tables.gaussian_frequency[table]
        entries[part] = coder.exchange(entries[part], frequency)
        bits[order[part]] = information(entries[part], frequency)
    exchanged = np.empty_like(symbols)
    exchanged[order] = entries - limit
    for place in order[entries == 2 * limit + 1]:
        before = coder.bits
        large = _exchange_large(coder, int(symbols[place]), limit)
        exchanged[place] = symbols[place] if coder.ended else large
        bits[place] += coder.bits - before
    return Exchanged(exchanged, bits)


def _exchange_large(coder: SymbolCoder, symbol: int, limit: int) -> int:
    """Write or read one symbol beyond the limit: a sign bit, then |symbol| - limit as Elias gamma code."""
    negative = exchange_bit(coder, int(symbol < 0))
    excess = max(1, abs(symbol) - limit)  # less is nothing that a sender has
    length = 0  # bits after the leading one
    while not exchange_bit(coder, int(excess >> (length + 1) == 0)):
        length += 1
        if 1 << length > MAX_SYMBOL:
            raise FormatError(_TOO_LARGE)
    received = 1
    for bit in reversed(range(length)):
        received = received << 1 | exchange_bit(coder, excess >> bit & 1)
    if received + limit > MAX_SYMBOL and not coder.ended:
        raise FormatError(_TOO_LARGE)
    return -(received + limit) if negative else received + limit
