"""Both branches side by side: pixels to (tokens, details) and back to two feature maps.

Layer i of the ViT works on each window's sequence of class token, patches and 1-D latent tokens; after
some layers the branches interact and the detail path takes its own steps (DLF, figure 2).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.geometry import WINDOW_PATCHES
from dlf.nn.interact import Branches, interact_blocks
from dlf.nn.layers import ConvNextBlock, DetailMix, SwinStack, TransformerBlock
from dlf.nn.model_config import DetailConfig, InteractConfig, ModelConfig, TokenConfig, VqganConfig
from dlf.nn.vqgan import Encoder, ResBlock
from dlf.nn.windows import Grid, cut, key_bias, paste


def swin_stack(count: int, width: int, config: DetailConfig, before: int = 0) -> SwinStack:
    """A Swin stack with the detail branch's window and heads."""
    return SwinStack(
        count, width, config.head_width, config.swin_window, absolute=config.absolute_tables, before=before
    )


def _mixes(layers: tuple[int, ...], config: DetailConfig, before: int) -> nn.ModuleDict:
    swins, convnexts = config.mix
    return nn.ModuleDict(
        {
            str(i): DetailMix(
                swin_stack(swins, config.width, config, before + k * swins),
                [
                    ConvNextBlock(config.width, config.convnext_ratio, input_scale=config.input_scale)
                    for _ in range(convnexts)
                ],
            )
            for k, i in enumerate(layers)
        }
    )


class Encoded(NamedTuple):
    """What the encoder gives: token vectors and features of the details, both unquantised.

    z: (B * windows, tokens, code dim).  feature: (B, hidden, H/32, W/32).
    """

    z: Tensor
    feature: Tensor


# tensors of the tokenizer's encoder, and of a `TokenizerStem`, which begins as a copy of it: once the codec
# has started from the tokenizer, the former serve nothing
TOKENIZER, STEM = "vqgan.encoder.", "encoder.patch_embed.encoder."


class TokenizerStem(nn.Module):
    """An encoder of the VQGAN's shape: RGB (B, 3, H, W) in [0, 1] to (B, code dim, H/16, W/16)."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class; the tokenizer was trained on [-1, 1]."""
        return self.encoder(pixels * 2 - 1)


def stem_width(config: ModelConfig) -> int:
    """Channels of what the stem gives."""
    if config.stem.tokenizer:
        return config.vqgan.code_dim
    return config.detail.width if config.stem.channels else config.tokens.width


def make_stem(model: ModelConfig) -> nn.Module:
    """RGB (B, 3, H, W) in [0, 1] to (B, stem_width, H/16, W/16)."""
    config, width = model.stem, stem_width(model)
    if config.tokenizer:
        return TokenizerStem(model.vqgan)
    if not config.channels:
        return nn.Conv2d(3, width, 16, stride=16)
    layers: list[nn.Module] = []
    before = 3
    for channels, blocks in zip(config.channels, config.blocks, strict=True):
        conv = nn.Conv2d(before, channels, 3, stride=2, padding=1)
        # unit gain, or a deep plain network shrinks until every latent rounds to zero
        nn.init.normal_(conv.weight, std=(9 * before) ** -0.5 * (3.0 if before == 3 else 1.0))
        layers += [conv, *(ResBlock(channels, channels, "none", "leaky") for _ in range(blocks))]
        before = channels
    return nn.Sequential(*layers, nn.Conv2d(before, width, 1) if before != width else nn.Identity())


class TokenPath(nn.Module):
    """What the ViT of both directions shares: sequence, position tables, layers, interaction."""

    def __init__(self, tokens: TokenConfig, detail: DetailConfig, interact: InteractConfig, *, encoder: bool):
        super().__init__()
        width = tokens.width
        self.tokens = tokens.count
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(1, width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(1 + WINDOW_PATCHES, width))
        self.latent_token_positional_embedding = nn.Parameter(scale * torch.randn(tokens.count, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = tokens.encoder_layers if encoder else tokens.decoder_layers
        meet = interact.encoder_layers if encoder else interact.decoder_layers
        self.transformer = nn.ModuleList(
            TransformerBlock(width, tokens.heads, tokens.mlp_ratio) for _ in range(layers)
        )
        self.inter_blocks = interact_blocks(interact, meet, tokens.count, width, detail.width)
        before = detail.encoder_in_swin if encoder else detail.decoder_in_swin
        self.feat_blocks = _mixes(meet, detail, before)

    def forward(self, patches: Tensor, latents: Tensor, detail: Tensor, grid: Grid) -> Branches:
        """Return the whole sequence (B * windows, 1 + n + tokens, width) and the details.

        patches: (B * windows, n, width).  latents: (B * windows, tokens, width), both without
        positions.  detail: (B, rows, cols, detail width), as what is returned.
        """
        win = grid.token
        place = self.positional_embedding[1:][win.slot]
        first = (self.class_embedding + self.positional_embedding[:1]).expand(patches.shape[0], 1, -1)
        x = torch.cat([first, patches + place, latents + self.latent_token_positional_embedding], 1)
        x = self.ln_pre(x)
        bias = key_bias(win, 1, self.tokens, detail.shape[0])
        for i, layer in enumerate(self.transformer):
            x = layer(x, bias)
            key = str(i)
            if key in self.inter_blocks:
                x, detail = self.inter_blocks[key](x, detail, win, bias)
            if key in self.feat_blocks:
                detail = self.feat_blocks[key](detail, grid)
        return Branches(x, detail)


LARGE_BATCH = 16  # windows whose mean and deviation are worth having on their own


class RunningStandard(nn.Module):
    """Subtracts a running mean and divides by a running deviation, for each place and dimension.

    What a token says about a picture is at first a small ripple on what it says about all pictures.
    Normalised to length 1 the ripple is lost, every picture gets the same code, and nothing ever pulls
    them apart.  The statistics are constants to the gradient and to the exported graph, but for a training
    batch of `LARGE_BATCH` windows or more: it is standardised by its own, gradient included, so that no
    gradient can shrink what differs (batch normalisation, Ioffe and Szegedy 2015).
    """

    mean: Tensor
    square: Tensor

    def __init__(self, count: int, dim: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(count, dim))
        self.register_buffer("square", torch.ones(count, dim))

    def forward(self, z: Tensor) -> Tensor:
        """Standardise z (N, count, dim); of the same shape."""
        if self.training:
            self.update(z.detach().float())
            if len(z) >= LARGE_BATCH:
                variance, mean = torch.var_mean(z.float(), 0, correction=0)
                return (z - mean) / variance.clamp(min=1e-8).sqrt()
        deviation = (self.square - self.mean.square()).clamp(min=1e-8).sqrt()
        return (z - self.mean) / deviation

    @torch.no_grad()
    def update(self, z: Tensor) -> None:
        """Move the statistics towards those of z (N, count, dim); one not finite leaves them as they are.

        The mean drifts while the networks train, and against a mean that lags a deviation comes out too large
        (twice, in base-v1): a large batch has one of its own.
        """
        mean = self.mean.lerp(z.mean(0), self.momentum)
        if len(z) >= LARGE_BATCH:
            before = (self.square - self.mean.square()).clamp(min=0)
            square = mean.square() + before.lerp(z.var(0, correction=0), self.momentum)
        else:
            square = self.square.lerp(z.square().mean(0), self.momentum)
        # decided on the device: to ask there whether to go on would make a step wait for it
        finite = torch.isfinite(z).all()
        for buffer, newest in ((self.mean, mean), (self.square, square)):
            buffer.copy_(torch.where(finite, newest, buffer))


class HybridEncoder(nn.Module):
    """RGB to token vectors and detail features.

    `detail_map` and `detail_features` are where the detail path begins and ends; an ablation has its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        tokens, detail = config.tokens, config.detail
        self.legacy_reshape = tokens.legacy_reshape
        self.patch_embed = make_stem(config)
        width = stem_width(config)
        self.token_proj = nn.Linear(width, tokens.width) if width != tokens.width else nn.Identity()
        self.pix_emb_proj = nn.Linear(width, detail.width)
        self.latent_tokens = nn.Parameter(tokens.width**-0.5 * torch.randn(tokens.count, tokens.width))
        self.feat_in = swin_stack(detail.encoder_in_swin, detail.width, detail)
        self.path = TokenPath(tokens, detail, config.interact, encoder=True)
        self.conv_out = nn.Linear(tokens.width, tokens.code_dim)
        self.spread = RunningStandard(tokens.count, tokens.code_dim) if tokens.spread else nn.Identity()
        before = detail.encoder_in_swin + detail.mix[0] * len(config.interact.encoder_layers)
        self.feat_out = swin_stack(detail.encoder_out_swin, detail.width, detail, before)
        self.hidden = config.quant.hidden
        self.down = nn.Conv2d(detail.width, self.hidden, 2, stride=2)
        self.down_norm = nn.LayerNorm(self.hidden)
        self.down_proj = nn.Linear(self.hidden, self.hidden)

    def forward(self, pixels: Tensor, grid: Grid) -> Encoded:
        """Pixels (B, 3, H, W) in [0, 1] to both branches, unquantised."""
        x = self.patch_embed(pixels).permute(0, 2, 3, 1)
        detail = self.detail_map(x, grid)
        patches = cut(self.token_proj(x), grid.token)
        latents = self.latent_tokens.expand(patches.shape[0], -1, -1)
        x, detail = self.path(patches, latents, detail, grid)
        z = self.path.ln_post(x[:, -self.path.tokens :])
        if self.legacy_reshape:
            z = z.reshape(z.shape[0], z.shape[2], z.shape[1]).transpose(1, 2)
        return Encoded(self.spread(self.conv_out(z)), self.detail_features(detail, grid))

    def detail_map(self, stem: Tensor, grid: Grid) -> Tensor:
        """Where the detail path begins: the stem's map (B, h, w, stem width) to (B, h, w, detail width)."""
        return self.feat_in(self.pix_emb_proj(stem), grid)

    def detail_features(self, detail: Tensor, grid: Grid) -> Tensor:
        """Where it ends: (B, h, w, detail width) to features (B, hidden, h/2, w/2)."""
        feature = self.down(self.feat_out(detail, grid).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.down_proj(self.down_norm(feature)).permute(0, 3, 1, 2)


class HybridDecoder(nn.Module):
    """Token codes and detail features to two maps at 1/16; an ablation has its own `detail_map`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        tokens, detail = config.tokens, config.detail
        self.decoder_embed = nn.Linear(tokens.code_dim, tokens.width)
        self.mask_token = nn.Parameter(tokens.width**-0.5 * torch.randn(1, 1, tokens.width))
        self.missing = nn.Parameter(torch.zeros(tokens.width)) if tokens.tail_drop else None
        self.init_feat_up = nn.Conv2d(config.quant.hidden, 4 * detail.width, 1)
        self.feat_in = swin_stack(detail.decoder_in_swin, detail.width, detail)
        self.path = TokenPath(tokens, detail, config.interact, encoder=False)

    def forward(self, codes: Tensor, sent: Tensor, feature: Tensor, grid: Grid) -> Branches:
        """Return the token map (B, h, w, token width) and the detail map (B, h, w, detail width).

        codes: (B * windows, tokens, code dim).  sent: bool (B * windows, tokens).
        feature: (B, hidden, H/32, W/32).
        """
        latents = self.decoder_embed(codes)
        if self.missing is not None:
            latents = torch.where(sent[..., None], latents, self.missing.to(latents.dtype))
        detail = self.feat_in(self.detail_map(feature, grid), grid)
        patches = self.mask_token.expand(codes.shape[0], grid.token.gather.shape[1], -1)
        x, detail = self.path(patches, latents, detail, grid)
        tokens = self.path.ln_post(x[:, 1 : -self.path.tokens])
        return Branches(paste(tokens, grid.token, detail.shape[0]), detail)

    def detail_map(self, feature: Tensor, grid: Grid) -> Tensor:
        """Where the detail path begins: features (B, hidden, h/2, w/2) to (B, h, w, detail width)."""
        return F.pixel_shuffle(self.init_feat_up(feature), 2).permute(0, 2, 3, 1)
