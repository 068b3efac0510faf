"""Arithmetic of the context network: ordinary floats, or integers kept in float tensors.

Integer mode: activations are whole numbers in units of 1/16, clamped to +-255; weights are whole
numbers in units of 1/64, clamped to +-127; products are summed, rescaled by a power of two and floored.
With at most 500 inputs to a sum every partial sum stays below 2**24 (500 * 127 * 255 + 2**19 = 16.7 M),
so float32 represents each one exactly and the result is the same on any machine in any order of
summation.  Training sees the same numbers through straight-through gradients.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATION_UNIT = 16
ACTIVATION_LIMIT = 255
FAN_IN_LIMIT = 500
WEIGHT_UNIT = 64
WEIGHT_LIMIT = 127
BIAS_LIMIT = 2**19


def floor_ste(x: Tensor) -> Tensor:
    """Floor, any shape, with the gradient of the identity."""
    return x + (x.floor() - x).detach() if torch.is_grad_enabled() else x.floor()


def clamp_ste(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp, any shape, with the gradient of the identity, so that a saturated value can come back."""
    return x + (x.clamp(low, high) - x).detach() if torch.is_grad_enabled() else x.clamp(low, high)


def round_half_up(x: Tensor) -> Tensor:
    """Nearest integer, any shape, halves upwards, straight-through."""
    return floor_ste(x + 0.5)


class WholeConv2d(nn.Conv2d):
    """A convolution whose parameters are whole numbers already; what is exported.

    (B, c_in, h, w) to (B, c_out, h, w).
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, h, w), whole numbers within the activation limit; so is the result."""
        return rescale(super().forward(x))


class IntegerConv2d(nn.Conv2d):
    """The same with real parameters, made whole on every use, so that they can be trained.

    (B, c_in, h, w) to (B, c_out, h, w).
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `WholeConv2d`, with a gradient."""
        weight, bias = self.integers()
        return rescale(F.conv2d(x, weight, bias, padding=self.padding, groups=self.groups))

    def integers(self) -> tuple[Tensor, Tensor]:
        """Weight (c_out, c_in / groups, k, k) and bias (c_out,) as the whole numbers that count."""
        assert self.bias is not None
        weight = clamp_ste(round_half_up(self.weight * WEIGHT_UNIT), -WEIGHT_LIMIT, WEIGHT_LIMIT)
        unit = WEIGHT_UNIT * ACTIVATION_UNIT
        return weight, clamp_ste(round_half_up(self.bias * unit), -BIAS_LIMIT, BIAS_LIMIT)

    @torch.no_grad()
    def whole(self) -> WholeConv2d:
        """A copy with whole parameters."""
        size = (self.kernel_size[0], self.kernel_size[1])
        conv = WholeConv2d(
            self.in_channels, self.out_channels, size, padding=size[0] // 2, groups=self.groups
        )
        weight, bias = self.integers()
        conv.weight.copy_(weight)
        assert conv.bias is not None
        conv.bias.copy_(bias)
        return conv


M = TypeVar("M", bound=nn.Module)


def with_whole_weights(module: M) -> M:
    """A copy of a module in which every integer convolution holds whole numbers."""
    copied = copy.deepcopy(module)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if isinstance(child, IntegerConv2d):
                setattr(parent, name, child.whole())
    return copied


def rescale(total: Tensor) -> Tensor:
    """Sums of products back to activation units, any shape: divide by a power of two, round, clamp."""
    return settle(round_half_up(total / WEIGHT_UNIT))


def settle(x: Tensor) -> Tensor:
    """Clamp whole numbers to the activation limit, any shape.

    There is no gradient beyond it, or a deep chain explodes.
    """
    return x.clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


class Arithmetic:
    """Chooses the operations of a network part; one body of the part serves both kinds."""

    def __init__(self, *, integer: bool) -> None:
        self.integer = integer

    def conv(self, c_in: int, c_out: int, kernel: int = 1, groups: int = 1) -> nn.Conv2d:
        """A convolution of stride 1 that keeps the size."""
        if self.integer and (c_in // groups) * kernel * kernel > FAN_IN_LIMIT:
            msg = f"a sum of {c_in // groups}x{kernel}x{kernel} products is not exact; at most {FAN_IN_LIMIT}"
            raise ValueError(msg)
        cls = IntegerConv2d if self.integer else nn.Conv2d
        return cls(c_in, c_out, kernel, padding=kernel // 2, groups=groups)

    def leaky(self, x: Tensor, slope: float) -> Tensor:
        """LeakyReLU, any shape.

        In integers the slope is the nearest power of two, and what is below 0 is floored.
        """
        if not self.integer:
            return F.leaky_relu(x, slope)
        power = 2.0 ** round(math.log2(slope))
        return torch.where(x >= 0, x, floor_ste(x * power))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of two tensors of one shape; in integers within the activation limit."""
        return settle(x + y) if self.integer else x + y
