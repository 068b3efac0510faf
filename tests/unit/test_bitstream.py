"""The container: exact bytes, round trips, and everything that must be refused."""

from __future__ import annotations

import zlib

import pytest

from dlf.bitstream import container, metadata, varint
from dlf.bitstream.container import Stream
from dlf.bitstream.header import Header
from dlf.bitstream.spec import MAX_METADATA_BYTES
from dlf.errors import FormatError, LimitExceeded, UnsupportedVersion
from dlf.records import Metadata

HEADER = Header(model=1, quality=50, width=768, height=512)
PAYLOAD = bytes(range(1, 40))
NUMERICS = "0123456789abcdef" * 4
STREAM = container.seal(HEADER, PAYLOAD, NUMERICS)
EXAMPLE = container.dump(STREAM)


def sealed(body: bytes) -> bytes:
    """The body and its checksum: the CRC-32 of the model's numerics and the body."""
    return body + zlib.crc32(bytes.fromhex(NUMERICS) + body).to_bytes(4, "little")


def good(data: bytes) -> bool:
    """Whether a file is taken for undamaged; any other refusal than those promised fails the test."""
    try:
        return container.fits(container.load(data), NUMERICS)
    except (FormatError, LimitExceeded):
        return False


def with_metadata(blob: bytes) -> bytes:
    return sealed(b"DLF\x11\x01\x32\x80\x06\x80\x04" + varint.pack(len(blob)) + blob + PAYLOAD)


def test_exact_bytes() -> None:
    body = bytes.fromhex("444c46 10 01 32 8006 8004") + PAYLOAD
    assert sealed(body) == EXAMPLE


def test_header_of_a_photo_fits_14_bytes() -> None:
    largest = Header(model=127, quality=100, width=16383, height=16383)
    assert len(container.dump(container.seal(largest, b"", NUMERICS))) == 14


def test_round_trip() -> None:
    assert container.load(EXAMPLE) == STREAM
    assert b"".join(data for _, data in container.parts(container.load(EXAMPLE))) == EXAMPLE


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 65536), (65536, 512), (8192, 4096)])
def test_sizes_at_the_limits(width: int, height: int) -> None:
    stream = container.seal(Header(0, 0, width, height), b"", NUMERICS)
    assert container.load(container.dump(stream)) == stream


def test_metadata_round_trip() -> None:
    meta = Metadata(icc=b"profile" * 50, xmp=b"<x/>")
    header = Header(1, 0, 3, 4, has_metadata=True)
    stream = container.seal(header, PAYLOAD, NUMERICS, metadata.pack(meta))
    found = container.load(container.dump(stream))
    assert found == stream
    assert found.metadata == meta
    assert dict(container.parts(found))["metadata"][1:] == stream.blob


@pytest.mark.parametrize("length", range(len(EXAMPLE)))
def test_truncated(length: int) -> None:
    assert not good(EXAMPLE[:length])


@pytest.mark.parametrize("bit", range(8 * len(EXAMPLE)))
def test_flipped_bit(bit: int) -> None:
    damaged = bytearray(EXAMPLE)
    damaged[bit // 8] ^= 1 << bit % 8
    assert not good(bytes(damaged))


def test_trailing_byte() -> None:
    assert not good(EXAMPLE + b"\0")


def test_the_checksum_tells_models_apart() -> None:
    assert good(EXAMPLE)
    for digit in range(64):
        other = NUMERICS[:digit] + "f" * (NUMERICS[digit] != "f") + NUMERICS[digit + 1 :] + "0"
        assert not container.fits(STREAM, other[:64])
    assert container.seal(HEADER, PAYLOAD, NUMERICS[::-1]) != STREAM


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"\xff\xd8\xff\xe0 a JPEG", FormatError, "not a .dlf file"),
        (b"DLF\x20\x01\x32\x01\x01", UnsupportedVersion, "version 2"),
        (b"DLF\x00\x01\x32\x01\x01", UnsupportedVersion, "version 0"),
        (b"DLF\x14\x01\x32\x01\x01", UnsupportedVersion, "features"),
        (b"DLF\x13\x01\x32\x01\x01", UnsupportedVersion, "features"),
        (b"DLF\x12\x01\x32\x01\x01", FormatError, "packets"),
        (b"DLF\x10\x01\x65\x01\x01", FormatError, "quality is 101"),
        (b"DLF\x10\x01\x32\x00\x01", FormatError, "0x1"),
        (b"DLF\x10\x01\x32\x01\x00", FormatError, "1x0"),
        (b"DLF\x10\x81\x00\x32\x01\x01", FormatError, "more bytes than it needs"),
        (b"DLF\x10\x01\x32\x80\x80\x80\x80\x80\x01\x01", FormatError, "more than 5 bytes"),
        (b"DLF\x10\x01\x32" + varint.pack(100_000) * 2, LimitExceeded, "100000x100000"),
        (b"DLF\x10\x01\x32" + varint.pack(65_537) + b"\x01", LimitExceeded, "side"),
        (b"DLF\x10\x01\x32" + varint.pack(5793) * 2, LimitExceeded, "33,554,432"),
    ],
)
def test_refused_header(body: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        container.load(sealed(body))


def test_limit_is_the_callers() -> None:
    with pytest.raises(LimitExceeded):
        container.load(EXAMPLE, max_pixels=768 * 512 - 1)
    container.load(EXAMPLE, max_pixels=768 * 512)


GOOD = b"\x01\x02ab\x03\x01c"


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (b"", FormatError),
        (b"not zlib", FormatError),
        (zlib.compress(b""), FormatError),
        (zlib.compress(GOOD)[:-1], FormatError),
        (zlib.compress(GOOD) + b"\0", FormatError),
        (zlib.compress(b"\x04\x01a"), FormatError),
        (zlib.compress(b"\x00\x01a"), FormatError),
        (zlib.compress(b"\x01\x00"), FormatError),
        (zlib.compress(b"\x01\x02a"), FormatError),
        (zlib.compress(b"\x01"), FormatError),
        (zlib.compress(b"\x01\x01a\x01\x01a"), FormatError),
        (zlib.compress(b"\x03\x01a\x01\x01a"), FormatError),
        (zlib.compress(bytes(MAX_METADATA_BYTES + 1)), LimitExceeded),
    ],
)
def test_refused_metadata(blob: bytes, error: type[Exception]) -> None:
    assert container.load(with_metadata(zlib.compress(GOOD))).metadata == Metadata(icc=b"ab", xmp=b"c")
    with pytest.raises(error):
        container.load(with_metadata(blob))


def test_metadata_longer_than_the_file() -> None:
    with pytest.raises(FormatError, match="beyond the end"):
        container.load(sealed(b"DLF\x11\x01\x32\x01\x01\x7f" + zlib.compress(GOOD)))


def test_too_much_metadata_is_not_written() -> None:
    with pytest.raises(LimitExceeded):
        metadata.pack(Metadata(icc=bytes(MAX_METADATA_BYTES)))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**28, varint.MAX_VALUE])
def test_varint_round_trip(value: int) -> None:
    data = varint.pack(value)
    assert varint.unpack(b"x" + data + b"y", 1) == (value, 1 + len(data))
    for length in range(len(data)):
        with pytest.raises(FormatError, match="ends inside"):
            varint.unpack(data[:length], 0)


@pytest.mark.parametrize("value", [-1, varint.MAX_VALUE + 1])
def test_varint_out_of_range(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        varint.pack(value)


def test_stream_must_agree_with_its_header() -> None:
    with pytest.raises(ValueError, match="disagree"):
        Stream(HEADER, PAYLOAD, 0, b"blob")
