"""The paper's figure: two branches, two quantisers, fusion, VQGAN decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlf.geometry import WINDOW_CELLS, ceil_div
from dlf.nn.ablation import NoDetails, VectorDetails
from dlf.nn.config import ModelConfig
from dlf.nn.context import ContextModel
from dlf.nn.detail import DetailQuantizer, Quantised
from dlf.nn.fusion import Fusion
from dlf.nn.hybrid import HybridDecoder, HybridEncoder
from dlf.nn.token_prior import TokenPrior, follow, whole_codes
from dlf.nn.vq import VectorQuantizer, VqResult
from dlf.nn.vqgan import Vqgan
from dlf.nn.windows import Grid, make_grid


class Bottleneck(NamedTuple):
    """What would be sent.

    z: token vectors before quantisation (N, dim).  tokens: their codes, with indices (N,).
    details: quantised latent and its bits.
    """

    z: Tensor
    tokens: VqResult
    details: Quantised


class Fused(NamedTuple):
    """latent: (B, h, w, code dim).  logits: of the codes that it mixes, (B, h, w, codes), if there are."""

    latent: Tensor
    logits: Tensor | None


def _details(model: ModelConfig) -> DetailQuantizer | VectorDetails | NoDetails:
    config = model.quant
    if config.kind == "scalar":
        return DetailQuantizer(config, model.tokens)
    return VectorDetails(config) if config.kind == "vector" else NoDetails(config)


class Dlf(nn.Module):
    """Dual-generative Latent Fusion codec (https://arxiv.org/abs/2503.01428)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = HybridEncoder(config)
        # standardised vectors cannot drift away from the codes; a commitment term would only pull
        # different pictures onto the same few of them
        commitment = 0.0 if config.tokens.spread else 0.25
        self.quantize = VectorQuantizer(
            config.tokens.codes,
            config.tokens.code_dim,
            normalise=not config.tokens.levels,
            commitment=commitment,
            levels=config.tokens.levels,
        )
        self.details = _details(config)
        self.decoder = HybridDecoder(config)
        self.fusion = Fusion(config)
        self.vqgan = Vqgan(config.vqgan)

    @property
    def token_prior(self) -> TokenPrior | None:
        """What tells the details' prior of the tokens; None where nothing does."""
        context = self.details.context
        return context.token_prior if isinstance(context, ContextModel) else None

    def codebooks(self) -> list[VectorQuantizer]:
        """The code books of tokens and, in an ablation, of details."""
        return [self.quantize, *(m for m in self.details.modules() if isinstance(m, VectorQuantizer))]

    def grid(self, height: int, width: int) -> Grid:
        """Window plans for pixels of this size (multiples of 32)."""
        device = self.quantize.idle.device
        return make_grid(height // 16, width // 16, self.config.detail.swin_window, device)

    def compress(self, pixels: Tensor, quality: Tensor, sent: Tensor, grid: Grid) -> Bottleneck:
        """pixels: (B, 3, H, W) in [0, 1].  quality: (B,) in [0, 100].

        sent: bool (B * windows, tokens), which tokens are sent and may thus tell something of the details.
        """
        z, feature = self.encoder(pixels, grid)
        y = self.details.analyse(feature, quality)
        # the context network's exactness needs float32, whatever runs around it
        with torch.autocast(pixels.device.type, enabled=False):
            z = z.float().flatten(0, 1)
            tokens: VqResult = self.quantize(z)
            told = self._told(tokens, sent, y)
            return Bottleneck(z, tokens, self.details.quantise(y.float(), quality, told))

    def _told(self, tokens: VqResult, sent: Tensor, y: Tensor) -> Tensor | None:
        """What the tokens tell the prior of the details y, if anything."""
        if self.token_prior is None:
            return None
        codes = follow(whole_codes(self.quantize.codebook())[tokens.indices], tokens.quantised)
        down, across = (ceil_div(size, WINDOW_CELLS) for size in y.shape[2:])
        shape = (len(y), down, across, sent.shape[1])
        told: Tensor = self.token_prior(codes.reshape(*shape, -1), sent.reshape(shape))
        return told

    def fuse(self, codes: Tensor, sent: Tensor, y_hat: Tensor, quality: Tensor, grid: Grid) -> Fused:
        """Both branches' symbols to one latent.

        codes: (B * windows, tokens, code dim).  sent: bool (B * windows, tokens).
        y_hat: (B, C, H/32, W/32).
        """
        feature = self.details.synthesise(y_hat, quality)
        found = self.fusion(*self.decoder(codes, sent, feature, grid), grid)
        book = self.vqgan.quantize
        if book is None:
            return Fused(found, None)
        return Fused(found.softmax(-1) @ book.codebook().to(found.dtype), found)

    def forward(self, pixels: Tensor, quality: Tensor, sent: Tensor) -> tuple[Bottleneck, Fused, Tensor]:
        """All of it: returns the bottleneck, the fused latent and the picture (B, 3, H, W) in [-1, 1].

        sent: bool (B * windows, tokens), which tokens are sent.
        """
        grid = self.grid(*pixels.shape[2:])
        bottleneck = self.compress(pixels, quality, sent, grid)
        codes = bottleneck.tokens.quantised.reshape(*sent.shape, -1)
        fused = self.fuse(codes, sent, bottleneck.details.y_hat, quality, grid)
        return bottleneck, fused, self.vqgan.decode(fused.latent)
