"""How long a file can be at most, from its header alone, so that no more of it is ever read.

A symbol costs what its table says, -log2(frequency / 2**16), so 16 bits at most, and each pass through the
range coder loses less than log2(1 + 2**-8) bits to the rounding of its 32-bit range under 24-bit
probabilities.  Hence, in whole bits:

    token     16 + 0.006, one pass                                                        -> 17
    detail    16, then a sign and an Elias gamma code of up to 31 bits: 33 passes, 0.2    -> 49
"""

from __future__ import annotations

from typing import IO

from dlf.bitstream.header import MAX_HEADER_BYTES, Header
from dlf.bitstream.spec import CHECKSUM_BYTES, MAX_METADATA_BYTES, MAX_VARINT_BYTES
from dlf.errors import LimitExceeded
from dlf.files import read_up_to
from dlf.geometry import Plan, ceil_div
from dlf.limits import MAX_CHANNELS, MAX_FILE_BYTES, MAX_PADDING, MAX_TOKENS, check_size

_TOKEN_BITS, _DETAIL_BITS = 17, 49
_SUM_BYTES = 5  # four bytes of symbols' checksum, and what the coder loses on them
_END_BYTES = 2  # of the shortest number in the coder's last interval
_BLOCK_BYTES = 2**16  # more than zlib adds to data of the metadata's limit that it cannot compress


def payload_bound(plan: Plan, tokens: int, channels: int) -> int:
    """Return the bytes that no payload of an image exceeds.

    plan: of the image as the model pads it.  tokens: those of a full window.  channels: of the detail latent.
    """
    rows, cols = plan.cells
    details = _DETAIL_BITS * channels * rows * cols
    sent = _TOKEN_BITS * tokens * plan.windows[0] * plan.windows[1]
    return ceil_div(sent + details, 8) + _SUM_BYTES + _END_BYTES


def file_bound(header: Header) -> int:
    """Return the bytes that no file of this header exceeds, whatever its model."""
    # no padding is larger, nor are two of them in the order of their units
    padded = Plan(header.height + MAX_PADDING - 1, header.width + MAX_PADDING - 1)
    metadata = MAX_VARINT_BYTES + MAX_METADATA_BYTES + _BLOCK_BYTES if header.has_metadata else 0
    fixed = len(header.pack()) + CHECKSUM_BYTES
    if header.has_packets:  # each has at least a window, and these can be no smaller than in the picture
        fixed += 3 * MAX_VARINT_BYTES + _SUM_BYTES + _END_BYTES
        fixed *= padded.windows[0] * padded.windows[1]
    return min(fixed + metadata + payload_bound(padded, MAX_TOKENS, MAX_CHANNELS), MAX_FILE_BYTES)


def check_length(length: int, header: Header) -> None:
    """Refuse a file that is longer than any of its header; raises LimitExceeded."""
    if length > (most := file_bound(header)):
        msg = f"no file of a picture of {header.width}x{header.height} has more than {most:,} bytes"
        raise LimitExceeded(msg)


def read_file(file: IO[bytes], max_pixels: int) -> bytes:
    """Return the bytes of a ``.dlf`` file from its place on, reading no more than its bound.

    Raises:
        FormatError: it does not start with a header; UnsupportedVersion if it is too new.
        LimitExceeded: the image is above the limits, or the file is longer than any of its size.
        OSError: as the file's `read` does.
        TypeError: `read` gives no bytes.
    """
    head = read_up_to(file, MAX_HEADER_BYTES)
    header, _ = Header.unpack(head)
    check_size(header.width, header.height, max_pixels)
    data = head + read_up_to(file, file_bound(header) + 1 - len(head))
    check_length(len(data), header)
    return data
