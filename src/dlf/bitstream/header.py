"""The header: magic, version and flags, model, quality, width, height."""

from __future__ import annotations

from dataclasses import dataclass

from dlf.bitstream import varint
from dlf.bitstream.spec import (
    FLAG_METADATA,
    FLAG_PACKETS,
    KNOWN_FLAGS,
    MAGIC,
    MAX_QUALITY,
    MAX_VARINT_BYTES,
    VERSION,
)
from dlf.errors import FormatError, UnsupportedVersion

MAX_HEADER_BYTES = len(MAGIC) + 2 + 3 * MAX_VARINT_BYTES
"""Magic, version and quality, and three numbers: more than any header has."""


@dataclass(frozen=True)
class Header:
    """What a decoder must know before it can read the payload.

    model: id of the model bundle, 0..2**35-1.
    quality: 0..100.
    width, height: pixels, at least 1 each; the size limits are the caller's to check.
    has_metadata: whether a metadata blob follows the header.
    has_packets: whether the file is a row of packets (`dlf.bitstream.packets`) instead of one payload.
    """

    model: int
    quality: int
    width: int
    height: int
    has_metadata: bool = False
    has_packets: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.quality <= MAX_QUALITY:
            msg = f"the quality is {self.quality}, but must be 0 to {MAX_QUALITY}"
            raise FormatError(msg)
        if self.width < 1 or self.height < 1:
            msg = f"the picture is {self.width}x{self.height}, but each side must have at least one pixel"
            raise FormatError(msg)

    def fields(self) -> tuple[tuple[str, bytes], ...]:
        """Name and bytes of each field, in the order of the file."""
        flags = FLAG_METADATA * self.has_metadata | FLAG_PACKETS * self.has_packets
        return (
            ("magic", MAGIC),
            ("version_flags", bytes([VERSION << 4 | flags])),
            ("model", varint.pack(self.model)),
            ("quality", bytes([self.quality])),
            ("width", varint.pack(self.width)),
            ("height", varint.pack(self.height)),
        )

    def pack(self) -> bytes:
        """Return the header as written at the start of a file."""
        return b"".join(data for _, data in self.fields())

    @classmethod
    def unpack(cls, data: bytes) -> tuple[Header, int]:
        """Read the header at the start of `data`; return it and the index of the byte after it.

        Raises:
            FormatError: the data is not a ``.dlf`` file, ends too early, or holds an impossible value.
            UnsupportedVersion: the version, a flag, or two of them together, are not known to this package.
        """
        if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
            msg = "this is not a .dlf file"
            raise FormatError(msg)
        if len(data) <= len(MAGIC):
            msg = "the data ends inside the header"
            raise FormatError(msg)
        version, flags = divmod(data[len(MAGIC)], 16)
        if version != VERSION:
            msg = f"the file has format version {version}, but this package reads version {VERSION}"
            raise UnsupportedVersion(msg)
        if flags & ~KNOWN_FLAGS or flags == KNOWN_FLAGS:
            msg = f"the file uses features that this package does not know (flags {flags:#06b})"
            raise UnsupportedVersion(msg)
        model, at = varint.unpack(data, len(MAGIC) + 1)
        if at == len(data):
            msg = "the data ends inside the header"
            raise FormatError(msg)
        quality = data[at]
        width, at = varint.unpack(data, at + 1)
        height, at = varint.unpack(data, at)
        has_metadata, has_packets = bool(flags & FLAG_METADATA), bool(flags & FLAG_PACKETS)
        return cls(model, quality, width, height, has_metadata, has_packets), at
