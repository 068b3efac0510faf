"""The two forms of a whole file, one payload or packets, behind one face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dlf.bitstream import container, packets
from dlf.bitstream.container import Stream
from dlf.bitstream.header import Header
from dlf.bitstream.packets import Found
from dlf.bitstream.spec import CHECKSUM_BYTES, VERSION
from dlf.codec import resilient
from dlf.codec.codec import Received, StreamCodec
from dlf.limits import MAX_PIXELS
from dlf.records import Metadata, StreamInfo


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


def describe(
    file: WholeFile, file_bytes: int, model_name: str | None = None, received: Received | None = None
) -> StreamInfo:
    """Return what a file of so many bytes says about itself.

    model_name: of the model that fits it, if one is installed.  received: its symbols, if they were read.
    """
    from dlf.reference.decoder import sha256_of  # decoding does without

    sizes = {name: len(part) for name, part in file.parts()}
    behind = {f"{name}_bytes": sizes.pop(name, 0) for name in ("metadata", "payload", "checksum")}
    settled = None
    if received is not None and received.settled:
        before = file_bytes - behind["payload_bytes"] - behind["checksum_bytes"]
        settled = tuple(file_bytes if count is None else before + count for count in received.settled)
    details = None if received is None else received.details
    return StreamInfo(
        version=VERSION,
        model=file.header.model,
        model_name=model_name,
        quality=file.header.quality,
        width=file.header.width,
        height=file.header.height,
        header_bytes=sum(sizes.values()),
        **behind,
        file_bytes=file_bytes,
        token_bits=None if received is None else received.token_bits,
        detail_bits=None if received is None else received.detail_bits,
        token_sha256=None if received is None or details is None else sha256_of(received.tokens),
        detail_sha256=None if details is None else sha256_of(details),
        checked=model_name is not None,
        settled=settled,
        packets=len(file.found) if isinstance(file, PacketFile) else 0,
    )
