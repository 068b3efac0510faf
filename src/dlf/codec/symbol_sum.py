"""A checksum of the decoded symbols, for models whose context network computes in floats.

Such a network may round differently on another machine, and one wrong table makes arbitrary symbols of
all that follow.  With the sum the receiver finds out.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from dlf.codec.detail import Side
from dlf.entropy.coder import Exchanged, SymbolCoder, exchange_byte
from dlf.errors import ChecksumError
from dlf.records import Int32

_BYTES = 4


class Summed:
    """A side that takes the CRC-32 of what passes, as little-endian int32.

    before: what comes ahead of the detail symbols, int32.
    """

    def __init__(self, side: Side, before: Int32) -> None:
        self._side = side
        self.crc = zlib.crc32(before.astype("<i4").tobytes())

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Pass the symbols of one step; see `Side`."""
        exchanged = self._side.exchange(mask, index, mean, step)
        self.crc = zlib.crc32(exchanged.symbols.astype("<i4").tobytes(), self.crc)
        return exchanged


def exchange_sum(coder: SymbolCoder, crc: int) -> None:
    """Write the sum, or read the sender's and compare.

    Raises:
        ChecksumError: the receiver's symbols are not those that were sent.
    """
    own = crc.to_bytes(_BYTES, "little")
    if bytes(exchange_byte(coder, byte) for byte in own) != own:
        msg = "the symbols decoded here are not those that were encoded: this machine rounds differently"
        raise ChecksumError(msg)
