"""Interactive transform (IT): tokens and details of a window attend to each other.

It removes what both branches would otherwise send (DLF, section 3.3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlf.geometry import WINDOW_PATCHES
from dlf.nn.layers import TransformerBlock
from dlf.nn.model_config import InteractConfig
from dlf.nn.windows import Windows, cut, paste


class Branches(NamedTuple):
    """Both branches side by side.

    tokens: a ViT's sequences (B * windows, n, width), or its patches as a map (B, h, w, width).
    details: a map (B, h, w, width).
    """

    tokens: Tensor
    details: Tensor


class InteractBlock(nn.Module):
    """Joint attention over a window's ViT sequence and its detail places; both get a residual.

    The residuals add to the inputs without the position tables.  The token residual starts at zero,
    so that pretrained tokens are undisturbed at first.
    """

    def __init__(self, config: InteractConfig, tokens: int, token_width: int, detail_width: int) -> None:
        super().__init__()
        width = config.width
        self.tokens = tokens
        self.token_pos = nn.Parameter(0.02 * torch.randn(1 + WINDOW_PATCHES + tokens, token_width))
        self.detail_pos = nn.Parameter(0.02 * torch.randn(WINDOW_PATCHES, detail_width))
        self.token_in = nn.Linear(token_width, width)
        # the released weights feed details of just that width without a projection
        self.detail_in = nn.Linear(detail_width, width) if detail_width != width else nn.Identity()
        self.attn = nn.ModuleList(
            TransformerBlock(width, config.heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.detail_add = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, detail_width))
        self.token_out = nn.Sequential(nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.SiLU())
        self.token_add = nn.Linear(2 * width, token_width)
        nn.init.zeros_(self.token_add.weight)
        nn.init.zeros_(self.token_add.bias)

    def forward(self, x: Tensor, detail: Tensor, win: Windows, bias: Tensor | None) -> Branches:
        """x: (B * windows, 1 + n + tokens, token width).  detail: (B, rows, cols, detail width).

        bias: the ViT's key mask (`key_bias`); the same places are hidden among the details.  Returns both
        in their shapes.
        """
        batch, length = detail.shape[0], x.shape[1]
        pos = torch.cat(
            [self.token_pos[:1], self.token_pos[1 : -self.tokens][win.slot], self.token_pos[-self.tokens :]]
        )
        joint = torch.cat(
            [self.token_in(x + pos), self.detail_in(cut(detail, win) + self.detail_pos[win.slot])], 1
        )
        if bias is not None:
            bias = torch.cat([bias, bias[..., 1 : -self.tokens]], -1)
        for block in self.attn:
            joint = block(joint, bias)
        detail = detail + paste(self.detail_add(joint[:, length:]), win, batch)
        return Branches(x + self.token_add(self.token_out(joint[:, :length])), detail)


def interact_blocks(
    config: InteractConfig, layers: tuple[int, ...], tokens: int, token_width: int, detail_width: int
) -> nn.ModuleDict:
    """One block for each layer after which the branches meet; none at depth 0 (ablation)."""
    used = layers if config.depth else ()
    return nn.ModuleDict({str(i): InteractBlock(config, tokens, token_width, detail_width) for i in used})
