"""What can be read of a file that is cut or damaged.

A cut file is read as far as its symbols are certain; what is missing then takes its likeliest values, step by
step.  In a damaged one nothing tells where the damage is, so that all of it is read as it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dlf.bitstream import packets
from dlf.bitstream.container import Opened, begun_checksum, open_parts
from dlf.bitstream.header import Header
from dlf.bitstream.packets import Packet
from dlf.bitstream.spec import CHECKSUM_BYTES
from dlf.codec import resilient
from dlf.codec.bundle import ModelBundle, not_installed
from dlf.codec.codec import Received, StreamCodec
from dlf.entropy.coder import SymbolReader
from dlf.entropy.cut import CutReader
from dlf.errors import DlfError, FormatError, UnsupportedVersion
from dlf.records import STEPS_OF_DETAILS, Damage, Metadata, UInt8

# bits that a payload may have more than its symbols: what the coder loses, and the rest of the last byte
_SPARE_BITS = 16


@dataclass(frozen=True, eq=False)
class Remains:
    """What was read, and what is wrong."""

    received: Received
    damage: Damage


@dataclass(frozen=True, eq=False)
class Painting:
    """uint8 (height, width, 3) that was painted from what was read, the metadata, and what is wrong."""

    rgb: UInt8
    metadata: Metadata | None
    damage: Damage


def read_remains(
    data: bytes,
    reason: DlfError,
    models: Iterable[ModelBundle],
    codec_of: Callable[[ModelBundle], StreamCodec],
    max_pixels: int,
    *,
    best_effort: bool,
) -> Painting:
    """Paint what there is of a file, as `dlf.Codec.salvage` says.

    reason: the error of strict decoding, which is raised where nothing can be done about it.
    models: those that may have written it; of several with its number the first is taken.
    """
    candidates = tuple(models)
    if packets.START in data:
        by_model = _packets_of(data, {model.manifest.numerics for model in candidates}, max_pixels)
        for model in candidates:
            if found := by_model.get(model.manifest.numerics):
                codec = codec_of(model)
                remains = read_packets(codec, found, reason)
                return Painting(codec.paint(remains.received, found[0].header), None, remains.damage)
    if isinstance(reason, UnsupportedVersion) or not isinstance(reason, FormatError):
        raise reason
    opened = open_parts(data, max_pixels)
    numbered = [model for model in candidates if model.manifest.id == opened.header.model]
    if not numbered:
        raise not_installed(opened.header.model) from reason
    codec = codec_of(numbered[0])
    remains = read_damaged(codec, opened, reason) if best_effort else read_cut(codec, opened, data, reason)
    metadata = opened.metadata(strict=not best_effort)
    return Painting(codec.paint(remains.received, opened.header), metadata, remains.damage)


def read_cut(codec: StreamCodec, opened: Opened, data: bytes, reason: FormatError) -> Remains:
    """Read what is certain of a file whose end is missing.

    data: the whole file.  reason: why strict decoding refuses the file.

    Raises:
        FormatError: it is not cut but damaged, or nothing of the picture is there.
    """
    reader = CutReader(opened.body, begun_checksum(data, codec.numerics))
    try:
        remains = _read(codec, opened.header, reader, "cut", reason)
    except FormatError as error:
        if not reader.count:
            raise
        msg = "the file is not just cut, but damaged"
        raise FormatError(msg) from error
    left = 8 * len(opened.body) - reader.bits
    if not reader.ended and left > 8 * (CHECKSUM_BYTES - 1) + _SPARE_BITS:
        raise reason
    return remains


def read_damaged(codec: StreamCodec, opened: Opened, reason: FormatError) -> Remains:
    """Read a file as it stands, whatever it gives.

    Raises:
        FormatError: nothing of a picture is there.
    """
    payload = opened.body[:-CHECKSUM_BYTES]
    whole = SymbolReader(payload)
    sent: list[int] = []
    try:
        received = codec.read(opened.header, whole, sent.append, is_summed=False)
        whole.finish()
    except FormatError:
        pass
    else:
        # else what was read lies behind its end, where there are but zeros
        if whole.bits <= 8 * len(payload) + _SPARE_BITS:
            damage = Damage("damaged", str(reason), sent[0], sent[0], STEPS_OF_DETAILS, 0, 0)
            return Remains(received, damage)
    reader = CutReader(opened.body)
    try:
        return _read(codec, opened.header, reader, "damaged", reason)
    except FormatError:
        if not reader.count:
            raise
    # end before the symbol that cannot be
    return _read(codec, opened.header, CutReader(opened.body, most=reader.count - 1), "damaged", reason)


def find_packets(data: bytes, numerics: str, max_pixels: int) -> tuple[Packet, ...]:
    """Return the undamaged packets of a model, wherever they are; if of several pictures, those of most."""
    return _packets_of(data, {numerics}, max_pixels).get(numerics, ())


def _packets_of(data: bytes, numerics: Collection[str], max_pixels: int) -> dict[str, tuple[Packet, ...]]:
    """Return the same of each of the models that have some, by their numerics; the data are searched once."""
    found: dict[str, list[Packet]] = {}
    for writer, packet in packets.search(data, numerics, max_pixels):
        found.setdefault(writer, []).append(packet)
    return {writer: _of_most(several) for writer, several in found.items()}


def _of_most(found: Sequence[Packet]) -> tuple[Packet, ...]:
    most = Counter(packet.header for packet in found).most_common(1)
    return tuple(packet for packet in found if packet.header == most[0][0])


def read_packets(codec: StreamCodec, found: Sequence[Packet], reason: DlfError) -> Remains:
    """Read the packets that are there, at least one; raises FormatError if one holds no symbols."""
    assembled = resilient.receive(codec, found)
    tokens = assembled.received.tokens
    read = int((tokens >= 0).sum())
    damage = Damage("lost", str(reason), read, read, STEPS_OF_DETAILS, 0, 0, len(tokens), assembled.lost)
    return Remains(assembled.received, damage)


def _read(
    codec: StreamCodec,
    header: Header,
    reader: CutReader,
    kind: Literal["cut", "damaged"],
    reason: FormatError,
) -> Remains:
    """Read until the reader ends; raises FormatError."""
    sent: list[int] = []  # after the tokens, and after each step: symbols that were to be read
    count: list[int] = []  # those read up to there
    complete: list[bool] = []

    def passed(symbols: int) -> None:
        sent.append(symbols)
        count.append(reader.count)
        complete.append(not reader.ended)

    received = codec.read(header, reader, passed, is_summed=False)
    if not reader.count:
        msg = "the file ends before the first symbol of its picture"
        raise FormatError(msg) from reason
    steps = sum(complete[1:])
    symbols_sent = symbols_read = 0
    if complete[0] and steps < STEPS_OF_DETAILS:
        symbols_sent = sent[steps + 1]
        # escapes have symbols of their own, behind those of the step; one of them may be missing
        symbols_read = max(0, min(count[steps + 1] - count[steps], symbols_sent - 1))
    damage = Damage(kind, str(reason), count[0], sent[0], steps, symbols_read, symbols_sent)
    return Remains(received, damage)
