"""A file of packets for lossy links: each can be read alone, and found where others are missing."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from dlf.bitstream import varint
from dlf.bitstream.bounds import check_length
from dlf.bitstream.header import Header
from dlf.bitstream.spec import CHECKSUM_BYTES, FLAG_PACKETS, MAGIC, VERSION
from dlf.errors import DlfError, FormatError
from dlf.limits import MAX_PIXELS, check_size

START = MAGIC + bytes([VERSION << 4 | FLAG_PACKETS])
"""How every packet begins."""

# what is summed up in vain while packets are looked for: such bytes for each of the data, and a little
_SEARCH_WORK, _SEARCH_START = 32, 2**20
# a start that leads to nothing counts as so many, less than the shortest packet, of 15 bytes, brings along
_SEARCH_TRY = 400


@dataclass(frozen=True)
class Packet:
    """Some windows of a picture.

    header: of the whole picture, the same in all of its packets.
    first: number of the first window.  count: how many there are, at least 1.
    payload: their symbols.
    """

    header: Header
    first: int
    count: int
    payload: bytes

    def pack(self, numerics: str) -> bytes:
        """Return its bytes; numerics: of the model, in hex."""
        numbers = b"".join(map(varint.pack, (self.first, self.count, len(self.payload))))
        data = self.header.pack() + numbers + self.payload
        return data + _checksum(data, numerics)


@dataclass(frozen=True)
class Found:
    """A packet in a file, whose checksum is `fits` to compare.

    packet: what it says.  data: its bytes.  end: index of the byte after it.
    """

    packet: Packet
    data: bytes
    end: int

    def fits(self, numerics: str) -> bool:
        """Whether it is undamaged and of a model with these numerics."""
        return self.data[-CHECKSUM_BYTES:] == _checksum(self.data[:-CHECKSUM_BYTES], numerics)


def _checksum(data: bytes, numerics: str) -> bytes:
    crc = zlib.crc32(data, zlib.crc32(bytes.fromhex(numerics)))
    return crc.to_bytes(CHECKSUM_BYTES, "little")


def parse(data: bytes, at: int, max_pixels: int = MAX_PIXELS) -> Found:
    """Read the packet at an index; its checksum is not compared.

    Raises:
        FormatError: there is none, or it is cut off; UnsupportedVersion if it is too new.
        LimitExceeded: the picture is above the limits.
    """
    view = data[at : at + 64]  # more than what stands before a payload
    header, start = Header.unpack(view)
    if not header.has_packets:
        msg = "a packet of the file says that it is none"
        raise FormatError(msg)
    check_size(header.width, header.height, max_pixels)
    first, start = varint.unpack(view, start)
    count, start = varint.unpack(view, start)
    size, start = varint.unpack(view, start)
    end = at + start + size + CHECKSUM_BYTES
    if end > len(data):
        msg = "the file ends inside a packet"
        raise FormatError(msg)
    packet = Packet(header, first, count, data[at + start : at + start + size])
    return Found(packet, data[at:end], end)


def load(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Found, ...]:
    """Parse a whole file of packets; checksums are not compared, nor is the order of the windows.

    Raises:
        FormatError: it is cut, has something between its packets, or these differ in their header.
        LimitExceeded: width or height are above the limits, or no file of the size is so long.
    """
    found = [parse(data, 0, max_pixels)]
    header = found[0].packet.header
    check_length(len(data), header)
    while found[-1].end < len(data):
        if not data.startswith(START[: len(data) - found[-1].end], found[-1].end):
            msg = "behind a packet of the file is something that is none"
            raise FormatError(msg)
        found.append(parse(data, found[-1].end, max_pixels))
        if found[-1].packet.header != header:
            msg = "the packets of the file are not of one picture"
            raise FormatError(msg)
    return tuple(found)


def search(
    data: bytes, numerics: Collection[str], max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[str, Packet]]:
    """Yield the undamaged packets of some models, wherever they are, each with the numerics that it fits.

    The time grows with the length only.
    """
    at, left = 0, _SEARCH_WORK * len(data) + _SEARCH_START
    while left > 0 and (at := data.find(START, at)) >= 0:
        try:
            found = parse(data, at, max_pixels)
        except DlfError:
            at, left = at + len(START), left - _SEARCH_TRY
            continue
        writer = next((each for each in numerics if found.fits(each)), None)
        if writer is not None:
            yield writer, found.packet
            at = found.end
        else:
            at, left = at + len(START), left - _SEARCH_TRY - len(found.data)
