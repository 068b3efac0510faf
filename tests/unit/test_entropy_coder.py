"""The range coder: round trips, the shortest form, a second decoder, damaged data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dlf.entropy.coder import SymbolReader, SymbolWriter, exchange_bits
from dlf.errors import FormatError

Call = tuple[NDArray[np.int32], NDArray[np.uint32]]


def random_frequency(rng: np.random.Generator, size: int) -> NDArray[np.uint32]:
    shares = rng.dirichlet(np.full(size, rng.choice([0.01, 0.3, 5.0])))
    frequency = 1 + np.floor(shares * (2**16 - size)).astype(np.uint32)
    frequency[rng.integers(size)] += 2**16 - int(frequency.sum())
    return frequency


def random_calls(seed: int) -> list[Call]:
    """Symbols that follow their tables, or the least likely ones only."""
    rng = np.random.default_rng(seed)
    calls = []
    for _ in range(rng.integers(0, 8)):
        frequency = random_frequency(rng, int(rng.integers(2, 300)))
        count = int(rng.integers(0, 60))
        if seed % 5 == 0:
            symbols = np.full(count, rng.choice([0, frequency.argmin(), len(frequency) - 1]))
        else:
            symbols = rng.choice(len(frequency), size=count, p=frequency / 2**16)
        calls.append((symbols.astype(np.int32), frequency))
    return calls


def write(calls: list[Call]) -> SymbolWriter:
    writer = SymbolWriter()
    for symbols, frequency in calls:
        assert writer.exchange(symbols, frequency) is symbols
    return writer


def read(data: bytes, calls: list[Call]) -> SymbolReader:
    reader = SymbolReader(data)
    for symbols, frequency in calls:
        found = reader.exchange(np.zeros_like(symbols), frequency)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, symbols)
    return reader


@pytest.mark.parametrize("seed", range(60))
def test_round_trip_is_exact_and_close_to_the_information(seed: int) -> None:
    calls = random_calls(seed)
    writer = write(calls)
    data = writer.finish()
    reader = read(data, calls)
    reader.finish()
    assert reader.bits == writer.bits
    if seed % 5:  # a row of first symbols ends in zeros, which are not stored
        assert len(data) >= writer.bits / 8 - 1
    assert len(data) <= writer.bits / 8 * 1.001 + 1.1


def test_nothing_takes_no_bytes() -> None:
    assert SymbolWriter().finish() == b""
    SymbolReader(b"").finish()
    with pytest.raises(FormatError):
        SymbolReader(b"\0").finish()


@pytest.mark.parametrize("seed", range(1, 40))
def test_no_shorter_data_gives_the_symbols(seed: int) -> None:
    calls = random_calls(seed)
    data = write(calls).finish()
    if not data:
        return
    value = int.from_bytes(data, "big")
    for other in (value >> 8, (value >> 8) + 1):
        if other >= 256 ** (len(data) - 1):
            continue
        with pytest.raises((AssertionError, FormatError)):
            read(other.to_bytes(len(data) - 1, "big"), calls)


@pytest.mark.parametrize("seed", range(1, 20))
def test_finish_refuses_what_is_not_canonical(seed: int) -> None:
    calls = random_calls(seed)
    reader = read(write(calls).finish() + b"\0", calls)
    with pytest.raises(FormatError):
        reader.finish()


def decode_by_the_book(data: bytes, calls: list[Call]) -> list[list[int]]:
    """The decoder as the format's description has it: integers only, nothing of ours or constriction's."""
    words = [int.from_bytes(data[at : at + 4].ljust(4, b"\0"), "big") for at in range(0, len(data), 4)]
    words.reverse()

    def word() -> int:
        return words.pop() if words else 0

    span = 2**64 - 1
    offset = word() << 32 | word()
    found = []
    for symbols, frequency in calls:
        starts = np.concatenate([[0], np.cumsum(frequency)]) * 256
        found.append([])
        for _ in symbols:
            unit = span >> 24
            symbol = int(np.searchsorted(starts, offset // unit, side="right")) - 1
            offset -= unit * int(starts[symbol])
            span = unit * int(starts[symbol + 1] - starts[symbol])
            if span < 2**32:
                span, offset = span << 32, offset << 32 | word()
            found[-1].append(symbol)
    return found


@pytest.mark.parametrize("seed", range(30))
def test_a_decoder_written_from_the_description_agrees(seed: int) -> None:
    calls = random_calls(seed)
    assert decode_by_the_book(write(calls).finish(), calls) == [symbols.tolist() for symbols, _ in calls]


@pytest.mark.parametrize("seed", range(30))
def test_any_data_gives_symbols_or_a_format_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    calls = random_calls(seed + 1000)
    for data in (rng.bytes(int(rng.integers(0, 40))), b"\xff" * 16, b""):
        reader = SymbolReader(data)
        try:
            for symbols, frequency in calls:
                found = reader.exchange(symbols, frequency)
                assert len(found) == len(symbols)
                assert ((found >= 0) & (found < len(frequency))).all()
            reader.finish()
        except FormatError:
            continue
        assert data == b"" or len(data) <= reader.bits / 8 + 2


def test_bits_cost_one_bit() -> None:
    writer = SymbolWriter()
    assert exchange_bits(writer, "1011") == "1011"
    assert writer.bits == 4
    reader = SymbolReader(writer.finish())
    assert exchange_bits(reader, "00") + exchange_bits(reader, "00") == "1011"
    assert writer.finish() == b"\xb0"


def test_golden_words(check_golden: Callable[[str, bytes], None]) -> None:
    """Guards the stream against changes in the range coder."""
    at = np.arange(2000)
    frequency = np.array([60000, 3000, 1500, 700, 300, 36], np.uint32)
    symbols = (at * at // 7 % 6 * (at % 11 == 0)).astype(np.int32)
    check_golden("coder.bin", write([(symbols, frequency), (symbols[:50], frequency)]).finish())
