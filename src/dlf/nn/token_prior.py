"""What the tokens of a window tell the prior network of the details, in exact integers.

The tokens are the first thing that a decoder reads.  One integer layer turns those of a window (16x16
patches, 8x8 cells) into some numbers at each of its cells; the prior network sees them beside the vector
of the quality, so that the quantisation step, too, follows what the tokens say::

    tokens -> whole codes -> a place of the map of windows -> 1x1 -> PixelShuffle 8 -> cells
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.geometry import WINDOW_CELLS
from dlf.nn.exact import ACTIVATION_UNIT, Arithmetic, round_half_up, settle
from dlf.nn.model_config import TokenConfig

# a number of a code of length 1 is about 1/4, so in these units it is about one unit of activations
CODE_UNIT = 64  # a lattice's numbers come out as -96, -32, 32, 96


def whole_codes(codes: Tensor) -> Tensor:
    """Codes (..., dim) as whole numbers, -64..64 for those of length 1, without a gradient."""
    return settle(round_half_up(codes.detach() * CODE_UNIT))


def follow(whole: Tensor, codes: Tensor) -> Tensor:
    """`whole`, with the gradient of the `codes` (same shape) that it was rounded from."""
    return whole + CODE_UNIT * (codes - codes.detach())


class TokenPrior(nn.Module):
    """One integer layer from the tokens of a window to its cells.

    Its inputs are, token by token, the numbers of the code and a 1 (16 in units of activations), all 0
    where the token is not sent.  ValueError where they are too many to a sum (`Arithmetic.conv`).
    """

    def __init__(self, tokens: TokenConfig, channels: int) -> None:
        super().__init__()
        inputs = tokens.count * (tokens.code_dim + 1)
        self.cells = Arithmetic(integer=True).conv(inputs, channels * WINDOW_CELLS**2)

    def forward(self, codes: Tensor, sent: Tensor) -> Tensor:
        """Whole numbers (B, channels, 8 * down, 8 * across), within the activation limit.

        codes: whole codes (B, down, across, tokens, dim) of windows in rows and columns.
        sent: bool (B, down, across, tokens).
        """
        one = sent[..., None].to(codes.dtype)
        inputs = torch.cat([codes * one, ACTIVATION_UNIT * one], -1).flatten(3).permute(0, 3, 1, 2)
        return F.pixel_shuffle(self.cells(inputs), WINDOW_CELLS)

    def read(self, table: Tensor, tokens: Tensor) -> Tensor:
        """The same from a table of whole codes (codes, dim).

        tokens: int64 (B, down, across, tokens), indices of codes, -1 where not sent.
        """
        told: Tensor = self(table[tokens.clamp(min=0)], tokens >= 0)
        return told
