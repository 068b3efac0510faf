"""A whole file: header, optional metadata, payload, CRC-32.

The checksum starts with the numerics of the model, so that a file which another model wrote under the same
number does not fit, and no byte is spent on saying so.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from dlf.bitstream import metadata, varint
from dlf.bitstream.bounds import check_length
from dlf.bitstream.header import Header
from dlf.bitstream.spec import CHECKSUM_BYTES, MAX_VARINT_BYTES
from dlf.errors import DlfError, FormatError
from dlf.limits import MAX_PIXELS, check_size
from dlf.records import Metadata


@dataclass(frozen=True)
class Stream:
    """One parsed ``.dlf`` file.

    payload: the range-coded symbols; may be empty.
    checksum: CRC-32 as `seal` makes it; of a file that was read, what it says.
    blob: the metadata as packed in the file (kept as it is, so that sizes and bytes stay true); empty
    exactly where the header says that there is none.
    """

    header: Header
    payload: bytes
    checksum: int
    blob: bytes = b""

    def __post_init__(self) -> None:
        if self.header.has_metadata != bool(self.blob):
            msg = "the header and the metadata of a stream disagree"
            raise ValueError(msg)

    @property
    def metadata(self) -> Metadata | None:
        """The unpacked metadata, or None; raises as `load` does if the blob is malformed."""
        return metadata.unpack(self.blob) if self.blob else None


def seal(header: Header, payload: bytes, numerics: str, blob: bytes = b"") -> Stream:
    """Return a stream with its checksum; numerics: of the model that wrote the payload, in hex."""
    stream = Stream(header, payload, 0, blob)
    return replace(stream, checksum=_checksum(stream, numerics))


def fits(stream: Stream, numerics: str) -> bool:
    """Whether a stream is undamaged and of a model with these numerics."""
    return stream.checksum == _checksum(stream, numerics)


def _checksum(stream: Stream, numerics: str) -> int:
    crc = zlib.crc32(bytes.fromhex(numerics))
    for name, data in parts(stream):
        if name != "checksum":
            crc = zlib.crc32(data, crc)
    return crc


def parts(stream: Stream) -> tuple[tuple[str, bytes], ...]:
    """Name and bytes of each part of the file, in order; joined they are the file.

    Names: magic, version_flags, model, quality, width, height, metadata (with its length; only if
    present), payload, checksum.
    """
    named = list(stream.header.fields())
    if stream.blob:
        named.append(("metadata", varint.pack(len(stream.blob)) + stream.blob))
    named.append(("payload", stream.payload))
    named.append(("checksum", stream.checksum.to_bytes(CHECKSUM_BYTES, "little")))
    return tuple(named)


def dump(stream: Stream) -> bytes:
    """Return the bytes of the file."""
    return b"".join(data for _, data in parts(stream))


@dataclass(frozen=True)
class Opened:
    """A file as far as its form can be told, whole or not.

    blob: the metadata as packed, empty where there are none.
    body: all that follows, which in a whole file is payload and checksum.
    """

    header: Header
    blob: bytes
    body: bytes

    def metadata(self, *, strict: bool = True) -> Metadata | None:
        """Return the unpacked metadata, or None; malformed ones are None too, or raise as in `load`."""
        try:
            return metadata.unpack(self.blob) if self.blob else None
        except DlfError:
            if strict:
                raise
            return None


def open_parts(data: bytes, max_pixels: int = MAX_PIXELS) -> Opened:
    """Parse what stands before the payload; the metadata are not looked into.

    Raises:
        FormatError: not a ``.dlf`` file, cut off before the payload, or malformed; UnsupportedVersion if it
            is too new.
        LimitExceeded: width or height are above the limits, or no file of the size is so long.

    A file of packets has another form, which `dlf.bitstream.packets` reads; here it is a FormatError.
    """
    header, start = Header.unpack(data)
    check_size(header.width, header.height, max_pixels)
    check_length(len(data), header)
    if header.has_packets:
        msg = "the file is one of packets"
        raise FormatError(msg)
    blob = b""
    if header.has_metadata:
        size, start = varint.unpack(data[: start + MAX_VARINT_BYTES], start)
        if size > len(data) - start:
            msg = "the metadata reaches beyond the end of the file"
            raise FormatError(msg)
        blob, start = data[start : start + size], start + size
    return Opened(header, blob, data[start:])


def load(data: bytes, max_pixels: int = MAX_PIXELS) -> Stream:
    """Parse a file; nothing here costs more than a pass over its bytes.

    The checksum is read, but only `fits` can compare it, for it depends on the model.

    Raises:
        FormatError: not a ``.dlf`` file, cut off, or malformed; UnsupportedVersion if it is too new.
        LimitExceeded: width, height or metadata are above the limits, or no file of the size is so long.
    """
    opened = open_parts(data, max_pixels)
    end = len(opened.body) - CHECKSUM_BYTES
    if end < 0:
        msg = "the data ends before the checksum"
        raise FormatError(msg)
    if opened.header.has_metadata:
        metadata.unpack(opened.blob)  # refuses what is malformed
    return Stream(opened.header, opened.body[:end], int.from_bytes(opened.body[end:], "little"), opened.blob)


def begun_checksum(data: bytes, numerics: str) -> int:
    """Return how many of the last bytes of a cut file may be the first ones of its checksum: 0 to 3.

    Where they are not, one of 256 files that are cut elsewhere looks as if its last byte were.
    """
    start = zlib.crc32(bytes.fromhex(numerics))
    for count in range(CHECKSUM_BYTES - 1, 0, -1):
        crc = zlib.crc32(data[:-count], start).to_bytes(CHECKSUM_BYTES, "little")
        if data[-count:] == crc[:count]:
            return count
    return 0
