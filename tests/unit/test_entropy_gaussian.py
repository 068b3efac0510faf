"""Detail symbols: table choice, skipping, escapes."""

from __future__ import annotations

import numpy as np
import pytest

from dlf.entropy.coder import SymbolReader, SymbolWriter, UInt32, exchange_bits
from dlf.entropy.gaussian import MAX_SYMBOL, exchange_symbols, table_index
from dlf.entropy.tables import Tables
from dlf.errors import FormatError
from dlf.records import Int32


def transfer(symbols: list[int], index: list[int], tables: Tables) -> tuple[list[int], bytes]:
    """What arrives, after checking that the sender knows it."""
    writer = SymbolWriter()
    places = np.array(index, np.int16)
    sent = exchange_symbols(writer, np.array(symbols, np.int32), places, tables)
    assert sent.bits.sum() == pytest.approx(writer.bits)
    data = writer.finish()
    reader = SymbolReader(data)
    found = exchange_symbols(reader, np.zeros(len(symbols), np.int32), places, tables)
    reader.finish()
    np.testing.assert_array_equal(sent.symbols, found.symbols)
    np.testing.assert_array_equal(sent.bits, found.bits)
    assert reader.bits == writer.bits
    return found.symbols.tolist(), data


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
    assert found == np.where(index == 0, 0, symbols).tolist()


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
        exchange_bits(writer, "0" + "0" * zeros + "1" * 61)
        with pytest.raises(FormatError, match="too large"):
            exchange_symbols(
                SymbolReader(writer.finish()), np.zeros(1, np.int32), np.array([5], np.int16), tables
            )


def test_many_escapes_take_few_calls_of_the_coder(tables: Tables) -> None:
    """A call costs as much as a hundred bits, so a bit a call made a hostile megabyte a matter of minutes."""
    rng = np.random.default_rng(5)
    sizes = np.int32(2) ** rng.integers(5, 15, 4000) + rng.integers(0, 20, 4000)
    symbols = (sizes * rng.choice([-1, 1], 4000)).astype(np.int32)
    index = np.full(4000, 3, np.int16)
    writer = SymbolWriter()
    cost = exchange_symbols(writer, symbols, index, tables).bits.sum()
    assert cost == pytest.approx(writer.bits)
    reader, calls = SymbolReader(writer.finish()), 0
    exchange = reader.exchange

    def counted(given: Int32, frequency: UInt32) -> Int32:
        nonlocal calls
        calls += 1
        return exchange(given, frequency)

    reader.exchange = counted  # type: ignore[method-assign]
    assert (exchange_symbols(reader, np.zeros(4000, np.int32), index, tables).symbols == symbols).all()
    reader.finish()
    assert calls < 300


def test_every_symbol_tells_its_own_cost(tables: Tables) -> None:
    """Sign and Elias gamma code of an excess of 1, 2, 3 and 4 cost 2, 4, 4 and 6 bits beside the escape."""
    limit = tables.limit
    symbols = np.array([limit + 1, 0, -limit - 2, limit + 3, -limit - 4, 7], np.int32)
    index = np.array([5, 5, 9, 5, 9, 0], np.int16)
    found = exchange_symbols(SymbolWriter(), symbols, index, tables)
    escape = 16 - np.log2(tables.gaussian_frequency[:, -1])
    zero = 16 - np.log2(tables.gaussian_frequency[5, limit])
    np.testing.assert_allclose(
        found.bits, [escape[5] + 2, zero, escape[9] + 4, escape[5] + 4, escape[9] + 6, 0]
    )
    assert found.symbols.tolist() == [*symbols[:-1], 0]
