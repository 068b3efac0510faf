"""Pixel losses shared by the stages."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dlf.losses.perceptual import StemDistance
from dlf.train.config import Weights


def pixel_terms(
    picture: Tensor, target: Tensor, weights: Weights, perceptual: StemDistance | None
) -> dict[str, Tensor]:
    """Unweighted terms l1, low and perceptual of RGB batches (B, 3, H, W) in [-1, 1]."""
    terms = {"l1": (picture - target).abs().mean()}
    if weights.low:
        terms["low"] = (F.avg_pool2d(picture, 8) - F.avg_pool2d(target, 8)).abs().mean()
    if weights.perceptual and perceptual is not None:
        terms["perceptual"] = perceptual(picture, target).mean()
    return terms


def weighted_sum(terms: dict[str, Tensor], weights: Weights) -> Tensor:
    """Sum of the terms by the weights of the same names."""
    parts = [getattr(weights, name) * value for name, value in terms.items()]
    return sum(parts[1:], parts[0])
