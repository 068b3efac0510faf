"""The metadata blob: ICC, EXIF, XMP and resolution of the source, compressed as a whole with zlib."""

from __future__ import annotations

import struct
import zlib

from dlf.bitstream import varint
from dlf.bitstream.spec import DPI_UNITS, MAX_METADATA_BYTES, METADATA_TAGS
from dlf.errors import FormatError, LimitExceeded
from dlf.records import Metadata


def pack(metadata: Metadata) -> bytes:
    """Compress the parts that are there.

    Raises:
        LimitExceeded: together they are larger than `MAX_METADATA_BYTES`.
    """
    raw = bytearray()
    dpi = None if metadata.dpi is None else _pack_dpi(metadata.dpi)
    held = {"icc": metadata.icc, "exif": metadata.exif, "xmp": metadata.xmp, "dpi": dpi}
    for tag, name in METADATA_TAGS:
        if part := held[name]:
            raw += bytes([tag]) + varint.pack(len(part)) + part
    if len(raw) > MAX_METADATA_BYTES:
        msg = f"the metadata has {len(raw):,} bytes, above the limit of {MAX_METADATA_BYTES:,}"
        raise LimitExceeded(msg)
    return zlib.compress(raw, 9)


def unpack(blob: bytes) -> Metadata:
    """Inverse of `pack`, for untrusted input.

    Raises:
        FormatError: the blob is damaged, or its parts are empty, repeated or out of order.
        LimitExceeded: it unfolds to more than `MAX_METADATA_BYTES`.
    """
    raw = _inflate(blob)
    names = dict(METADATA_TAGS)
    parts: dict[str, bytes] = {}
    at, last = 0, 0
    while at < len(raw):
        tag = raw[at]
        size, at = varint.unpack(raw, at + 1)
        part, at = raw[at : at + size], at + size
        if tag not in names or tag <= last or not part or at > len(raw):
            msg = "the metadata of the file is malformed"
            raise FormatError(msg)
        parts[names[tag]], last = part, tag
    if not parts:
        msg = "the file announces metadata but holds none"
        raise FormatError(msg)
    dpi = parts.get("dpi")
    return Metadata(
        parts.get("icc"), parts.get("exif"), parts.get("xmp"), None if dpi is None else _unpack_dpi(dpi)
    )


def _pack_dpi(dpi: tuple[float, float]) -> bytes:
    return struct.pack("<2I", *(min(max(round(DPI_UNITS * value), 1), 2**32 - 1) for value in dpi))


def _unpack_dpi(part: bytes) -> tuple[float, float]:
    if len(part) != 8 or 0 in (values := struct.unpack("<2I", part)):
        msg = "the metadata of the file is malformed"
        raise FormatError(msg)
    return values[0] / DPI_UNITS, values[1] / DPI_UNITS


def _inflate(blob: bytes) -> bytes:
    """Decompress with a bound; the blob must be one complete zlib stream and nothing else."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(blob, MAX_METADATA_BYTES + 1)
    except zlib.error as error:
        msg = "the metadata of the file cannot be decompressed"
        raise FormatError(msg) from error
    if len(raw) > MAX_METADATA_BYTES:
        msg = f"the metadata of the file unfolds to more than {MAX_METADATA_BYTES:,} bytes"
        raise LimitExceeded(msg)
    if not stream.eof or stream.unused_data:
        msg = "the metadata of the file is cut off or followed by other data"
        raise FormatError(msg)
    return raw
