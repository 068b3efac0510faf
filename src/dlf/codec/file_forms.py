"""The two forms of a whole file, one payload or packets, behind one face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dlf.bitstream import container, packets
from dlf.bitstream.container import Stream
from dlf.bitstream.header import Header
from dlf.bitstream.packets import Found
from dlf.bitstream.spec import CHECKSUM_BYTES
from dlf.codec import resilient
from dlf.codec.codec import Received, StreamCodec
from dlf.limits import MAX_PIXELS
from dlf.records import Metadata


class WholeFile(Protocol):
    """A file that was parsed, whose checksums are still to be compared."""

    @property
    def header(self) -> Header:
        """The header, of all packets the same."""
        ...

    @property
    def metadata(self) -> Metadata | None:
        """The unpacked metadata, or None."""
        ...

    def fits(self, numerics: str) -> bool:
        """Whether a model with these numerics wrote it; of packets one that is undamaged tells."""
        ...

    def receive(self, codec: StreamCodec) -> Received:
        """Decode the symbols; raises FormatError unless the file is whole, undamaged and of this model."""
        ...

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Name and bytes of each part; those of all packets are joined."""
        ...


@dataclass(frozen=True)
class PlainFile:
    """A file of one payload; see `WholeFile`."""

    stream: Stream

    @property
    def header(self) -> Header:
        """The header."""
        return self.stream.header

    @property
    def metadata(self) -> Metadata | None:
        """The unpacked metadata, or None."""
        return self.stream.metadata

    def fits(self, numerics: str) -> bool:
        """Whether its checksum fits."""
        return container.fits(self.stream, numerics)

    def receive(self, codec: StreamCodec) -> Received:
        """Decode the symbols; raises FormatError."""
        return codec.receive(self.stream)

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Name and bytes of each part."""
        return container.parts(self.stream)


@dataclass(frozen=True)
class PacketFile:
    """A file of packets; see `WholeFile`."""

    found: tuple[Found, ...]

    @property
    def header(self) -> Header:
        """The header of all packets."""
        return self.found[0].packet.header

    @property
    def metadata(self) -> None:
        """None: such a file has none."""
        return

    def fits(self, numerics: str) -> bool:
        """Whether the checksum of any packet fits."""
        return any(each.fits(numerics) for each in self.found)

    def receive(self, codec: StreamCodec) -> Received:
        """Decode the symbols; raises FormatError."""
        return resilient.receive(codec, resilient.check(codec, self.found)).received

    def parts(self) -> tuple[tuple[str, bytes], ...]:
        """Heads, payloads and checksums of all packets."""
        payloads = [each.packet.payload for each in self.found]
        heads = [
            each.data[: len(each.data) - len(payload) - CHECKSUM_BYTES]
            for each, payload in zip(self.found, payloads, strict=True)
        ]
        sums = [each.data[-CHECKSUM_BYTES:] for each in self.found]
        return ("heads", b"".join(heads)), ("payload", b"".join(payloads)), ("checksum", b"".join(sums))


def load(data: bytes, max_pixels: int = MAX_PIXELS) -> WholeFile:
    """Parse a file of either form; raises as `container.load` and `packets.load`."""
    if data.startswith(packets.START):
        return PacketFile(packets.load(data, max_pixels))
    return PlainFile(container.load(data, max_pixels))
