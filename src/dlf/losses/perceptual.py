"""Perceptual distances for training: LPIPS itself, and one of its form on a network that is at hand.

LPIPS (Zhang et al. 2018) compares unit-normalised feature vectors of VGG-16 under weights learned from
human judgements; the library `lpips` brings them, torchvision downloads the network.  `StemDistance` has
neither: it is not LPIPS and is never reported under that name.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from dlf.extras import loaded

LPIPS_VGG = "lpips-vgg"


class ConvBn(nn.Module):
    """A convolution with the batch norm of Inception-v3 (eps 1e-3) folded in, and ReLU."""

    def __init__(self, weights: dict[str, Tensor], name: str, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        conv = weights[f"{name}.conv.weight"]
        gain = weights[f"{name}.bn.weight"] / (weights[f"{name}.bn.running_var"] + 1e-3).sqrt()
        shift = weights[f"{name}.bn.bias"] - weights[f"{name}.bn.running_mean"] * gain
        self.register_buffer("weight", (conv * gain[:, None, None, None]).contiguous())
        self.register_buffer("bias", shift)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(F.conv2d(x, self.weight, self.bias, self.stride, self.padding))  # type: ignore[arg-type]


class InceptionA(nn.Module):
    """Mixed_5b to Mixed_5d of Inception-v3."""

    def __init__(self, weights: dict[str, Tensor], name: str) -> None:
        super().__init__()
        self.b1 = ConvBn(weights, f"{name}.branch1x1")
        self.b5 = nn.Sequential(
            ConvBn(weights, f"{name}.branch5x5_1"), ConvBn(weights, f"{name}.branch5x5_2", padding=2)
        )
        self.b3 = nn.Sequential(
            ConvBn(weights, f"{name}.branch3x3dbl_1"),
            ConvBn(weights, f"{name}.branch3x3dbl_2", padding=1),
            ConvBn(weights, f"{name}.branch3x3dbl_3", padding=1),
        )
        self.pool = ConvBn(weights, f"{name}.branch_pool")

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(F.avg_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([self.b1(x), self.b5(x), self.b3(x), pooled], 1)


class StemFeatures(nn.Module):
    """First layers of Inception-v3: RGB (B, 3, H, W) in [-1, 1] to five feature maps."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        w = load_file(path)
        self.c1a = ConvBn(w, "Conv2d_1a_3x3", stride=2)
        self.c2a = ConvBn(w, "Conv2d_2a_3x3")
        self.c2b = ConvBn(w, "Conv2d_2b_3x3", padding=1)
        self.c3b = ConvBn(w, "Conv2d_3b_1x1")
        self.c4a = ConvBn(w, "Conv2d_4a_3x3")
        self.m5b, self.m5c, self.m5d = (InceptionA(w, f"Mixed_5{c}") for c in "bcd")

    def forward(self, x: Tensor) -> list[Tensor]:
        c1 = self.c1a(x)
        c2 = self.c2b(self.c2a(c1))
        c4 = self.c4a(self.c3b(F.max_pool2d(c2, 3, stride=2)))
        m5b = self.m5b(F.max_pool2d(c4, 3, stride=2))
        return [c1, c2, c4, m5b, self.m5d(self.m5c(m5b))]


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Mean over layers and places of the squared distance of unit feature vectors: (B,), each 0..4."""
    total = torch.zeros(a[0].shape[0], device=a[0].device)
    for x, y in zip(a, b, strict=True):
        scale_x = torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-8)
        scale_y = torch.rsqrt(y.square().sum(1, keepdim=True) + 1e-8)
        total = total + (x * scale_x - y * scale_y).square().sum(1).mean((1, 2))
    return total / len(a)


class StemDistance(nn.Module):
    """Distance of two RGB batches in [-1, 1] by the Inception stem: (B,).

    Reacts to blur and lost texture; blind to fine grids, so watch another network beside it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.features = StemFeatures(path).eval().requires_grad_(False)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            originals = self.features(target)
        return feature_distance(self.features(x), originals)


class LpipsDistance(nn.Module):
    """LPIPS 0.1 over VGG-16, the paper's perceptual term, of two RGB batches in [-1, 1]: (B,).

    random_weights: of VGG-16, for tests; otherwise torchvision downloads its own when they are first used.

    Raises:
        MissingExtra: the library is not installed, or its torchvision does not fit torch.
        OSError: the weights of VGG-16 are neither in torchvision's cache nor to be downloaded.
    """

    def __init__(self, *, random_weights: bool = False) -> None:
        super().__init__()
        library = loaded("lpips", "pip install 'dlf-codec[lpips]'")
        with warnings.catch_warnings():
            # the library still names weights the way torchvision did before
            warnings.simplefilter("ignore", UserWarning)
            self.network = library.LPIPS(net="vgg", pnet_rand=random_weights, verbose=False)
        self.network.eval().requires_grad_(False)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        distance: Tensor = self.network(x, target)
        return distance.flatten()


def perceptual_distance(source: str) -> nn.Module:
    """The distance that a run names: "lpips-vgg", or the path of the Inception stem's weights.

    Raises:
        ValueError: there is no such file.
        MissingExtra, OSError: see `LpipsDistance`.
    """
    if source == LPIPS_VGG:
        return LpipsDistance()
    if not Path(source).is_file():
        msg = f"--perceptual takes {LPIPS_VGG} or a weights file; there is no file {source}"
        raise ValueError(msg)
    return StemDistance(Path(source))
