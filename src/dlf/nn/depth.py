"""The depthwise block of DCVC that DLF uses around the latent (Li et al. 2023)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from dlf.nn.exact import Arithmetic


class DepthConv(nn.Module):
    """1x1, LeakyReLU, depthwise 3x3, 1x1, plus identity (1x1 if the widths differ).

    (B, c_in, h, w) to (B, c_out, h, w).
    """

    def __init__(self, c_in: int, c_out: int, math: Arithmetic) -> None:
        super().__init__()
        self.math = math
        self.conv1 = math.conv(c_in, c_in)
        self.depth_conv = math.conv(c_in, c_in, 3, groups=c_in)
        self.conv2 = math.conv(c_in, c_out)
        self.adaptor = math.conv(c_in, c_out) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.depth_conv(self.math.leaky(self.conv1(x), 0.01))
        return self.math.add(self.conv2(h), self.adaptor(x))


class ConvFfn(nn.Module):
    """1x1 to 4c; two halves with different leaks are added; 1x1 back; plus identity.

    (B, c, h, w) to the same shape.
    """

    def __init__(self, channels: int, math: Arithmetic) -> None:
        super().__init__()
        self.math = math
        self.conv = math.conv(channels, 4 * channels)
        self.conv_out = math.conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv(x).chunk(2, 1)
        h = self.math.add(self.math.leaky(first, 0.1), self.math.leaky(second, 0.01))
        return self.math.add(x, self.conv_out(h))


class DepthBlock(nn.Sequential):
    """DepthConv, then ConvFfn: (B, c_in, h, w) to (B, c_out, h, w)."""

    def __init__(self, c_in: int, c_out: int, math: Arithmetic) -> None:
        super().__init__(DepthConv(c_in, c_out, math), ConvFfn(c_out, math))


def depth_stack(widths: list[int], math: Arithmetic) -> nn.Sequential:
    """A chain of depth blocks: (B, widths[0], h, w) to (B, widths[-1], h, w)."""
    return nn.Sequential(*(DepthBlock(a, b, math) for a, b in pairwise(widths)))
