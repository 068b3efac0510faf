"""Protocol buffers: the fields of one message, read strictly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dlf.errors import BundleError

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_FIXED_SIZES = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}


@dataclass(frozen=True)
class Field:
    """One field of a message.

    number: which one it is.  value: a varint, 0..2**64-1, or the bytes of anything else.
    """

    number: int
    value: int | bytes

    def text(self) -> str:
        """Return a name; raises BundleError where the field holds none."""
        try:
            return self.message().decode()
        except UnicodeDecodeError as error:
            raise malformed() from error

    def message(self) -> bytes:
        """Return bytes, which may be a message of their own; raises BundleError for a varint."""
        if isinstance(self.value, int):
            raise malformed()
        return self.value

    def count(self) -> int:
        """Return a signed number of 64 bits; raises BundleError where the field is no varint."""
        if not isinstance(self.value, int):
            raise malformed()
        return self.value - (1 << 64) if self.value >> 63 else self.value

    def counts(self) -> tuple[int, ...]:
        """Return the numbers of a repeated field: a single one, or many that are packed."""
        if isinstance(self.value, int):
            return (self.count(),)
        numbers, at = [], 0
        while at < len(self.value):
            number, at = _varint(self.value, at)
            numbers.append(number - (1 << 64) if number >> 63 else number)
        return tuple(numbers)


def malformed() -> BundleError:
    """Return the error of a file that is no graph."""
    return BundleError("a graph of the model is damaged: it is not the protocol buffer of an ONNX model")


def fields(message: bytes) -> Iterator[Field]:
    """Yield the fields of a message in their order; raises BundleError where it is malformed."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield Field(number, value)
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise malformed()
        if number == 0 or size > len(message) - at:
            raise malformed()
        yield Field(number, message[at : at + size])
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of at most 64 bits and the place after it."""
    number = 0
    for count, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if number >> 64:
                break
            return number, at + count + 1
    raise malformed()
