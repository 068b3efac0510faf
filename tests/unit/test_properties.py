"""Round trips of whatever can be written, and typed errors for whatever else is read."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from dataclasses import fields, replace

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from dlf.bitstream import container, metadata, varint
from dlf.bitstream.header import Header
from dlf.bitstream.spec import DPI_UNITS
from dlf.entropy.coder import SymbolReader, SymbolWriter
from dlf.entropy.gaussian import MAX_SYMBOL, exchange_symbols, table_index
from dlf.entropy.tables import TOTAL, Tables
from dlf.errors import BundleError, FormatError, LimitExceeded
from dlf.limits import MAX_PADDING, MAX_PIXELS, MAX_SIDE
from dlf.records import Metadata

# the same examples on every machine, and none kept on disk
quick = settings(derandomize=True, max_examples=60, deadline=None, database=None)

numerics = st.binary(min_size=32, max_size=32).map(bytes.hex)
part = st.none() | st.binary(min_size=1, max_size=60)
dots = st.floats(min_value=0, exclude_min=True, max_value=1e9)
dpi = st.none() | st.tuples(dots, dots)
blobs = (
    st.builds(Metadata, part, part, part, dpi)
    .filter(lambda found: found != Metadata())
    .map(metadata.pack)
)  # fmt: skip


@st.composite
def headers(draw: st.DrawFn, *, has_metadata: bool) -> Header:
    width = draw(st.integers(1, MAX_SIDE))
    height = draw(st.integers(1, min(MAX_SIDE, MAX_PIXELS // width)))
    return Header(draw(st.integers(0, 2**35 - 1)), draw(st.integers(0, 100)), width, height, has_metadata)


@st.composite
def streams(draw: st.DrawFn) -> tuple[container.Stream, str]:
    """A stream, and the numerics that it is sealed with."""
    blob = draw(st.just(b"") | blobs)
    header, of = draw(headers(has_metadata=bool(blob))), draw(numerics)
    return container.seal(header, draw(st.binary(max_size=80)), of, blob), of


@st.composite
def frequencies(draw: st.DrawFn, sizes: st.SearchStrategy[int]) -> NDArray[np.uint32]:
    """A table of integers above 0 whose sum is 2**16, from even to one of them having nearly all."""
    size = draw(sizes)
    weights = draw(st_numpy.arrays(np.int64, size, elements=st.integers(0, 1000), fill=st.just(0)))
    table = 1 + weights * (TOTAL - size) // max(int(weights.sum()), 1)
    table[draw(st.integers(0, size - 1))] += TOTAL - table.sum()
    return table.astype(np.uint32)


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    scales, limit = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    codes, tokens = draw(st.integers(2, 9)), draw(st.integers(1, 4))
    bounds = draw(st.sets(st.integers(-(2**31), 2**31 - 1), min_size=scales - 1, max_size=scales - 1))
    counts = draw(st.lists(st.integers(1, tokens), min_size=101, max_size=101))
    return Tables(
        gaussian_frequency=np.stack([draw(frequencies(st.just(2 * limit + 2))) for _ in range(scales)]),
        scale_bounds=np.array(sorted(bounds), np.int32),
        token_frequency=np.stack([draw(frequencies(st.just(codes))) for _ in range(tokens)]),
        token_count=np.array(sorted(counts), np.uint8),
        prior=np.zeros((101, draw(st.integers(1, 3))), np.int16),
        mean_unit=draw(st.integers(1, 2**14)),
        step_unit=draw(st.integers(1, 2**20)),
        padding=32 * draw(st.integers(1, MAX_PADDING // 32)),
        symbol_sum=draw(st.integers(0, 1)),
        token_prior=draw(st.integers(0, 1)),
    )


@quick
@given(streams(), numerics)
def test_any_stream_comes_back_and_fits_its_model_alone(
    sealed: tuple[container.Stream, str], other: str
) -> None:
    stream, of = sealed
    data = container.dump(stream)
    again = container.load(data)
    assert again == stream
    assert container.dump(again) == data
    assert container.fits(again, of)
    assume(zlib.crc32(bytes.fromhex(of)) != zlib.crc32(bytes.fromhex(other)))
    assert not container.fits(again, other)


@quick
@given(streams(), st.data())
def test_a_changed_file_is_refused_or_does_not_fit(
    sealed: tuple[container.Stream, str], data: st.DataObject
) -> None:
    file = bytearray(container.dump(sealed[0]))
    start = data.draw(st.integers(0, len(file) - 1))
    before, length = bytes(file), data.draw(st.integers(0, 4))
    file[start : start + length] = data.draw(st.binary(max_size=4))
    assume(file != before)
    with suppress(FormatError, LimitExceeded):
        assert not container.fits(container.load(bytes(file)), sealed[1])


@settings(quick, max_examples=200)
@given(st.sampled_from([b"", b"DLF", b"DLF\x10", b"DLF\x11\x01\x32\x01\x01"]), st.binary(max_size=40))
def test_any_bytes_are_a_stream_or_a_typed_error(start: bytes, rest: bytes) -> None:
    try:
        stream = container.load(start + rest)
    except (FormatError, LimitExceeded):
        return
    assert container.dump(stream) == start + rest


@quick
@given(st.builds(Metadata, part, part, part, dpi).filter(lambda found: found != Metadata()))
def test_any_metadata_comes_back(given_parts: Metadata) -> None:
    """The resolution in whole thousandths, between what a number of 32 bits can say."""
    again = metadata.unpack(metadata.pack(given_parts))
    assert replace(again, dpi=None) == replace(given_parts, dpi=None)
    if given_parts.dpi is None:
        assert again.dpi is None
    else:
        limits = 1 / DPI_UNITS, (2**32 - 1) / DPI_UNITS
        assert again.dpi == pytest.approx(np.clip(given_parts.dpi, *limits), abs=0.5 / DPI_UNITS)


@quick
@given(st.binary(max_size=40))
def test_any_metadata_is_read_or_a_format_error(raw: bytes) -> None:
    for blob in (raw, zlib.compress(raw)):
        try:
            found = metadata.unpack(blob)
        except FormatError:
            continue
        assert metadata.unpack(metadata.pack(found)) == found


@quick
@given(st.integers(0, varint.MAX_VALUE), st.binary(max_size=3), st.binary(max_size=3))
def test_any_number_comes_back(value: int, before: bytes, after: bytes) -> None:
    packed = varint.pack(value)
    assert varint.unpack(before + packed + after, len(before)) == (value, len(before + packed))


@quick
@given(
    st.lists(
        st.tuples(frequencies(st.integers(2, 40)), st.lists(st.integers(0, 39), max_size=30)), max_size=5
    )
)
def test_any_symbols_under_any_tables_come_back(calls: list[tuple[NDArray[np.uint32], list[int]]]) -> None:
    writer = SymbolWriter()
    written = [np.array(symbols, np.int32) % len(table) for table, symbols in calls]
    for (table, _), symbols in zip(calls, written, strict=True):
        writer.exchange(symbols, table)
    reader = SymbolReader(writer.finish())
    for (table, _), symbols in zip(calls, written, strict=True):
        np.testing.assert_array_equal(reader.exchange(np.zeros_like(symbols), table), symbols)
    reader.finish()
    assert reader.bits == writer.bits


@quick
@given(st.binary(max_size=20), st.lists(frequencies(st.integers(2, 40)), max_size=4), st.integers(1, 20))
def test_any_bytes_are_symbols_or_a_format_error(
    data: bytes, calls: list[NDArray[np.uint32]], count: int
) -> None:
    reader = SymbolReader(data)
    try:
        for table in calls:
            symbols = reader.exchange(np.zeros(count, np.int32), table)
            assert ((symbols >= 0) & (symbols < len(table))).all()
        reader.finish()
    except FormatError:
        return
    writer, again = SymbolWriter(), SymbolReader(data)
    for table in calls:
        writer.exchange(again.exchange(np.zeros(count, np.int32), table), table)
    assert writer.finish() == data


symbols_of = st.sampled_from([0, 1, -1, 7, -40, MAX_SYMBOL, -MAX_SYMBOL]) | st.integers(
    -MAX_SYMBOL, MAX_SYMBOL
)


@quick
@given(tables(), st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), symbols_of), max_size=30))
def test_any_details_under_any_tables_come_back(of: Tables, details: list[tuple[int, int]]) -> None:
    scale, symbols = (np.array(column, np.int32) for column in np.array(details).reshape(-1, 2).T)
    index = table_index(scale, of)
    writer = SymbolWriter()
    sent = exchange_symbols(writer, symbols, index, of)
    np.testing.assert_array_equal(sent.symbols, np.where(index == 0, 0, symbols))
    assert sent.bits.sum() == pytest.approx(writer.bits)
    reader = SymbolReader(writer.finish())
    received = exchange_symbols(reader, np.zeros_like(symbols), index, of)
    reader.finish()
    np.testing.assert_array_equal(received.symbols, sent.symbols)
    np.testing.assert_array_equal(received.bits, sent.bits)


def to_npz(of: Tables) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **{field.name: np.array(getattr(of, field.name)) for field in fields(Tables)})
    return file.getvalue()


def assert_same(one: Tables, other: Tables) -> None:
    for field in fields(Tables):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@quick
@given(tables())
def test_any_tables_come_back(of: Tables) -> None:
    assert_same(Tables.load(to_npz(of)), of)


@quick
@given(tables(), st.binary(max_size=60), st.floats(0, 1), st.booleans())
def test_damaged_tables_are_the_same_or_a_bundle_error(
    of: Tables, damage: bytes, where: float, keep: bool
) -> None:
    good = to_npz(of)
    start = int(where * len(good))
    try:
        again = Tables.load(good[:start] + damage + (good[start + len(damage) :] if keep else b""))
    except BundleError:
        return
    assert_same(again, of)
