"""A whole file: header, optional metadata, payload, CRC-32."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from dlf.bitstream import metadata, varint
from dlf.bitstream.header import Header
from dlf.bitstream.spec import CHECKSUM_BYTES
from dlf.errors import ChecksumError, FormatError
from dlf.limits import MAX_PIXELS, check_size
from dlf.records import Metadata


@dataclass(frozen=True)
class Stream:
    """One parsed ``.dlf`` file.

    payload: the range-coded symbols; may be empty.
    blob: the metadata as packed in the file (kept as it is, so that sizes and bytes stay true); empty
    exactly where the header says that there is none.
    """

    header: Header
    payload: bytes
    blob: bytes = b""

    def __post_init__(self) -> None:
        if self.header.has_metadata != bool(self.blob):
            msg = "the header and the metadata of a stream disagree"
            raise ValueError(msg)

    @property
    def metadata(self) -> Metadata | None:
        """The unpacked metadata, or None; raises as `load` does if the blob is malformed."""
        return metadata.unpack(self.blob) if self.blob else None


def parts(stream: Stream) -> tuple[tuple[str, bytes], ...]:
    """Name and bytes of each part of the file, in order; joined they are the file.

    Names: magic, version_flags, model, quality, width, height, metadata (with its length; only if
    present), payload, checksum.
    """
    found = list(stream.header.fields())
    if stream.blob:
        found.append(("metadata", varint.pack(len(stream.blob)) + stream.blob))
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
    blob = b""
    if header.has_metadata:
        size, start = varint.unpack(data[:end], start)
        if size > end - start:
            msg = "the metadata reaches beyond the end of the file"
            raise FormatError(msg)
        blob, start = data[start : start + size], start + size
        metadata.unpack(blob)  # refuses what is malformed
    return Stream(header, data[start:end], blob)
