"""Pixel losses shared by the stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # of the published form, for pixels in [0, 1]
# a grid of two or three levels in a smooth area is below the published constant, but not below this one
SSIM_FAINT = 0.008**2
PERIODS = (2, 4, 8, 16)  # of patterns that the decoder's changes of size may leave
LUMA = (0.299, 0.587, 0.114)
SSIM_STRIDE = 3  # squares overlap, and a training step is not a tenth longer


@dataclass(frozen=True)
class Weights:
    """Weights of the loss terms; a term of weight 0 is not computed.

    l1: mean absolute error of pixels in [-1, 1].  low: the same of 8x8 means (keeps colour right while
    the perceptual term rules).  ssim: 1 - structural similarity; sees the fine grids that the perceptual
    term's strides hide.  phase: a grid of periods 2 to 16 in the error's luma, see `phase_pattern`.
    texture: how strongly features vary, see `dlf.losses.texture`.  features: `feature_distance` of the same
    maps, place by place.
    perceptual: distance of a feature network.  vq: codebook and commitment
    loss.  latent, code: stage 1, MSE to the tokenizer's code and cross-entropy against its index; of a
    tokenizer without codes, MSE to its latent as a share of the latent's variance; of an encoder with a
    teacher, the same to the teacher's latent and token vectors.
    Rate has its own schedule.
    """

    l1: float = 0.0
    low: float = 0.0
    ssim: float = 0.0
    phase: float = 0.0
    texture: float = 0.0
    features: float = 0.0
    perceptual: float = 0.0
    vq: float = 0.0
    latent: float = 0.0
    code: float = 0.0


def pixel_terms(
    image: Tensor,
    target: Tensor,
    weights: Weights,
    perceptual: nn.Module | None,
) -> dict[str, Tensor]:
    """Unweighted terms l1, low, ssim and perceptual of RGB batches (B, 3, H, W) in [-1, 1]."""
    terms = {"l1": (image - target).abs().mean()}
    if weights.low:
        terms["low"] = (F.avg_pool2d(image, 8) - F.avg_pool2d(target, 8)).abs().mean()
    if weights.ssim:
        terms["ssim"] = 1 - structural_similarity(image, target, SSIM_STRIDE, SSIM_FAINT)
    if weights.phase:
        terms["phase"] = phase_pattern(image - target)
    if weights.perceptual and perceptual is not None:
        terms["perceptual"] = perceptual(image, target).mean()
    return terms


def structural_similarity(x: Tensor, y: Tensor, stride: int = 1, c2: float = SSIM_C2) -> Tensor:
    """Mean SSIM over 7x7 squares of RGB batches in [-1, 1] (Wang et al. 2004), at most 1.

    Squares instead of Gaussians: the boxes are cheap sums.  stride: distance of squares in pixels.
    c2: variances far below it do not count.  float32, since variances are differences.
    """
    x, y = (x.float() + 1) / 2, (y.float() + 1) / 2
    mean_x, mean_y, xx, yy, xy = (F.avg_pool2d(part, 7, stride) for part in (x, y, x * x, y * y, x * y))
    spread = (xx - mean_x.square()).clamp(min=0) + (yy - mean_y.square()).clamp(min=0)
    shared = xy - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + SSIM_C1) * (2 * shared + c2)
    return (likeness / ((mean_x.square() + mean_y.square() + SSIM_C1) * (spread + c2))).mean()


def phase_pattern(error: Tensor) -> Tensor:
    """How much of an error (B, 3, H, W) repeats with a period of 2 to 16 pixels: a scalar.

    The mean p x p pattern of the error's luma, less its own mean: absolute value, averaged over the periods.
    """
    error = error.float()
    luma = sum((weight * error[:, i] for i, weight in enumerate(LUMA[1:], 1)), LUMA[0] * error[:, 0])
    strengths = []
    for period in PERIODS:
        rows, cols = (side // period for side in luma.shape[1:])
        tiles = (
            luma[:, : rows * period, : cols * period]
            .unflatten(2, (cols, period))
            .unflatten(1, (rows, period))
        )
        pattern = tiles.mean((1, 3))
        strengths.append((pattern - pattern.mean((1, 2), keepdim=True)).abs().mean())
    return torch.stack(strengths).mean()


def weighted_sum(terms: dict[str, Tensor], weights: Weights) -> Tensor:
    """Sum of the terms by the weights of the same names."""
    parts = [getattr(weights, name) * value for name, value in terms.items()]
    return sum(parts[1:], parts[0])
