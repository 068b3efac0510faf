"""Latent fusion: both branches' maps to one latent of the VQGAN (DLF, section 3.4).

As published the latent is a mixture over the VQGAN's codebook.  A VQGAN without codes gets the latent itself,
which can be any: mixtures of a few hundred codes cannot leave their convex hull.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlf.nn.hybrid import swin_stack
from dlf.nn.model_config import ModelConfig
from dlf.nn.windows import Grid


class Fusion(nn.Module):
    """Token and detail map (B, h, w, width) to logits (B, h, w, codes) or a latent (B, h, w, code_dim)."""

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
            nn.Linear(fusion.hidden, config.vqgan.codes or config.vqgan.code_dim),
        )
        # a latent is told by the details almost linearly
        self.direct = None if config.vqgan.codes else nn.Linear(detail.width, config.vqgan.code_dim)

    def forward(self, tokens: Tensor, details: Tensor, grid: Grid) -> Tensor:
        joint = torch.cat([self.titok_in(tokens, grid), self.feat_in(details, grid)], -1)
        mixture = self.ffn(self.mix(self.merge(joint), grid))
        return mixture if self.direct is None else mixture + self.direct(details)
