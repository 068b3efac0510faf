"""What can be read of a file that is cut or damaged.

A cut file is read as far as its symbols are certain; what is missing then takes its likeliest values, step by
step.  In a damaged one nothing tells where the damage is, so that all of it is read as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dlf.bitstream.container import Opened, begun_checksum
from dlf.bitstream.header import Header
from dlf.bitstream.spec import CHECKSUM_BYTES
from dlf.codec.codec import Received, StreamCodec
from dlf.entropy.coder import SymbolReader
from dlf.entropy.cut import CutReader
from dlf.errors import FormatError
from dlf.records import STEPS_OF_DETAILS, Damage

# bits that a payload may have more than its symbols: what the coder loses, and the rest of the last byte
_SPARE_BITS = 16


@dataclass(frozen=True, eq=False)
class Remains:
    """What was read, and what is wrong."""

    received: Received
    damage: Damage


def read_cut(codec: StreamCodec, opened: Opened, data: bytes, numerics: str, reason: FormatError) -> Remains:
    """Read what is certain of a file whose end is missing.

    data: the whole file.  numerics: of the model.  reason: why strict decoding refuses the file.

    Raises:
        FormatError: it is not cut but damaged, or nothing of the picture is there.
    """
    reader = CutReader(opened.body, begun_checksum(data, numerics))
    try:
        remains = _read(codec, opened.header, reader, "cut", reason)
    except FormatError as error:
        raise error from reason
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
