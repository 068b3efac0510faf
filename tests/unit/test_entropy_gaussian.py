"""Detail symbols: table choice, skipping, escapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dlf.entropy.coder import SymbolReader, SymbolWriter, exchange_bit, exchange_digit
from dlf.entropy.gaussian import MAX_SYMBOL, exchange_symbols, table_index
from dlf.entropy.tables import Tables
from dlf.errors import FormatError


def transfer(symbols: list[int], index: list[int], tables: Tables) -> tuple[list[int], bytes]:
    """What arrives, after checking that the sender knows it."""
    writer = SymbolWriter()
    places = np.array(index, np.int16)
    sent = exchange_symbols(writer, np.array(symbols, np.int32), places, tables)
    data = writer.finish()
    reader = SymbolReader(data)
    found = exchange_symbols(reader, np.zeros(len(symbols), np.int32), places, tables)
    reader.finish()
    np.testing.assert_array_equal(sent, found)
    assert reader.bits == writer.bits
    return found.tolist(), data


def test_index_counts_bounds(tables: Tables) -> None:
    scale = np.array([-5, -1, 0, 1, 11, 12, 263, 264, 10**6], np.int32)
    expected = [(tables.scale_bounds <= value).sum() for value in scale]
    assert table_index(scale, tables).tolist() == expected
    assert expected[0] == 0
    assert expected[-1] == len(tables.gaussian_frequency) - 1


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_with_escapes(seed: int, tables: Tables) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 400))
    index = rng.integers(0, 24, count)
    symbols = np.rint(rng.standard_t(1, count) * 3).clip(-MAX_SYMBOL, MAX_SYMBOL).astype(int)
    found, _ = transfer(symbols.tolist(), index.tolist(), tables)
    assert found == np.where(index < tables.skip_below, 0, symbols).tolist()


def test_extreme_symbols(tables: Tables) -> None:
    limit = tables.limit
    symbols = [limit, limit + 1, -limit, -limit - 1, MAX_SYMBOL, -MAX_SYMBOL, 0]
    assert transfer(symbols, [5] * 7, tables)[0] == symbols


def test_skipped_symbols_cost_nothing(tables: Tables) -> None:
    assert transfer([3, -20, 1], [0, 0, 0], tables) == ([0, 0, 0], b"")


def test_zeros_with_small_scales_cost_next_to_nothing(tables: Tables) -> None:
    assert len(transfer([0] * 1000, [1] * 1000, tables)[1]) <= 3


def test_too_large_escapes_are_refused(tables: Tables) -> None:
    escape = np.array([2 * tables.limit + 1], np.int32)
    for zeros in (15, 16, 60):
        writer = SymbolWriter()
        writer.exchange(escape, tables.gaussian_frequency[5])
        for bit in [0] + [0] * zeros + [1] * 61:
            exchange_bit(writer, bit)
        with pytest.raises(FormatError, match="too large"):
            exchange_symbols(
                SymbolReader(writer.finish()), np.zeros(1, np.int32), np.array([5], np.int16), tables
            )


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_escapes_in_digits(bits: int, tables: Tables) -> None:
    tables = replace(tables, escape_digit_bits=bits)
    limit = tables.limit
    symbols = [limit, limit + 1, -limit - 1, limit + 2, -limit - 9, 1000, -777, MAX_SYMBOL, -MAX_SYMBOL, 0]
    assert transfer(symbols, [5] * len(symbols), tables)[0] == symbols


def test_digits_cost_what_the_format_says(tables: Tables) -> None:
    """Five digits of four bits and their number, against sixteen and fifteen bits of the other code."""
    symbol, index = 20_000, np.array([5], np.int16)
    bits = []
    for code in (4, 0):
        writer = SymbolWriter()
        exchange_symbols(writer, np.array([symbol], np.int32), index, replace(tables, escape_digit_bits=code))
        bits.append(writer.bits)
    assert bits[0] - bits[1] == pytest.approx(4 + 4 * 4 - 30)


@pytest.mark.parametrize("digits", [[2, 1, 0], [5, 15, 15, 15, 15, 15], [15] * 16])
def test_digits_that_nobody_writes_are_refused(digits: list[int], tables: Tables) -> None:
    """A leading zero, and more than a symbol can have."""
    tables = replace(tables, escape_digit_bits=4)
    writer = SymbolWriter()
    writer.exchange(np.array([2 * tables.limit + 1], np.int32), tables.gaussian_frequency[5])
    for digit in digits:
        exchange_digit(writer, digit, 4)
    reader = SymbolReader(writer.finish())
    with pytest.raises(FormatError, match="too large"):
        exchange_symbols(reader, np.zeros(1, np.int32), np.array([5], np.int16), tables)
