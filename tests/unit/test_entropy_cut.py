"""Symbols of cut data: what is called certain is what was sent, and no less is read than can be."""

from __future__ import annotations

import numpy as np
import pytest

from dlf.entropy.coder import SymbolReader, SymbolWriter, UInt32
from dlf.entropy.cut import CutReader
from dlf.entropy.gaussian import exchange_symbols
from dlf.entropy.tables import Tables, gaussian_frequencies
from dlf.errors import FormatError
from dlf.records import Int32

GIVEN = -7


def message(seed: int) -> tuple[list[tuple[Int32, UInt32]], bytes]:
    """Symbols with their tables, and their bytes."""
    random = np.random.default_rng(seed)
    writer, sent = SymbolWriter(), []
    for _ in range(12):
        size = int(random.integers(2, 40))
        weights = random.exponential(size=size) ** 4
        frequency = 1 + np.floor(weights / weights.sum() * (2**16 - size)).astype(np.uint32)
        frequency[-1] += 2**16 - frequency.sum()
        symbols = random.choice(size, 15, p=frequency / 2**16).astype(np.int32)
        writer.exchange(symbols, frequency)
        sent.append((symbols, frequency))
    return sent, writer.finish()


def read(reader: CutReader | SymbolReader, sent: list[tuple[Int32, UInt32]]) -> Int32:
    given = np.full(15, GIVEN, np.int32)
    return np.concatenate([reader.exchange(given, frequency) for _, frequency in sent])


@pytest.mark.parametrize("seed", range(6))
def test_all_that_is_certain_is_read_and_nothing_else(seed: int) -> None:
    sent, data = message(seed)
    symbols = np.concatenate([part for part, _ in sent])
    random = np.random.default_rng(seed)
    last = 0
    for length in range(len(data) + 1):
        reader = CutReader(data[:length])
        found = read(reader, sent)
        assert reader.ended == (reader.count < len(symbols))
        np.testing.assert_array_equal(found[: reader.count], symbols[: reader.count])
        assert (found[reader.count :] == GIVEN).all()
        assert reader.count >= last
        last = reader.count
        # the next symbol is open: two continuations give two of them
        ends = [np.array([fill], np.uint8).repeat(99).tobytes() for fill in (0, 255)]
        ends += [random.bytes(99) for _ in range(3)]
        nexts = set()
        for end in ends:
            try:
                other = read(SymbolReader(data[:length] + end), sent)
            except FormatError:  # behind all that any payload has
                nexts.add(-1)
                continue
            np.testing.assert_array_equal(other[: reader.count], symbols[: reader.count])
            nexts.add(int(other[reader.count]) if reader.ended else 0)
        assert len(nexts) > 1 or not reader.ended
    assert last >= len(symbols) - 40


@pytest.mark.parametrize("seed", range(6))
def test_the_reader_of_the_whole_tells_where_it_may_be_cut(seed: int) -> None:
    sent, data = message(seed)
    whole = SymbolReader(data)
    for count, (_, frequency) in enumerate(sent, 1):
        whole.exchange(np.zeros(15, np.int32), frequency)
        needed = whole.certain_after()
        if needed is None:
            assert count == len(sent)
            continue
        for length, ended in ((needed, False), (needed - 1, True)):
            reader = CutReader(data[:length])
            read(reader, sent[:count])
            assert reader.ended == ended


def test_bits_of_what_is_read_are_counted() -> None:
    sent, data = message(3)
    reader, whole = CutReader(data + b"\x55" * 9), SymbolReader(data + b"\x55" * 9)
    read(reader, sent)
    read(whole, sent)
    assert not reader.ended
    assert reader.bits == pytest.approx(whole.bits)


def test_bytes_that_may_be_something_else_settle_nothing() -> None:
    sent, data = message(4)
    for doubtful in range(1, 4):
        reader = CutReader(data + b"\x9c" * doubtful, doubtful)
        found = read(reader, sent)
        truth = np.concatenate([part for part, _ in sent])
        np.testing.assert_array_equal(found[: reader.count], truth[: reader.count])
        assert reader.count > len(truth) - 40


def test_a_limit_ends_it() -> None:
    sent, data = message(5)
    reader = CutReader(data, most=20)
    found = read(reader, sent)
    assert (reader.ended, reader.count) == (True, 20)
    assert (found[20:] == GIVEN).all()


def test_what_nothing_encodes_to_is_refused() -> None:
    sent, _ = message(0)
    with pytest.raises(FormatError, match="damaged"):
        read(CutReader(b"\xff" * 40), sent)


@pytest.fixture
def small_tables() -> Tables:
    """Tables whose limit is soon passed."""
    return Tables(
        gaussian_frequency=gaussian_frequencies(np.array([0.5, 1.0, 3.0]), 2),
        scale_bounds=np.array([1, 2], np.int32),
        token_frequency=np.full((1, 2), 2**15, np.uint32),
        token_count=np.ones(101, np.uint8),
        prior=np.zeros((101, 1), np.int16),
    )


@pytest.mark.parametrize("seed", range(3))
def test_escapes_that_are_not_complete_are_unknown(seed: int, small_tables: Tables) -> None:
    random = np.random.default_rng(seed)
    symbols = np.rint(random.standard_cauchy(80) * 4).clip(-(2**15), 2**15).astype(np.int32)
    index = random.integers(0, 3, 80).astype(np.int16)
    writer = SymbolWriter()
    sent = exchange_symbols(writer, symbols, index, small_tables).symbols
    assert (np.abs(sent) > 2).sum() > 20
    data = writer.finish()
    known = []
    for length in range(len(data) + 1):
        reader = CutReader(data[:length])
        found = exchange_symbols(reader, np.zeros(80, np.int32), index, small_tables).symbols
        assert ((found == sent) | (found == 0)).all()
        known.append(int((found == sent).sum()))
    assert known == sorted(known)
    assert known[-1] >= 79


def test_an_escape_that_cannot_be_ends_a_limited_reader(small_tables: Tables) -> None:
    writer = SymbolWriter()
    index = np.full(3, 2, np.int16)
    escape = small_tables.gaussian_frequency.shape[1] - 1
    writer.exchange(np.array([2, escape, escape], np.int32), small_tables.gaussian_frequency[2])
    writer.exchange(np.zeros(40, np.int32), np.full(2, 2**15, np.uint32))  # of digits without end
    writer.exchange(np.ones(40, np.int32), np.full(2, 2**15, np.uint32))
    reader, given = CutReader(writer.finish()), np.zeros(3, np.int32)
    with pytest.raises(FormatError, match="too large"):
        exchange_symbols(reader, given, index, small_tables)
    reader = CutReader(writer.finish(), most=reader.count - 1)
    found = exchange_symbols(reader, given, index, small_tables).symbols
    assert found.tolist() == [0, 0, 0]
    assert reader.ended
