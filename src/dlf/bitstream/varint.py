"""Unsigned LEB128 integers, strict: each value has exactly one form, of at most five bytes."""

from __future__ import annotations

from dlf.bitstream.spec import MAX_VARINT_BYTES
from dlf.errors import FormatError

MAX_VALUE = 2 ** (7 * MAX_VARINT_BYTES) - 1


def pack(value: int) -> bytes:
    """Return 1 to 5 bytes for `value` in 0..2**35-1: seven bits a byte, lowest first, top bit = more."""
    if not 0 <= value <= MAX_VALUE:
        msg = f"{value} does not fit a varint of {MAX_VARINT_BYTES} bytes"
        raise ValueError(msg)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def unpack(data: bytes, start: int) -> tuple[int, int]:
    """Read the varint at `start`; return its value and the index of the byte after it.

    Raises:
        FormatError: the data ends inside it, it has more than five bytes, or it is longer than needed.
    """
    value = 0
    for count, byte in enumerate(data[start : start + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if byte == 0 and count > 0:
                msg = "a number in the header is written in more bytes than it needs"
                raise FormatError(msg)
            return value, start + count + 1
    if len(data) - start >= MAX_VARINT_BYTES:
        msg = f"a number in the header has more than {MAX_VARINT_BYTES} bytes"
    else:
        msg = "the data ends inside the header"
    raise FormatError(msg)
