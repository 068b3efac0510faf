"""Constants of format version 1; docs/bitstream.md describes the whole."""

from __future__ import annotations

MAGIC = b"DLF"
VERSION = 1

FLAG_METADATA = 0b0001
FLAG_PACKETS = 0b0010
KNOWN_FLAGS = FLAG_METADATA | FLAG_PACKETS

MAX_QUALITY = 100
CHECKSUM_BYTES = 4

MIN_FILE_BYTES = len(MAGIC) + 1 + 4 + CHECKSUM_BYTES
"""Magic, version and flags, the four numbers in a byte each, no payload, the checksum."""

MAX_VARINT_BYTES = 5

MAX_BPP = 24
"""Bits a pixel that no file needs, for the image itself has no more."""

METADATA_TAGS = ((1, "icc"), (2, "exif"), (3, "xmp"), (4, "dpi"))
"""Tag byte and name of each part of the metadata blob, in the order in which they must come."""

DPI_UNITS = 1000
"""The resolution is stored in thousandths of a dot per inch."""

MAX_METADATA_BYTES = 2**24
"""Limit of the uncompressed metadata: bounds what a small hostile file can unfold to."""
