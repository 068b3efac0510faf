"""An equal but faster tail of the VQGAN decoder for the exported graph.

At full size a PixelShuffle of many channels and a 3x3 convolution to three of them cost more in memory
traffic than in arithmetic.  Both the shuffle and the activation between commute with moving the
convolution to half size: there it takes and gives all four phases of a 2x2 cell, and only twelve
channels are left to shuffle.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dlf.nn.vqgan import Decoder, Level, Upsample

PHASES = [(row, col) for row in range(2) for col in range(2)]


def fold_tail(decoder: Decoder) -> Decoder:
    """A copy whose last shuffle comes after `conv_out`; unchanged where the shape does not allow it."""
    copied = copy.deepcopy(decoder)
    first, last = copied.up[0], copied.up[1]
    assert isinstance(first, Level)
    assert isinstance(last, Level)
    upsample = last.upsample
    if not (isinstance(upsample, Upsample) and upsample.kind == "shuffle"):
        return copied
    if len(first.block) or not isinstance(copied.norm_out, nn.Identity):
        return copied
    last.upsample = upsample.conv
    assert isinstance(decoder.conv_out, nn.Conv2d)
    copied.conv_out = nn.Sequential(fold_conv(decoder.conv_out), nn.PixelShuffle(2))
    return copied


@torch.no_grad()
def fold_conv(conv: nn.Conv2d) -> nn.Conv2d:
    """The 3x3 convolution (c_in to c_out) of a shuffled picture, on the four phases before shuffling.

    Gives a 3x3 convolution of 4 c_in to 4 c_out channels at half size.
    """
    assert conv.bias is not None
    weight = conv.weight
    c_out, c_in = weight.shape[:2]
    folded = torch.zeros(c_out, 4, c_in, 4, 3, 3)
    for out_phase, (row, col) in enumerate(PHASES):
        for in_phase, cell_row, cell_col, tap in _taps(row, col, weight):
            folded[:, out_phase, :, in_phase, cell_row, cell_col] += tap
    result = nn.Conv2d(4 * c_in, 4 * c_out, 3, padding=1)
    result.weight.copy_(folded.reshape(4 * c_out, 4 * c_in, 3, 3))
    assert result.bias is not None
    result.bias.copy_(conv.bias.repeat_interleave(4))
    return result


def _taps(row: int, col: int, weight: Tensor) -> list[tuple[int, int, int, Tensor]]:
    """Where each tap of the full-size kernel falls, seen from one phase: (phase, cell, cell, weights)."""
    taps = []
    for dy in range(3):
        for dx in range(3):
            y, x = row + dy - 1, col + dx - 1  # -1..2 in places of the shuffled cell
            taps.append(((y % 2) * 2 + x % 2, y // 2 + 1, x // 2 + 1, weight[:, :, dy, dx]))
    return taps
