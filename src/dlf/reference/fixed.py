"""Numbers that float32 holds exactly: whole numbers over a power of two, counted by integers.

A network of floats is exact where every number in it is n / 2**s with |n| < 2**24.  Here n is kept, as int32,
and s beside it, so that no float takes part; what would leave the range is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlf.errors import BundleError
from dlf.records import Int32

LIMIT = 1 << 24
"""Below it float32 holds every whole number, and so all sums and products that stay below."""

MAX_SHIFT = 24
"""Limit of the binary places that numbers of a graph may have."""

MAX_ELEMENTS = 1 << 28
"""Limit of the numbers of one array."""


@dataclass(frozen=True, eq=False)
class Fixed:
    """An array of numbers n / 2**shift.

    numbers: int32, any shape, each below 2**24 in size.  shift: 0..24.
    """

    numbers: Int32
    shift: int = 0

    @property
    def largest(self) -> int:
        """Size of the largest of `numbers`; 0 where there are none."""
        if not self.numbers.size:
            return 0
        return max(int(self.numbers.max()), -int(self.numbers.min()))

    def at(self, shift: int) -> Int32:
        """Return the numbers in units of 1 / 2**shift, at least as fine; raises BundleError."""
        if shift == self.shift:
            return self.numbers
        held(self.largest << (shift - self.shift))
        return self.numbers << np.int32(shift - self.shift)


def held(largest: int, shift: int = 0) -> None:
    """Refuse numbers that float32 may round; largest: their size, in units of 1 / 2**shift; BundleError."""
    if largest >= LIMIT or shift > MAX_SHIFT:
        msg = (
            "the model's networks that decide symbols are not exact: a number in them can reach "
            f"{largest:,} / 2^{shift}, and only what is below {LIMIT:,} is never rounded"
        )
        raise BundleError(msg)


def aligned(*values: Fixed) -> tuple[int, list[Int32]]:
    """Return the finest shift of several arrays, and their numbers at it; raises BundleError."""
    shift = max(value.shift for value in values)
    return shift, [value.at(shift) for value in values]


def room(*shape: int) -> None:
    """Refuse an array larger than any network of a picture within the limits has; raises BundleError."""
    if math.prod(shape) > MAX_ELEMENTS:
        msg = f"the model's networks make an array of more than {MAX_ELEMENTS:,} numbers"
        raise BundleError(msg)


def from_bits(bits: NDArray[np.int64], exponent_bits: int, mantissa_bits: int) -> Fixed:
    """Return IEEE 754 numbers as they are, without computing in floats.

    bits: int64, any shape; sign, exponent and mantissa of each, the last in the lowest place.

    Raises:
        BundleError: one is not finite, or not a number n / 2**s within the limits.
    """
    top = (1 << exponent_bits) - 1
    exponent = bits >> mantissa_bits & top
    mantissa = bits & ((1 << mantissa_bits) - 1)
    if (exponent == top).any() or ((exponent == 0) & (mantissa != 0)).any():
        msg = "a graph of the model holds a number that is no multiple of a power of two, or none at all"
        raise BundleError(msg)
    significand = np.where(exponent == 0, 0, mantissa | 1 << mantissa_bits)
    # each number is significand * 2**place
    place = np.where(significand == 0, 0, exponent - (top >> 1) - mantissa_bits)
    negative = bits >> (exponent_bits + mantissa_bits) & 1
    for shift in range(MAX_SHIFT + 1):
        left = place + shift
        right = np.minimum(np.maximum(-left, 0), mantissa_bits + 1)
        if (significand & ((1 << right) - 1)).any():
            continue  # a finer unit is needed
        if (left > MAX_SHIFT).any():
            held(LIMIT, shift)
        numbers = significand >> right << np.maximum(left, 0)
        held(int(numbers.max(initial=0)), shift)
        return Fixed(np.where(negative, -numbers, numbers).astype(np.int32), shift)
    msg = f"a graph of the model holds a number of more than {MAX_SHIFT} binary places"
    raise BundleError(msg)
