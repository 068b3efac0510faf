"""Discriminators as exchangeable parts: each embeds an image and judges what it embedded.

The frozen part of a discriminator (`embed`) is apart from the trained one (`forward`), so that it is computed
once for the codec's turn and for its own; what a network of frozen features makes of an image comes from
outside, since other terms look at it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

Kind = Literal["patch", "features", "pixels"]

LEAK = 0.2
MIXED = 64  # channels that each scale of frozen features is mixed to


class View(NamedTuple):
    """An image to judge.

    pixels: RGB (B, 3, H, W) in [-1, 1].  maps: what `LiteFeatures` makes of it; none where nothing looks at
    them.
    """

    pixels: Tensor
    maps: Sequence[Tensor] = ()


class PatchDiscriminator(nn.Module):
    """PatchGAN of pix2pix (Isola et al. 2017): RGB (B, 3, H, W) in [-1, 1] to logits (B, 1, ~H/8, ~W/8)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        widths = [3, *(width * min(2**i, 8) for i in range(layers + 1))]
        self.blocks = nn.ModuleList()
        for i in range(layers + 1):
            stride = 2 if i < layers else 1
            conv = nn.Conv2d(widths[i], widths[i + 1], 4, stride, 1, bias=i == 0)
            norm = nn.BatchNorm2d(widths[i + 1]) if i else nn.Identity()
            self.blocks.append(nn.Sequential(conv, norm, nn.LeakyReLU(LEAK)))
        self.head = nn.Conv2d(widths[-1], 1, 4, 1, 1)

    def embed(self, view: View) -> list[Tensor]:
        """Nothing is frozen: the image itself."""
        return [view.pixels]

    def forward(self, embedded: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits, and the feature maps on the way."""
        x, features = embedded[0], []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return [self.head(x)], features


class PixelDiscriminator(nn.Module):
    """A small one on pixels, which sees the fine grids that the first stride of a feature network hides.

    Spectral-normalised (Miyato et al. 2018); logits (B, 1, H/4, W/4).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        plan = ((3, width, 1), (width, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        layers: list[nn.Module] = []
        for c_in, c_out, stride in plan:
            layers += [spectral_norm(nn.Conv2d(c_in, c_out, 3, stride, 1)), nn.LeakyReLU(LEAK)]
        self.body = nn.Sequential(*layers, spectral_norm(nn.Conv2d(2 * width, 1, 3, 1, 1)))

    def embed(self, view: View) -> list[Tensor]:
        """Nothing is frozen: the image itself."""
        return [view.pixels]

    def forward(self, embedded: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits; no features are handed out."""
        return [self.body(embedded[0])], []


class _FrozenConv(nn.Module):
    """A convolution whose weights are data."""

    def __init__(self, weights: dict[str, Tensor], name: str, stride: int, groups: int) -> None:
        super().__init__()
        weight = weights[f"{name}.weight"].float().contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", weights[f"{name}.bias"].float(), persistent=False)
        self.stride, self.groups, self.padding = stride, groups, weight.shape[-1] // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)  # type: ignore[arg-type]


class _InvertedResidual(nn.Module):
    """Block of EfficientNet-lite0: expand 1x1, depthwise, project 1x1, plus identity where it fits."""

    def __init__(self, weights: dict[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        self.expand = (
            _FrozenConv(weights, f"{name}.expand", 1, 1) if f"{name}.expand.weight" in weights else None
        )
        depth = weights[f"{name}.depthwise.weight"].shape[0]
        self.depthwise = _FrozenConv(weights, f"{name}.depthwise", stride, depth)
        self.project = _FrozenConv(weights, f"{name}.project", 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if h.shape == x.shape else h


class LiteFeatures(nn.Module):
    """EfficientNet-lite0 to its tenth block: RGB (B, 3, H, W) in [-1, 1] to maps at 1/2, 1/4, 1/8, 1/16.

    weights: safetensors with batch norms folded in: `stem`, `blocks.i` of `expand`, `depthwise`, `project`.

    Raises:
        ValueError: the file does not hold these layers.
    """

    STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1)
    TAPS = (0, 2, 4, 10)
    WIDTHS = (16, 24, 40, 112)

    def __init__(self, weights: Path) -> None:
        super().__init__()
        try:
            tensors = load_file(weights)
            self.stem = _FrozenConv(tensors, "stem", 2, 1)
            self.blocks = nn.ModuleList(
                _InvertedResidual(tensors, f"blocks.{i}", stride) for i, stride in enumerate(self.STRIDES)
            )
        except Exception as error:  # whatever a damaged file makes the reader raise
            msg = f"'{weights}' does not hold the layers of EfficientNet-lite0 ({type(error).__name__})"
            raise ValueError(msg) from error

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(x))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.TAPS:
                maps.append(x)
        return maps


class FeatureDiscriminator(nn.Module):
    """Heads on the scales of a frozen network (Projected GAN, Sauer et al. 2021).

    Each scale is mixed to `MIXED` channels by a fixed random 1x1 matrix, so that no head can settle on a few
    strong features, and judged by three spectral-normalised 3x3 convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.ParameterList()
        self.heads = nn.ModuleList()
        for width in LiteFeatures.WIDTHS:
            mix = nn.Parameter(torch.randn(MIXED, width, 1, 1) * (2 / width) ** 0.5, requires_grad=False)
            self.mixing.append(mix)
            self.heads.append(
                nn.Sequential(
                    spectral_norm(nn.Conv2d(MIXED, MIXED, 3, padding=1)),
                    nn.LeakyReLU(LEAK),
                    spectral_norm(nn.Conv2d(MIXED, MIXED, 3, padding=1)),
                    nn.LeakyReLU(LEAK),
                    spectral_norm(nn.Conv2d(MIXED, 1, 3, padding=1)),
                )
            )

    def embed(self, view: View) -> list[Tensor]:
        """Mixed features: (B, MIXED, h, w) at four scales."""
        return [F.conv2d(m, mix.to(m.dtype)) for m, mix in zip(view.maps, self.mixing, strict=True)]

    def forward(self, embedded: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, 1, h, w) of each scale; no features are handed out."""
        return [head(m) for head, m in zip(self.heads, embedded, strict=True)], []


Discriminator = PatchDiscriminator | PixelDiscriminator | FeatureDiscriminator


def make_discriminators(kinds: Sequence[Kind], width: int, layers: int) -> dict[str, Discriminator]:
    """The discriminators of these kinds; width, layers: of "patch" and, half as wide, "pixels"."""
    discriminators: dict[str, Discriminator] = {}
    for kind in kinds:
        if kind == "patch":
            discriminators[kind] = PatchDiscriminator(width, layers)
        elif kind == "pixels":
            discriminators[kind] = PixelDiscriminator(width // 2)
        else:
            discriminators[kind] = FeatureDiscriminator()
    return discriminators
