"""A whole file: header, optional metadata, payload, CRC-32."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from dlf.bitstream import metadata as blob
from dlf.bitstream import varint
from dlf.bitstream.header import Header
from dlf.bitstream.spec import CHECKSUM_BYTES
from dlf.errors import ChecksumError, FormatError
from dlf.limits import MAX_PIXELS, check_size
from dlf.records import Metadata


@dataclass(frozen=True)
class Stream:
    """One parsed ``.dlf`` file.

    payload: the range-coded symbols; may be empty.
    metadata: None exactly where the header says that there is none.
    """

    header: Header
    payload: bytes
    metadata: Metadata | None = None

    def __post_init__(self) -> None:
        if self.header.has_metadata != (self.metadata is not None):
            msg = "the header and the metadata of a stream disagree"
            raise ValueError(msg)


def parts(stream: Stream) -> tuple[tuple[str, bytes], ...]:
    """Name and bytes of each part of the file, in order; joined they are the file.

    Names: magic, version_flags, model, quality, width, height, metadata (with its length; only if
    present), payload, checksum.
    """
    found = list(stream.header.fields())
    if stream.metadata is not None:
        packed = blob.pack(stream.metadata)
        found.append(("metadata", varint.pack(len(packed)) + packed))
    found.append(("payload", stream.payload))
    checksum = zlib.crc32(b"".join(data for _, data in found))
    found.append(("checksum", checksum.to_bytes(CHECKSUM_BYTES, "little")))
    return tuple(found)


def dump(stream: Stream) -> bytes:
    """Return the bytes of the file."""
    return b"".join(data for _, data in parts(stream))


def load(data: bytes, max_pixels: int = MAX_PIXELS) -> Stream:
    """Parse and check a file; nothing here costs more than a pass over its bytes.

    Raises:
        FormatError: not a ``.dlf`` file, cut off, or malformed; UnsupportedVersion if it is too new.
        LimitExceeded: width, height or metadata are above the limits.
        ChecksumError: the file was damaged.
    """
    header, start = Header.unpack(data)
    check_size(header.width, header.height, max_pixels)
    end = len(data) - CHECKSUM_BYTES
    if end < start:
        msg = "the data ends before the checksum"
        raise FormatError(msg)
    if zlib.crc32(data[:end]) != int.from_bytes(data[end:], "little"):
        msg = "the checksum does not match: the file is damaged or cut off"
        raise ChecksumError(msg)
    metadata = None
    if header.has_metadata:
        size, start = varint.unpack(data[:end], start)
        if size > end - start:
            msg = "the metadata reaches beyond the end of the file"
            raise FormatError(msg)
        metadata, start = blob.unpack(data[start : start + size]), start + size
    return Stream(header, data[start:end], metadata)
