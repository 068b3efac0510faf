"""Probability model of the detail symbols: a prior and a four-step context network.

Steps see what earlier ones decoded (the schedule is drawn in `dlf.entropy.quadtree`).  Everything is in
units of the quantisation step.  Two number systems share one body (`dlf.nn.exact`): floats for the
published model, integers for ours.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlf.nn.depth import depth_stack
from dlf.nn.exact import ACTIVATION_LIMIT, ACTIVATION_UNIT, Arithmetic, clamp_ste, round_half_up, settle
from dlf.nn.model_config import QuantConfig, TokenConfig
from dlf.nn.token_prior import TokenPrior

# integer model: log-spaced table of standard deviations, indexed by the network's own integer output
SCALES = 64
SCALE_LOW, SCALE_HIGH = 0.11, 32.0
SCALE_LOG_STEP = math.log(SCALE_HIGH / SCALE_LOW) / (SCALES - 1)
SCALE_OFFSET = 24  # an untrained network's output of 0 means a standard deviation near 1
STEP_UNIT = 64
STEP_LOW = 32  # the published lower bound, 0.5


class Params(NamedTuple):
    """scale, mean: (B, C, h, w).

    Integer model: scale is a table index 0..63, mean is in units of 1/16.  Float model: both are real
    numbers in units of the step.
    """

    scale: Tensor
    mean: Tensor


class PriorParams(NamedTuple):
    """What is known before any symbol; all (B, C, h, w).

    first: parameters of step 0.  step: quantisation step (units of 1/64 in the integer model).
    common: features for the later steps.
    """

    first: Params
    step: Tensor
    common: Tensor


class Context(nn.Module, ABC):
    """What says how likely each detail symbol is: `prior` once, then `context` for each of steps 1, 2, 3.

    integer: which of the two number systems it works in.  token_prior: what tells the prior of the tokens,
    None where nothing does.
    """

    def __init__(self, *, integer: bool) -> None:
        super().__init__()
        self.integer = integer
        self.token_prior: TokenPrior | None = None

    @abstractmethod
    def prior_vector(self, quality: Tensor) -> Tensor:
        """Quality (B,) in [0, 100] to the prior's input (B, P, 1, 1); whole in the integer model."""

    @abstractmethod
    def prior(self, vector: Tensor, told: Tensor | None = None) -> PriorParams:
        """Parameters before any symbol from `prior_vector` repeated over the grid, (B, P, h, w).

        told: what `token_prior` gives, where the model has it; may reach beyond the grid right and below.
        """

    @abstractmethod
    def context(self, index: Tensor | int, y_hat: Tensor, common: Tensor) -> Params:
        """Parameters of step index + 1.

        index: 0, 1 or 2, a scalar int64 tensor in an exported graph.  y_hat: what is decoded so far
        (B, C, h, w), zero elsewhere, in the units of `Params.mean`.  common: of the prior (B, C, h, w).
        """


class ContextModel(Context):
    """The paper's networks; tokens: needed where `config` asks for a token prior."""

    def __init__(self, config: QuantConfig, tokens: TokenConfig | None = None) -> None:
        super().__init__(integer=config.integer)
        c = config.channels
        arithmetic = Arithmetic(integer=config.integer)
        self.factorized_prior_vec = nn.Parameter(0.5 * torch.randn(config.qualities, c))
        if config.token_channels:
            if tokens is None:
                msg = "a prior that reads the tokens must know how many there are"
                raise ValueError(msg)
            self.token_prior = TokenPrior(tokens, config.token_channels)
        self.y_prior_fusion = depth_stack([c + config.token_channels, 2 * c, 3 * c], arithmetic)
        self.y_spatial_prior_reduction = arithmetic.conv(3 * c, c)
        self.y_spatial_prior_adaptor = nn.ModuleList(
            depth_stack([2 * c, 2 * c], arithmetic)[0] for _ in range(3)
        )
        self.y_spatial_prior = depth_stack([2 * c] * (config.spatial_blocks + 1), arithmetic)

    def prior_vector(self, quality: Tensor) -> Tensor:
        """See `Context`; P is C."""
        vector = interpolate_anchors(self.factorized_prior_vec, quality)[..., None, None]
        return settle(round_half_up(vector * ACTIVATION_UNIT)) if self.integer else vector

    def prior(self, vector: Tensor, told: Tensor | None = None) -> PriorParams:
        """See `Context`."""
        if told is not None:
            vector = torch.cat([vector, told[..., : vector.shape[2], : vector.shape[3]]], 1)
        fused = self.y_prior_fusion(vector)
        step, scale, mean = fused.chunk(3, 1)
        if self.integer:
            step = clamp_ste(4 * step + STEP_UNIT, STEP_LOW, 4 * ACTIVATION_LIMIT + STEP_UNIT)
        else:
            step = clamp_ste(step, STEP_LOW / STEP_UNIT, math.inf)
        return PriorParams(self._params(scale, mean), step, self.y_spatial_prior_reduction(fused))

    def context(self, index: Tensor | int, y_hat: Tensor, common: Tensor) -> Params:
        """See `Context`."""
        if self.integer:
            y_hat = clamp_ste(y_hat, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
        joint = torch.cat([y_hat, common], 1)
        if isinstance(index, int):
            adapted = self.y_spatial_prior_adaptor[index](joint)
        else:
            first, second, third = (adaptor(joint) for adaptor in self.y_spatial_prior_adaptor)
            adapted = torch.where(index == 0, first, torch.where(index == 1, second, third))
        scale, mean = self.y_spatial_prior(adapted).chunk(2, 1)
        return self._params(scale, mean)

    def _params(self, scale: Tensor, mean: Tensor) -> Params:
        """The networks' two outputs (B, C, h, w) as `Params`."""
        if self.integer:
            scale = clamp_ste(scale + SCALE_OFFSET, 0, SCALES - 1)
        return Params(scale, mean)

    def sigma(self, scale: Tensor) -> Tensor:
        """Standard deviation in units of the step of a `Params.scale`, of its shape."""
        if self.integer:
            return SCALE_LOW * torch.exp(scale * SCALE_LOG_STEP)
        return scale.clamp(min=SCALE_LOW)


def interpolate_anchors(table: Tensor, quality: Tensor) -> Tensor:
    """Rows of table (anchors, C) for qualities (B,) in [0, 100], linearly interpolated: (B, C)."""
    last = table.shape[0] - 1
    if last == 0:
        return table.expand(quality.shape[0], -1)
    place = quality * (last / 100)
    low = place.floor().clamp(0, last - 1).to(torch.int64)
    fraction = (place - low)[:, None]
    return table[low] * (1 - fraction) + table[low + 1] * fraction
