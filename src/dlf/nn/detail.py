"""Scalar-quantised detail branch: transforms with a quality gain, and the four-step walk in torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlf.entropy.quadtree import GROUPS, POSITION, STEPS
from dlf.nn.config import QuantConfig, TokenConfig
from dlf.nn.context import STEP_UNIT, ContextModel, interpolate_anchors
from dlf.nn.depth import depth_stack
from dlf.nn.exact import ACTIVATION_UNIT, Arithmetic
from dlf.nn.rate import gaussian_bits, round_ste


class Quantised(NamedTuple):
    """A quantised latent and its cost.

    y_hat: dequantised latent (B, C, h, w).  bits: estimated bits of each sample (B,).
    active: fraction of symbols that are not skipped.  loss, vectors: of code books, if there are any
    (`dlf.nn.ablation`): vectors (N, dim) and their codes (N,).
    """

    y_hat: Tensor
    bits: Tensor
    active: Tensor | float
    loss: Tensor | float = 0.0
    vectors: tuple[tuple[Tensor, Tensor], ...] = ()


def step_places(channels: int) -> Tensor:
    """Row and column of a 2x2 cell that each step codes of each channel: uint8 (2, 4, channels)."""
    groups = torch.tensor(POSITION, dtype=torch.uint8).permute(2, 0, 1)
    return groups.repeat_interleave(channels // GROUPS, 2)


def place_masks(places: Tensor, rows: int, cols: int) -> Tensor:
    """`dlf.entropy.quadtree.step_masks` as tensor operations: bool (4, channels, rows, cols).

    places: see `step_places`.
    """
    row, col = (torch.arange(size, device=places.device) % 2 for size in (rows, cols))
    return (row[:, None] == places[0, ..., None, None]) & (col == places[1, ..., None, None])


class Transforms(nn.Module):
    """Features (B, hidden, h, w) to y of `channels` channels and back, with gains by the quality."""

    def __init__(self, config: QuantConfig, channels: int) -> None:
        super().__init__()
        hidden, blocks = config.hidden, config.blocks
        plain = Arithmetic(integer=False)
        self.enc_trans_0 = depth_stack([hidden] * (blocks + 1), plain)
        self.enc_trans_1 = depth_stack([hidden] * blocks + [channels], plain)
        self.dec_trans_0 = depth_stack([channels] + [hidden] * blocks, plain)
        self.dec_trans_1 = depth_stack([hidden] * (blocks + 1), plain)
        # start with a latent of deviation 1 or more: one that rounds to zero everywhere never learns
        last = self.get_parameter(f"enc_trans_1.{blocks - 1}.0.adaptor.weight")
        nn.init.normal_(last, std=2 * hidden**-0.5)
        gain = torch.logspace(-0.3, 0.3, config.qualities) if config.qualities > 1 else torch.ones(1)
        self.enc_q = nn.Parameter(gain[:, None].repeat(1, hidden))
        self.dec_q = nn.Parameter(1 / gain[:, None].repeat(1, hidden))

    def latent(self, feature: Tensor, quality: Tensor) -> Tensor:
        """Features to y.  quality: (B,) in [0, 100]."""
        gain = interpolate_anchors(self.enc_q, quality)[..., None, None]
        return self.enc_trans_1(self.enc_trans_0(feature) * gain)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat to features."""
        gain = interpolate_anchors(self.dec_q, quality)[..., None, None]
        return self.dec_trans_1(self.dec_trans_0(y_hat) * gain)


class DetailQuantizer(Transforms):
    """The scalar quantiser: y, its four-step walk and its rate; tokens: see `ContextModel`."""

    places: Tensor

    def __init__(self, config: QuantConfig, tokens: TokenConfig | None = None) -> None:
        super().__init__(config, config.channels)
        self.context = ContextModel(config, tokens)
        self.register_buffer("places", step_places(config.channels), persistent=False)

    def analyse(self, feature: Tensor, quality: Tensor) -> Tensor:
        """Features to y, not divided by the step.  quality: (B,) in [0, 100]."""
        return self.latent(feature, quality)

    def quantise(self, y: Tensor, quality: Tensor, told: Tensor | None = None) -> Quantised:
        """Walk the four steps: noise for the rate in training, rounding for what is decoded.

        told: what the tokens tell the prior, see `ContextModel.prior`.
        In evaluation symbols are whole numbers and skipped where the codec skips them.
        """
        mean_unit, step_unit = (ACTIVATION_UNIT, STEP_UNIT) if self.context.integer else (1, 1)
        vector = self.context.prior_vector(quality).expand(-1, -1, *y.shape[2:])
        params, step, common = self.context.prior(vector, told)
        scaled = y / (step / step_unit)
        masks = place_masks(self.places, *y.shape[2:])
        y_hat = torch.zeros_like(y)
        bits = torch.zeros_like(y)
        active: Tensor | float = 0.0
        for index in range(STEPS):
            if index:
                # no gradient through what is known: four networks in a row would explode
                params = self.context.context(index - 1, y_hat.detach(), common)
            residual = scaled - params.mean / mean_unit
            sigma = self.context.sigma(params.scale)
            if self.training:
                symbol = round_ste(residual)
                noisy = residual + torch.rand_like(residual) - 0.5
                spent = gaussian_bits(noisy, sigma)
            else:
                sent = params.scale >= 1 if self.context.integer else params.scale >= 0.12
                symbol = torch.where(sent, residual.round(), 0.0)
                spent = torch.where(sent, gaussian_bits(symbol, sigma), 0.0)
                active = active + (sent & masks[index]).float().mean()
            y_hat = torch.where(masks[index], symbol * mean_unit + params.mean, y_hat)
            bits = torch.where(masks[index], spent, bits)
        return Quantised(y_hat / mean_unit * (step / step_unit), bits.sum((1, 2, 3)), active)
