"""VQGAN tokenizer (Esser et al. 2021, https://arxiv.org/abs/2012.09841): encoder, codebook, decoder.

Only the codebook, `post_quant_conv` and the decoder are needed to decode a DLF stream; the encoder
serves training.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.nn.model_config import VqganConfig
from dlf.nn.vq import VectorQuantizer


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.GroupNorm(32, channels, eps=1e-6) if kind == "group" else nn.Identity()


def _activate(kind: str, norm: str, x: Tensor) -> Tensor:
    """x: (B, C, h, w), what a norm of that kind gave, of no use afterwards; the result has its shape."""
    if kind == "leaky":
        return F.leaky_relu(x, 0.125)
    # at full size a new map costs more time than its numbers do
    return F.silu(x, inplace=norm != "none" and not x.requires_grad)


def _conv3(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1)


@torch.no_grad()
def _keep_variance(conv: nn.Conv2d, phases: int = 1) -> None:
    """Unit gain, no bias: a deep network without norms shrinks with the default.

    phases: output channels that a PixelShuffle will put side by side; they start alike, or the network
    starts with a checkerboard (ICNR, Aitken et al. 2017).
    """
    weight = conv.weight[::phases].clone()
    nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    conv.weight.copy_(weight.repeat_interleave(phases, 0))
    if conv.bias is not None:
        conv.bias.zero_()


SHORTCUT_NOISE = 0.5  # gain of what is random in a change of size that starts as a shortcut


@torch.no_grad()
def start_shortcuts(module: nn.Module) -> None:
    """Start changes of size as the free shortcuts of DC-AE (Chen et al. 2025) plus something random.

    Down: a place's 2x2 pixels become channels, of which groups are averaged; up: channels are repeated,
    then laid out.  Both are linear, so that adding them to a convolution is adding numbers to its weights:
    training takes the same way as with the shortcut beside it, and nothing is left to compute.
    """
    for layer in module.modules():
        if isinstance(layer, Downsample):
            weight = layer.conv.weight  # (c_out, c_in, 3, 3), centre at the upper left of the 2x2 pixels
            weight.mul_(SHORTCUT_NOISE)
            group = 4 * weight.shape[1] // weight.shape[0]
            for place in range(4 * weight.shape[1]):
                channel, row, col = place // 4, place // 2 % 2, place % 2
                weight[place // group, channel, 1 + row, 1 + col] += 1 / group**0.5
        elif isinstance(layer, Upsample):
            weight = layer.conv.weight  # (4 c_out, c_in, 1, 1)
            weight.mul_(SHORTCUT_NOISE)
            group = weight.shape[0] // weight.shape[1]
            for place in range(weight.shape[0]):
                weight[place, place // group] += 1


class ResBlock(nn.Module):
    """Pre-activation residual block, twice (norm, activation, conv 3x3).

    (B, c_in, h, w) to (B, c_out, h, w), and where c_in is c_out it may be written over in inference.
    """

    def __init__(self, c_in: int, c_out: int, norm: str, activation: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(norm, c_in), _norm(norm, c_out)
        self.conv1, self.conv2 = _conv3(c_in, c_out), _conv3(c_out, c_out)
        self.nin_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.norm, self.activation = norm, activation
        if norm == "none":
            # without a norm a deep plain network shrinks (default init) or explodes (unit gain
            # everywhere): keep the variance in the first conv, start the branch small
            nn.init.kaiming_normal_(self.conv1.weight, a=0.125)
            nn.init.zeros_(self.conv1.bias)  # type: ignore[arg-type]
            nn.init.normal_(self.conv2.weight, std=0.1 * (9 * c_out) ** -0.5)
            nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(_activate(self.activation, self.norm, self.norm1(x)))
        h = self.conv2(_activate(self.activation, self.norm, self.norm2(h)))
        if self.norm == "none" or h.requires_grad:
            return self.nin_shortcut(x) + h
        return h.add_(self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions: (B, channels, h, w) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm("group", channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(out)


class Downsample(nn.Module):
    """Half the size: (B, c_in, h, w) to (B, c_out, h/2, w/2) by a conv 3x3 of stride 2.

    For "conv" it is padded right and bottom only, as in taming.
    """

    def __init__(self, c_in: int, c_out: int, kind: str) -> None:
        super().__init__()
        self.uneven = kind == "conv"
        self.conv = nn.Conv2d(c_in, c_out, 3, stride=2, padding=0 if self.uneven else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.uneven else x)


class Upsample(nn.Module):
    """Twice the size: (B, c_in, h, w) to (B, c_out, 2h, 2w).

    Nearest + conv 3x3 ("conv"), or conv 1x1 + PixelShuffle ("shuffle").
    """

    def __init__(self, c_in: int, c_out: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = _conv3(c_in, c_out) if kind == "conv" else nn.Conv2d(c_in, 4 * c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "conv":
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.conv(x), 2)


class Level(nn.Module):
    """Residual blocks (with attention after each, at 1/16) and the resampling of one level.

    (B, c_in, h, w) to (B, c, h', w'): c is c_out and the size stays, unless a `downsample` or `upsample` that
    was put in changes both.
    """

    def __init__(self, c_in: int, c_out: int, blocks: int, config: VqganConfig, *, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResBlock(c_in if i == 0 else c_out, c_out, config.norm, config.activation) for i in range(blocks)
        )
        self.attn = nn.ModuleList(AttnBlock(c_out) for _ in range(blocks if attention else 0))
        # one of them at every level but the last of its direction
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return self.upsample(self.downsample(x))


class Middle(nn.Module):
    """Two residual blocks with attention between, or nothing: (B, channels, h, w) to the same shape."""

    def __init__(self, channels: int, config: VqganConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleDict()
        if config.mid_blocks:
            self.stages["block_1"] = ResBlock(channels, channels, config.norm, config.activation)
            if config.attention:
                self.stages["attn_1"] = AttnBlock(channels)
            self.stages["block_2"] = ResBlock(channels, channels, config.norm, config.activation)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages.values():
            x = stage(x)
        return x


class Encoder(nn.Module):
    """RGB (B, 3, H, W) in [-1, 1] to (B, code_dim, H/16, W/16)."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        widths = config.channels
        last = len(widths) - 1
        self.patch = config.patch
        self.conv_in = _conv3(3 * config.patch**2, widths[0])
        self.down = nn.ModuleList()
        for i, blocks in enumerate(config.encoder_blocks):
            before = widths[max(i - 1, 0)] if config.resample == "conv" else widths[i]
            level = Level(before, widths[i], blocks, config, attention=config.attention and i == last)
            if i < last:
                after = widths[i] if config.resample == "conv" else widths[i + 1]
                level.downsample = Downsample(widths[i], after, config.resample)
            self.down.append(level)
        self.mid = Middle(widths[-1], config)
        self.norm_out = _norm(config.norm, widths[-1])
        self.conv_out = _conv3(widths[-1], config.code_dim)
        self.norm, self.activation = config.norm, config.activation
        if config.norm == "none":
            resamplers = [m.conv for m in self.modules() if isinstance(m, Downsample)]
            for conv in [self.conv_in, *resamplers, self.conv_out]:
                _keep_variance(conv)
        if config.shortcut:
            start_shortcuts(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(F.pixel_unshuffle(x, self.patch))
        for level in self.down:
            x = level(x)
        return self.conv_out(_activate(self.activation, self.norm, self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """(B, code_dim, h, w) to patches of RGB in about [-1, 1]: (B, 3 patch^2, 16h / patch, 16w / patch).

    `lay_out_patches` makes an image of them; with a patch of 1 they are one.
    """

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        widths = config.channels
        last = len(widths) - 1
        self.conv_in = _conv3(config.code_dim, widths[-1])
        self.mid = Middle(widths[-1], config)
        levels: list[Level] = []
        for i in range(last, -1, -1):
            before = widths[min(i + 1, last)] if config.resample == "conv" else widths[i]
            level = Level(
                before, widths[i], config.decoder_blocks[i], config, attention=config.attention and i == last
            )
            if i > 0:
                after = widths[i] if config.resample == "conv" else widths[i - 1]
                level.upsample = Upsample(widths[i], after, config.resample)
            levels.append(level)
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = _norm(config.norm, widths[0])
        self.patch = config.patch
        self.conv_out = _conv3(widths[0], 3 * config.patch**2)
        self.norm, self.activation = config.norm, config.activation
        if config.norm == "none":
            _keep_variance(self.conv_in)
            _keep_variance(self.conv_out, self.patch**2)
            for module in self.modules():
                if isinstance(module, Upsample):
                    _keep_variance(module.conv, 4 if module.kind == "shuffle" else 1)
        if config.shortcut:
            start_shortcuts(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(_activate(self.activation, self.norm, self.norm_out(x)))


def lay_out_patches(patches: Tensor) -> Tensor:
    """Patches (B, 3 patch^2, rows, cols), as `Decoder` gives them, to RGB (B, 3, patch rows, patch cols)."""
    return F.pixel_shuffle(patches, math.isqrt(patches.shape[1] // 3))


class Vqgan(nn.Module):
    """The tokenizer: `encode` to continuous latents, `quantize` if it has codes, `decode` to pixels."""

    def __init__(self, config: VqganConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.code_dim, config.code_dim, 1)
        self.quantize = (
            VectorQuantizer(config.codes, config.code_dim, normalise=False) if config.codes else None
        )
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.code_dim, 1)
        self.decoder = Decoder(config)

    def encode(self, x: Tensor) -> Tensor:
        """RGB (B, 3, H, W) in [-1, 1] to unquantised latents (B, H/16, W/16, code_dim)."""
        return self.quant_conv(self.encoder(x)).permute(0, 2, 3, 1)

    def decode(self, latent: Tensor) -> Tensor:
        """(Mixtures of) codes (B, h, w, code_dim) to RGB (B, 3, 16h, 16w) in about [-1, 1]."""
        return lay_out_patches(self.decode_patches(latent))

    def decode_patches(self, latent: Tensor) -> Tensor:
        """(Mixtures of) codes (B, h, w, code_dim) to what `Decoder` gives."""
        return self.decoder(self.post_quant_conv(latent.permute(0, 3, 1, 2)))
