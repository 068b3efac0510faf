"""Latent fusion: both branches' maps to a mixture over the VQGAN codebook (DLF, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlf.nn.config import ModelConfig
from dlf.nn.hybrid import swin_stack
from dlf.nn.windows import Grid


class Fusion(nn.Module):
    """Token map and detail map (B, h, w, width) to logits (B, h, w, codes)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        fusion, detail, token_width = config.fusion, config.detail, config.tokens.width
        self.feat_in = swin_stack(fusion.detail_swin, detail.width, detail)
        self.titok_in = swin_stack(fusion.token_swin, token_width, detail)
        self.merge = nn.Sequential(
            nn.Linear(token_width + detail.width, fusion.hidden),
            nn.LayerNorm(fusion.hidden),
            nn.SiLU(),
            nn.Linear(fusion.hidden, fusion.width),
        )
        self.mix = swin_stack(fusion.swin, fusion.width, detail)
        self.ffn = nn.Sequential(
            nn.LayerNorm(fusion.width),
            nn.Linear(fusion.width, fusion.hidden),
            nn.Tanh(),
            nn.Linear(fusion.hidden, config.vqgan.codes),
        )

    def forward(self, tokens: Tensor, details: Tensor, grid: Grid) -> Tensor:
        joint = torch.cat([self.titok_in(tokens, grid), self.feat_in(details, grid)], -1)
        return self.ffn(self.mix(self.merge(joint), grid))
