"""Pictures in packets: some windows each, coded as if they were a picture of their own.

The analysis sees the whole picture, and so does the synthesis; only prior and context of the details do not
look beyond the windows of a packet.  So each packet can be read without the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dlf.bitstream.header import Header
from dlf.bitstream.packets import Found, Packet
from dlf.codec.codec import Received, StreamCodec
from dlf.codec.semantic import NOT_SENT
from dlf.entropy.coder import SymbolReader
from dlf.errors import ChecksumError, FormatError, InvalidArgument
from dlf.geometry import WINDOW_CELLS, WINDOW_PIXELS, Plan
from dlf.limits import whole_number
from dlf.records import Float32, Latents, UInt8

PACKET_BYTES = 256
"""What a packet has at most unless told, and unless a single window needs more."""


# of smoothing, at each size of the blocks
_ROUNDS = 8

MIN_PACKET_BYTES, MAX_PACKET_BYTES = 32, 2**20


def check_packets(packet_bytes: int, *, has_target: bool, metadata: bool, has_region: bool = False) -> None:
    """Refuse arguments of an encoding that do not go together; raises InvalidArgument, TypeError.

    has_target: the size of the file is given.  metadata: they are to be stored.
    has_region: there is a region of interest.
    """
    number = whole_number(packet_bytes, "packet_bytes")
    if not MIN_PACKET_BYTES <= number <= MAX_PACKET_BYTES:
        msg = f"packet_bytes is {number}, but must be {MIN_PACKET_BYTES} to {MAX_PACKET_BYTES:,}"
        raise InvalidArgument(msg)
    if has_target or metadata or has_region:
        lacks = "no metadata" if metadata else "no region of interest"
        msg = f"a file of packets has {'a quality, not a size' if has_target else lacks}"
        raise InvalidArgument(msg)


@dataclass(frozen=True)
class Part:
    """Windows of a packet in the grid of a picture: half-open ranges of its rows and columns."""

    rows: tuple[int, int]
    cols: tuple[int, int]

    @classmethod
    def of(cls, plan: Plan, first: int, count: int) -> Part:
        """Return the place of so many windows; they lie in one row, or they are whole rows.

        Raises:
            FormatError: they do not, or the picture has no such windows.
        """
        rows, cols = plan.windows
        row, col = divmod(first, cols)
        if count >= 1 and col + count <= cols and row < rows:
            return cls((row, row + 1), (col, col + count))
        if count >= 1 and col == count % cols == 0 and row + count // cols <= rows:
            return cls((row, row + count // cols), (0, cols))
        msg = "a packet of the file holds windows that are no part of the picture"
        raise FormatError(msg)

    def cut(self, unit: int) -> tuple[slice, slice]:
        """Return rows and columns of units, of which a window has so many each way."""
        return slice(*(unit * i for i in self.rows)), slice(*(unit * i for i in self.cols))

    def header(self, whole: Header, plan: Plan) -> Header:
        """Return the header of a picture that has just these windows."""
        height, width = (
            min(WINDOW_PIXELS * span[1], size) - WINDOW_PIXELS * span[0]
            for span, size in zip((self.rows, self.cols), plan.padded, strict=True)
        )
        return replace(whole, width=width, height=height, has_packets=False)


def encode(codec: StreamCodec, rgb: UInt8, quality: int, packet_bytes: int = PACKET_BYTES) -> bytes:
    """Compress uint8 (height, width, 3) to a file of packets.

    packet_bytes: of a packet at most, unless a single window needs more.

    Raises:
        InvalidArgument: the model pads pictures to more than windows.
    """
    header = replace(codec.header(rgb, quality), has_packets=True)
    plan = codec.plan(header)
    if WINDOW_PIXELS % plan.unit:
        msg = f"this model pads pictures to {plan.unit} pixels, so it has no packets of windows"
        raise InvalidArgument(msg)
    latents = codec.searched(codec.analyse(rgb, quality), rgb, header)

    @lru_cache(maxsize=4)
    def packet(first: int, count: int) -> bytes:
        part = Part.of(plan, first, count)
        windows = latents.tokens.reshape(*plan.windows, -1)[part.cut(1)]
        rows, cols = part.cut(WINDOW_CELLS)
        own = Latents(windows.reshape(-1, windows.shape[2]), latents.y[:, rows, cols])
        payload = codec.write(own, part.header(header, plan)).payload
        return Packet(header, first, count, payload).pack(codec.numerics)

    return b"".join(_packed(plan, packet, packet_bytes))


def _packed(plan: Plan, packet: Callable[[int, int], bytes], most: int) -> Iterator[bytes]:
    """Yield packets of all windows, each with as many as `most` bytes allow, at least one."""
    rows, cols = plan.windows
    first = 0
    while first < rows * cols:
        row, col = divmod(first, cols)
        unit = cols if col == 0 and len(packet(first, cols)) <= most else 1
        low, data = 1, packet(first, unit)
        high, step = (rows - row if unit == cols else cols - col) + 1, 1
        # the largest number of units that fits, by steps that double and then halve
        while high - low > 1:
            middle = min(low + step, high - 1)
            tried = packet(first, unit * middle)
            if len(tried) <= most:
                low, data, step = middle, tried, 2 * step
            else:
                high, step = middle, max(1, (middle - low) // 2)
        yield data
        first += unit * low


@dataclass(frozen=True, eq=False)
class Assembled:
    """Symbols of the packets that are there.

    received: of the whole picture; details of lost windows are spread from their neighbours.
    lost: numbers of the windows that no packet has.
    """

    received: Received
    lost: tuple[int, ...]


def check(codec: StreamCodec, found: Sequence[Found]) -> tuple[Packet, ...]:
    """Return the packets of a file that is whole.

    Raises:
        ChecksumError: one is damaged, or of another model.
        FormatError: windows are missing, or come twice or out of order.
    """
    for index, each in enumerate(found, 1):
        if not each.fits(codec.numerics):
            msg = f"the checksum of packet {index} of {len(found)} does not match"
            raise ChecksumError(msg)
    packets = tuple(each.packet for each in found)
    rows, cols = codec.plan(packets[0].header).windows
    starts = [0, *accumulate(packet.count for packet in packets)]
    if starts != [*(packet.first for packet in packets), rows * cols]:
        msg = "packets of the file are missing, or come twice or out of order"
        raise FormatError(msg)
    return packets


def receive(codec: StreamCodec, packets: Sequence[Packet]) -> Assembled:
    """Decode the symbols of packets of one picture; of two with a window in common the first counts.

    Raises:
        FormatError: a packet is not what any picture gives.
    """
    header = packets[0].header
    plan = codec.plan(header)
    tokens = np.full((*plan.windows, codec.tokens), NOT_SENT, np.int32)
    costs = np.zeros(tokens.shape)
    y_hat = np.zeros((codec.channels, *plan.cells), np.float32)
    bits = np.zeros(y_hat.shape)
    known = np.zeros(plan.windows, bool)
    for packet in packets:
        part = Part.of(plan, packet.first, packet.count)
        if known[part.cut(1)].any():
            continue
        own = part.header(header, plan)
        codec.check_payload(own, packet.payload)
        reader = SymbolReader(packet.payload)
        read = codec.read(own, reader)
        reader.finish()
        shape = tokens[part.cut(1)].shape
        tokens[part.cut(1)], costs[part.cut(1)] = read.tokens.reshape(shape), read.token_cost.reshape(shape)
        rows, cols = part.cut(WINDOW_CELLS)
        y_hat[:, rows, cols], bits[:, rows, cols] = read.y_hat, read.detail_cost
        known[part.cut(1)] = True
    lost = tuple(np.flatnonzero(~known).tolist())
    if lost:
        cells = known.repeat(WINDOW_CELLS, 0).repeat(WINDOW_CELLS, 1)[: plan.cells[0], : plan.cells[1]]
        y_hat = spread(y_hat, cells)
    flat = (-1, codec.tokens)
    return Assembled(Received(tokens.reshape(flat), y_hat, costs.reshape(flat), bits), lost)


def spread(y: Float32, known: NDArray[np.bool_]) -> Float32:
    """Fill the unknown cells smoothly: from means over ever larger blocks, as far as these know something.

    y: float32 (channels, rows, cols).  known: bool (rows, cols), at least one.
    """
    if known.all():
        return y
    rows, cols = known.shape
    pad = ((0, rows % 2), (0, cols % 2))
    weight = np.pad(known.astype(np.float32), pad).reshape((rows + 1) // 2, 2, (cols + 1) // 2, 2)
    values = np.pad(y * known, ((0, 0), *pad)).reshape(len(y), *weight.shape)
    count = weight.sum((1, 3))
    coarse = spread((values.sum((2, 4)) / np.maximum(count, 1)).astype(np.float32), count > 0)
    filled = np.where(known, y, coarse.repeat(2, 1).repeat(2, 2)[:, :rows, :cols])
    for _ in range(_ROUNDS):
        around = np.pad(filled, ((0, 0), (1, 1), (1, 1)), mode="edge")
        mean = (around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]) / 4
        filled = np.where(known, y, mean)
    return filled.astype(np.float32)
