"""Chunks of a PNG file, read beside Pillow.

Pillow unfolds every text while it opens a file, gives up on those above 1 MiB (a limit of the whole
process), and knows no cICP.  It therefore gets to see the pixels and their meaning alone, while texts that
nobody asked for are not even read.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from dlf.errors import ImageError, LimitExceeded
from dlf.imageio.excerpt import Excerpt
from dlf.imageio.sidecar import Sidecar, Signal

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_CHUNK = 2**24
"""Limit of one chunk of metadata, as stored and unfolded: 16 MiB."""

MAX_CHUNKS = 2**18
"""Limit of their number: with the 8 KiB of common writers, 2 GiB of pixels."""

FOR_PILLOW = frozenset(
    (
        b"IHDR",
        b"PLTE",
        b"IDAT",
        b"IEND",
        b"tRNS",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"pHYs",
        b"sBIT",
        b"bKGD",
        b"hIST",
    )
)
TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
XMP_KEY = b"XML:com.adobe.xmp"
RAW_KEYS = {
    b"Raw profile type exif": "exif",
    b"Raw profile type APP1": "exif",
    b"Raw profile type xmp": "xmp",
    b"Raw profile type icc": "icc",
}
"""Texts in which ImageMagick wraps metadata as hexadecimal digits."""


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    start: int  # of its length field
    length: int


def examine(file: BinaryIO) -> tuple[BinaryIO, Sidecar]:
    """Return what Pillow may see of a PNG file, and what it does not see.

    Raises:
        ImageError: the pixels are a video signal of a kind that is not read.
        LimitExceeded: a colour profile is larger than `MAX_CHUNK`, or there are more than `MAX_CHUNKS`.
    """
    chunks, problems = _chunks(file)
    reader = _Reader(file, problems)
    for chunk in chunks:
        reader.take(chunk)
    view = io.BufferedReader(Excerpt(file, _parts(chunks)), buffer_size=2**16)
    return view, Sidecar(
        reader.parts.get("icc"),
        reader.parts.get("exif"),
        reader.parts.get("xmp"),
        reader.signal,
        problems=tuple(problems),
    )


def _chunks(file: BinaryIO) -> tuple[list[_Chunk], list[str]]:
    """Walk the chunks by their lengths; nothing but their heads is read."""
    end = file.seek(0, io.SEEK_END)
    at = len(MAGIC)
    chunks: list[_Chunk] = []
    while at + 8 <= end:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        if not re.fullmatch(rb"[A-Za-z]{4}", name):
            break
        if len(chunks) == MAX_CHUNKS:
            msg = f"the PNG file has more than {MAX_CHUNKS:,} chunks"
            raise LimitExceeded(msg)
        chunks.append(_Chunk(name, at, length))
        at += length + 12
        if name == b"IEND":
            break
    if chunks and chunks[-1].name == b"IEND" and at <= end:
        return chunks, []
    return chunks, ["the PNG file ends without its end chunk"]


def _parts(chunks: list[_Chunk]) -> list[tuple[int, int]]:
    """Offsets and lengths of what Pillow may see, as few as possible."""
    parts = [(0, len(MAGIC))]
    for chunk in chunks:
        if chunk.name in FOR_PILLOW:
            start, length = parts[-1]
            if start + length == chunk.start:
                parts[-1] = (start, length + chunk.length + 12)
            else:
                parts.append((chunk.start, chunk.length + 12))
    return parts


class _Reader:
    """Collects metadata; what is broken is left out and said in `problems`, for the pixels are good."""

    def __init__(self, file: BinaryIO, problems: list[str]) -> None:
        self.parts: dict[str, bytes] = {}
        self.signal: Signal | None = None
        self._file = file
        self._problems = problems

    def take(self, chunk: _Chunk) -> None:
        """Look at one chunk."""
        handlers: dict[bytes, Callable[[bytes], None]] = {
            b"iCCP": self._icc,
            b"eXIf": lambda data: self._keep("exif", data),
            b"cICP": self._cicp,
        }
        handle = handlers.get(chunk.name) or (self._text if chunk.name in TEXTS else None)
        if handle is None or not (data := self._data(chunk)):
            return
        try:
            handle(data)
        except (ValueError, IndexError, zlib.error) as error:
            self._problems.append(f"ignored a broken {chunk.name.decode()} chunk ({error})")

    def _data(self, chunk: _Chunk) -> bytes | None:
        """Content of a chunk, None if it is not of interest, too large or damaged."""
        self._file.seek(chunk.start + 8)
        if chunk.name in TEXTS:
            key = self._file.read(min(80, chunk.length)).partition(b"\0")[0]
            if key != XMP_KEY and key not in RAW_KEYS:
                return None
            self._file.seek(chunk.start + 8)
        if chunk.length > MAX_CHUNK:
            self._too_large(chunk.name)
            return None
        data, crc = self._file.read(chunk.length), self._file.read(4)
        if zlib.crc32(chunk.name + data).to_bytes(4, "big") != crc:
            self._problems.append(f"ignored a damaged {chunk.name.decode()} chunk")
            return None
        return data

    def _too_large(self, name: bytes) -> None:
        if name == b"iCCP":  # without it the colours would be wrong
            msg = f"the colour profile of the picture has more than {MAX_CHUNK:,} bytes"
            raise LimitExceeded(msg)
        self._problems.append(f"ignored a {name.decode()} chunk of more than {MAX_CHUNK:,} bytes")

    def _keep(self, kind: str, data: bytes) -> None:
        self.parts.setdefault(kind, data)

    def _icc(self, data: bytes) -> None:
        packed = data.partition(b"\0")[2][1:]
        profile = _inflate(packed)
        if profile is None:
            self._too_large(b"iCCP")
        elif profile:
            self.parts["icc"] = profile  # the chunk counts more than a text

    def _cicp(self, data: bytes) -> None:
        primaries, transfer, matrix, full_range = data[:4]
        if matrix != 0 or full_range != 1:
            msg = "the PNG file holds a video signal of limited range or without RGB, which is not read"
            raise ImageError(msg)
        self.signal = Signal(primaries, transfer)

    def _text(self, data: bytes) -> None:
        """Texts of the three kinds: key, 0, (flags, language, translated key), the text itself."""
        key, _, rest = data.partition(b"\0")
        compressed = rest[:1] == b"\1"
        if len(data) < len(key) + 2:
            return
        name = RAW_KEYS.get(key, "xmp")
        text: bytes | None = rest
        if key == XMP_KEY and rest[:1] in (b"\0", b"\1"):  # iTXt
            body = rest[2:].split(b"\0", 2)[2]
            text = _inflate(body) if compressed else body
        elif rest[:1] == b"\0":  # zTXt
            text = _inflate(rest[1:])
        if text is None:
            self._problems.append(f"ignored a text chunk that unfolds to more than {MAX_CHUNK:,} bytes")
        elif key in RAW_KEYS:
            self._raw_profile(name, text)
        else:
            self._keep("xmp", text)

    def _raw_profile(self, name: str, text: bytes) -> None:
        """Digits behind a line with the kind and one with the length."""
        raw = bytes.fromhex(text.split(None, 2)[2].decode("ascii"))
        mark = b"http://ns.adobe.com/xap/1.0/\0"
        if raw.startswith(mark):
            name, raw = "xmp", raw[len(mark) :]
        self._keep(name, raw)


def _inflate(packed: bytes) -> bytes | None:
    """Decompress within the limit; None beyond it.  Raises zlib.error if damaged."""
    stream = zlib.decompressobj()
    data = stream.decompress(packed, MAX_CHUNK + 1)
    return data if len(data) <= MAX_CHUNK else None
