"""The detail branch between its features and its symbols: transforms, quantiser, rate.

`DetailBranch` is what the codec asks of it.  `DetailQuantizer` is the paper's, with a quality gain and the
four-step walk in torch; what takes its place in an ablation is in `dlf.nn.ablation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlf.entropy.quadtree import GROUPS, POSITION, STEPS
from dlf.nn.context import STEP_UNIT, Context, ContextModel, interpolate_anchors
from dlf.nn.depth import depth_stack
from dlf.nn.exact import ACTIVATION_UNIT, Arithmetic
from dlf.nn.model_config import QuantConfig, TokenConfig
from dlf.nn.vq import VectorQuantizer

FLOAT_SKIP_BELOW = 0.12  # deviation below which the float model does not send a symbol


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


class DetailBranch(nn.Module, ABC):
    """What the codec asks of the details, between features (B, hidden, h, w) and a latent (B, C, h, w).

    h, w are H/32, W/32; quality is (B,) in [0, 100].  context: how likely each symbol is.
    """

    context: Context

    @abstractmethod
    def analyse(self, feature: Tensor, quality: Tensor) -> Tensor:
        """Features (B, hidden, h, w) to the latent y (B, C, h, w), not divided by the step."""

    @abstractmethod
    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """The dequantised latent (B, C, h, w) to features (B, hidden, h, w)."""

    @abstractmethod
    def quantise(self, y: Tensor, quality: Tensor, told: Tensor | None = None) -> Quantised:
        """The latent (B, C, h, w) as a decoder would have it, and its cost.

        told: what the tokens tell the prior, see `ContextModel.prior`.
        """

    def codebooks(self) -> list[VectorQuantizer]:
        """Code books of the details; none where symbols are numbers."""
        return []


def gaussian_bits(v: Tensor, sigma: Tensor) -> Tensor:
    """Bits of the interval v +- 1/2 under a zero-mean normal of deviation sigma, element by element.

    v, sigma: one shape, or broadcast to one; so is the result.  Good to 0.01 bits up to 17 bits, where
    differences of float32 probabilities lose their precision, and at most 34 bits.
    """
    v = v.abs()
    upper = torch.special.ndtr((0.5 - v) / sigma)
    lower = torch.special.ndtr((-0.5 - v) / sigma)
    likelihood = upper - lower
    # beyond the floor the gradient comes from a quadratic, so that outliers are still pulled in
    floor = 2.0**-24
    far = 24 + 0.1 * (v / sigma).square().clamp(max=100.0)
    return torch.where(likelihood > floor, -torch.log2(likelihood.clamp(min=floor)), far)


def training_bits(residual: Tensor, symbol: Tensor, sigma: Tensor) -> Tensor:
    """Bits of whole symbols, all of one shape, with two gradients.

    What is coded has that of a residual with uniform noise in place of rounding; deviations have that of the
    symbols themselves (Guo et al. 2021, soft then hard): fitted to noise, they are wrong where nearly all
    symbols are 0, and a bundle trained so paid 1.5 to 2 % of its bits for that.
    """
    noisy = gaussian_bits(residual + torch.rand_like(residual) - 0.5, sigma.detach())
    return gaussian_bits(symbol.detach(), sigma) + (noisy - noisy.detach())


def round_ste(x: Tensor) -> Tensor:
    """Round, any shape, with the gradient of the identity."""
    return x + (x.round() - x).detach()


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


class Transforms(DetailBranch):
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
        """Features (B, hidden, h, w) to y (B, channels, h, w).  quality: (B,) in [0, 100]."""
        gain = interpolate_anchors(self.enc_q, quality)[..., None, None]
        return self.enc_trans_1(self.enc_trans_0(feature) * gain)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat (B, channels, h, w) to features (B, hidden, h, w).  quality: (B,) in [0, 100]."""
        gain = interpolate_anchors(self.dec_q, quality)[..., None, None]
        return self.dec_trans_1(self.dec_trans_0(y_hat) * gain)


class DetailQuantizer(Transforms):
    """The scalar quantiser: y, its four-step walk and its rate.

    tokens: see `ContextModel`.
    """

    context: ContextModel
    places: Tensor

    def __init__(self, config: QuantConfig, tokens: TokenConfig | None = None) -> None:
        super().__init__(config, config.channels)
        self.context = ContextModel(config, tokens)
        self.register_buffer("places", step_places(config.channels), persistent=False)

    def analyse(self, feature: Tensor, quality: Tensor) -> Tensor:
        """Features (B, hidden, h, w) to y (B, C, h, w), not divided by the step.  quality: (B,)."""
        return self.latent(feature, quality)

    def quantise(self, y: Tensor, quality: Tensor, told: Tensor | None = None) -> Quantised:
        """Walk the four steps: noise for the rate in training, rounding for what is decoded.

        y: (B, C, h, w).  quality: (B,) in [0, 100].  told: what the tokens tell the prior, see
        `ContextModel.prior`.
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
                # no gradient through what is decoded: four networks in a row would explode
                params = self.context.context(index - 1, y_hat.detach(), common)
            residual = scaled - params.mean / mean_unit
            sigma = self.context.sigma(params.scale)
            if self.training:
                symbol = round_ste(residual)
                spent = training_bits(residual, symbol, sigma)
            else:
                sent = params.scale >= (1 if self.context.integer else FLOAT_SKIP_BELOW)
                symbol = torch.where(sent, residual.round(), 0.0)
                spent = torch.where(sent, gaussian_bits(symbol, sigma), 0.0)
                active = active + (sent & masks[index]).float().mean()
            y_hat = torch.where(masks[index], symbol * mean_unit + params.mean, y_hat)
            bits = torch.where(masks[index], spent, bits)
        return Quantised(y_hat / mean_unit * (step / step_unit), bits.sum((1, 2, 3)), active)
