"""Detail symbols: which table, which are skipped, and how large ones escape; both directions in one body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlf.entropy.coder import SymbolCoder, exchange_bit, exchange_digit
from dlf.entropy.tables import Tables
from dlf.errors import FormatError
from dlf.records import Int32

# largest magnitude of a symbol; times 16 it is still far below 2**24, where float32 stops being exact
MAX_SYMBOL = 1 << 15

_TOO_LARGE = "the coded data are damaged: a detail symbol is too large"


def table_index(scale: Int32, tables: Tables) -> NDArray[np.int16]:
    """Return the table of each scale, int16 of the same shape: the number of bounds <= scale."""
    return np.searchsorted(tables.scale_bounds, scale, side="right").astype(np.int16)


def exchange_symbols(coder: SymbolCoder, symbols: Int32, index: NDArray[np.int16], tables: Tables) -> Int32:
    """Write or read symbols, each under its own table.

    symbols: int32 (n,), each in -2**15..2**15; a reader uses only the length.
    index: int16 (n,), table of each symbol.
    Returns int32 (n,): the symbols written or read, 0 where the table's symbols are not sent.

    Symbols go table by table, within one in the given order, so that each table is set up once; the
    magnitudes of those outside -limit..limit follow after the last table.
    """
    limit = tables.limit
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(len(tables.gaussian_frequency)), side="right")
    places = np.clip(symbols[order], -limit - 1, limit + 1) + limit
    places[places < 0] = 2 * limit + 1  # both sides share the escape
    for table in range(tables.skip_below, len(ends)):
        part = slice(ends[table - 1] if table else 0, ends[table])
        places[part] = coder.exchange(places[part], tables.gaussian_frequency[table])
    places[: ends[tables.skip_below - 1] if tables.skip_below else 0] = limit
    found = np.empty_like(symbols)
    found[order] = places - limit
    for place in order[places == 2 * limit + 1]:
        if tables.escape_digit_bits:
            found[place] = _exchange_digits(coder, int(symbols[place]), limit, tables.escape_digit_bits)
        else:
            found[place] = _exchange_large(coder, int(symbols[place]), limit)
    return found


def _exchange_digits(coder: SymbolCoder, symbol: int, limit: int, bits: int) -> int:
    """Write or read one symbol beyond the limit: the number of its digits, then these, lowest first.

    The digits are those of 2 * (|symbol| - limit - 1) + (symbol < 0) to the base 2**bits.
    """
    wanted = 2 * (abs(symbol) - limit - 1) + (symbol < 0)
    count = exchange_digit(coder, -(-max(wanted, 0).bit_length() // bits), bits)
    found = sum(
        exchange_digit(coder, wanted >> bits * i & (1 << bits) - 1, bits) << bits * i for i in range(count)
    )
    magnitude = found // 2 + limit + 1
    if magnitude > MAX_SYMBOL or (count and not found >> bits * (count - 1)):
        raise FormatError(_TOO_LARGE)
    return -magnitude if found & 1 else magnitude


def _exchange_large(coder: SymbolCoder, symbol: int, limit: int) -> int:
    """Write or read one symbol beyond the limit: a sign bit, then |symbol| - limit as Elias gamma code."""
    negative = exchange_bit(coder, int(symbol < 0))
    excess = abs(symbol) - limit
    length = 0  # bits after the leading one
    while not exchange_bit(coder, int(excess >> (length + 1) == 0)):
        length += 1
        if 1 << length > MAX_SYMBOL:
            raise FormatError(_TOO_LARGE)
    found = 1
    for bit in reversed(range(length)):
        found = found << 1 | exchange_bit(coder, excess >> bit & 1)
    if found + limit > MAX_SYMBOL:
        raise FormatError(_TOO_LARGE)
    return -(found + limit) if negative else found + limit
