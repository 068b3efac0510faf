"""Constants of format version 1; docs/bitstream.md describes the whole."""

from __future__ import annotations

MAGIC = b"DLF"
VERSION = 1

FLAG_METADATA = 0b0001
KNOWN_FLAGS = FLAG_METADATA

MAX_QUALITY = 100
CHECKSUM_BYTES = 4
MAX_VARINT_BYTES = 5

METADATA_TAGS = ((1, "icc"), (2, "exif"), (3, "xmp"), (4, "dpi"))
"""Tag byte and name of each part of the metadata blob, in the order in which they must come."""

DPI_UNITS = 1000
"""The resolution is stored in thousandths of a dot per inch."""

MAX_METADATA_BYTES = 2**24
"""Limit of the uncompressed metadata: bounds what a small hostile file can unfold to."""
