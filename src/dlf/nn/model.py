"""The paper's figure: two branches, two quantisers, fusion, VQGAN decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlf.geometry import WINDOW_CELLS, ceil_div
from dlf.nn.ablation import NoDetails, TokenDecoder, TokenEncoder, VectorDetails
from dlf.nn.detail_branch import DetailBranch, DetailQuantizer, Quantised
from dlf.nn.fusion import Fusion
from dlf.nn.hybrid import HybridDecoder, HybridEncoder
from dlf.nn.model_config import ModelConfig
from dlf.nn.token_prior import TokenPrior, follow, whole_codes
from dlf.nn.vq import VectorQuantizer, VqResult
from dlf.nn.vqgan import Vqgan, lay_out_patches
from dlf.nn.windows import Grid, make_grid


class Analysis(NamedTuple):
    """What is quantised.

    z: token vectors (B * windows, tokens, code dim).  y: latent of the details (B, C, H/32, W/32).
    """

    z: Tensor
    y: Tensor


class Bottleneck(NamedTuple):
    """What would be sent.

    z: token vectors before quantisation (N, dim).  tokens: their codes, with indices (N,).
    details: quantised latent and its bits.
    """

    z: Tensor
    tokens: VqResult
    details: Quantised


class Fused(NamedTuple):
    """Both branches in one, on the grid of patches.

    latent: (B, h, w, code dim).  logits: of the codes that it mixes (B, h, w, codes), or None where the
    model has none.
    """

    latent: Tensor
    logits: Tensor | None


class Synthesis(NamedTuple):
    """What is made of the symbols.

    patches: the image in about [-1, 1], each patch x patch square as the channels of one place,
    (B, 3 patch^2, H / patch, W / patch).
    """

    fused: Fused
    patches: Tensor

    @property
    def image(self) -> Tensor:
        """(B, 3, H, W) in about [-1, 1]."""
        return lay_out_patches(self.patches)


class Reconstruction(NamedTuple):
    """A picture through the codec; image: (B, 3, H, W) in about [-1, 1]."""

    bottleneck: Bottleneck
    fused: Fused
    image: Tensor


def _details(model: ModelConfig) -> DetailBranch:
    config = model.quant
    if config.kind == "scalar":
        return DetailQuantizer(config, model.tokens)
    return VectorDetails(config) if config.kind == "vector" else NoDetails(config)


class Dlf(nn.Module):
    """Dual-generative Latent Fusion codec (https://arxiv.org/abs/2503.01428)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        detailed = config.quant.kind != "none"
        self.encoder = HybridEncoder(config) if detailed else TokenEncoder(config)
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
        self.decoder = HybridDecoder(config) if detailed else TokenDecoder(config)
        self.fusion = Fusion(config)
        self.vqgan = Vqgan(config.vqgan)

    @property
    def token_prior(self) -> TokenPrior | None:
        """What tells the details' prior of the tokens; None where nothing does."""
        return self.details.context.token_prior

    def codebooks(self) -> list[VectorQuantizer]:
        """The code books of tokens and, in an ablation, of details."""
        return [self.quantize, *self.details.codebooks()]

    def grid(self, height: int, width: int) -> Grid:
        """Window plans for pixels of this size (multiples of 32)."""
        device = self.quantize.idle.device
        return make_grid(height // 16, width // 16, self.config.detail.swin_window, device)

    def analyse(self, pixels: Tensor, quality: Tensor, grid: Grid) -> Analysis:
        """Pixels (B, 3, H, W) in [0, 1] at qualities (B,) in [0, 100] to what is quantised."""
        encoded = self.encoder(pixels, grid)
        return Analysis(encoded.z, self.details.analyse(encoded.feature, quality))

    def compress(self, pixels: Tensor, quality: Tensor, sent: Tensor, grid: Grid) -> Bottleneck:
        """Pixels (B, 3, H, W) in [0, 1] at qualities (B,) in [0, 100] to what would be sent.

        sent: bool (B * windows, tokens), which tokens are sent and may thus tell something of the details.
        """
        z, y = self.analyse(pixels, quality, grid)
        # the context network's exactness needs float32, whatever runs around it
        with torch.autocast(pixels.device.type, enabled=False):
            z = z.float().flatten(0, 1)
            tokens: VqResult = self.quantize(z)
            told = self._told(tokens, sent, y)
            return Bottleneck(z, tokens, self.details.quantise(y.float(), quality, told))

    def _told(self, tokens: VqResult, sent: Tensor, y: Tensor) -> Tensor | None:
        """What the tokens tell the prior of the details y (B, C, h, w), if anything; see `TokenPrior`."""
        if self.token_prior is None:
            return None
        codes = follow(whole_codes(self.quantize.codebook())[tokens.indices], tokens.quantised)
        down, across = (ceil_div(size, WINDOW_CELLS) for size in y.shape[2:])
        shape = (len(y), down, across, sent.shape[1])
        told: Tensor = self.token_prior(codes.reshape(*shape, -1), sent.reshape(shape))
        return told

    def lookup(self, tokens: Tensor) -> Tensor:
        """Codes (..., code dim) of indices, int64 (...); any code where the index is -1, not sent."""
        return self.quantize.codebook()[tokens.clamp(min=0)]

    def fuse(self, codes: Tensor, sent: Tensor, y_hat: Tensor, quality: Tensor, grid: Grid) -> Fused:
        """Both branches' symbols to one latent.

        codes: (B * windows, tokens, code dim).  sent: bool (B * windows, tokens).
        y_hat: (B, C, H/32, W/32), dequantised.  quality: (B,) in [0, 100].
        """
        feature = self.details.synthesise(y_hat, quality)
        mixture = self.fusion(*self.decoder(codes, sent, feature, grid), grid)
        book = self.vqgan.quantize
        if book is None:
            return Fused(mixture, None)
        return Fused(mixture.softmax(-1) @ book.codebook().to(mixture.dtype), mixture)

    def synthesise(
        self, codes: Tensor, sent: Tensor, y_hat: Tensor, quality: Tensor, grid: Grid
    ) -> Synthesis:
        """Symbols to an image, whoever decodes: training, engine or exported graph.

        Arguments as `fuse`: codes (B * windows, tokens, code dim), y_hat (B, C, H/32, W/32).
        """
        fused = self.fuse(codes, sent, y_hat, quality, grid)
        return Synthesis(fused, self.vqgan.decode_patches(fused.latent))

    def forward(self, pixels: Tensor, quality: Tensor, sent: Tensor) -> Reconstruction:
        """Code and decode pixels (B, 3, H, W) in [0, 1] at qualities (B,) in [0, 100].

        sent: bool (B * windows, tokens), which tokens are sent.
        """
        grid = self.grid(*pixels.shape[2:])
        bottleneck = self.compress(pixels, quality, sent, grid)
        codes = bottleneck.tokens.quantised.reshape(*sent.shape, -1)
        synthesis = self.synthesise(codes, sent, bottleneck.details.y_hat, quality, grid)
        return Reconstruction(bottleneck, synthesis.fused, synthesis.image)
