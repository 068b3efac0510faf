"""A codebook whose mixtures reach every latent, and a fusion head that names those mixtures.

A mixture of codes never leaves their convex hull.  With k-means codes in 64 dimensions most latents lie
outside of it: on validation images the best possible mixtures of 512 of them keep 97 % of the variance, as
much as a dozen or two of 256 principal components of a cell would.  Moved away from their mean the same codes
enclose the latents, and near-equal weights make the mixture almost a linear map of the logits.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn

from dlf.nn.model import Dlf

log = logging.getLogger(__name__)

STEPS, ROWS, LEARNING_RATE = 1500, 2048, 3e-3
WEIGHT = 0.02  # deviation of the last layer's weights at the start
QUALITY = 50.0


@torch.no_grad()
def open_mixture(model: Dlf, pixels: Tensor, spread: float) -> float:
    """Seed the codes from latents, move them apart and fit the fusion head to the latents.

    model: as the other parts of the warm start leave it.  pixels: (N, 3, H, W) in [0, 1].  spread: factor
    of the codes' distance from their mean.  Returns the share of the latents' variance that is lost.
    """
    latents, joint = _samples(model, pixels)
    quantize = model.vqgan.quantize
    assert quantize is not None
    quantize.seed(latents)
    codes = quantize.embedding.weight
    mean = codes.mean(0)
    codes.copy_(mean + spread * (codes - mean))
    head = model.fusion.ffn
    _start_head(head, joint)
    with torch.enable_grad():
        _fit(head, codes.detach(), joint, latents)
    lost = _error(head, codes, joint, latents) / latents.var(0, correction=0).sum()
    log.info("mixtures of codes lose %.1f %% of the latents' variance", 100 * float(lost))
    return float(lost)


def _samples(model: Dlf, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The tokenizer's latents (N, code dim) and what the head gets in their places (N, width)."""
    joint: list[Tensor] = []
    latents: list[Tensor] = []
    hook = model.fusion.mix.register_forward_hook(lambda _, __, out: joint.append(out.flatten(0, 2)))
    tokens = model.config.tokens
    for batch in pixels.split(8):
        grid, quality = model.grid(*batch.shape[2:]), torch.full((len(batch),), QUALITY, device=batch.device)
        z, feature = model.encoder(batch, grid)
        codes = model.quantize(z.flatten(0, 1)).quantised.reshape(z.shape)
        sent = torch.ones(len(z), tokens.count, dtype=torch.bool, device=z.device)
        model.fuse(codes, sent, model.details.analyse(feature, quality), quality, grid)
        latents.append(model.vqgan.encode(batch * 2 - 1).flatten(0, 2))
    hook.remove()
    return torch.cat(latents), torch.cat(joint)


def _start_head(head: nn.Sequential, joint: Tensor) -> None:
    """Random directions whose tanh is neither flat nor linear, and near-equal weights of the codes."""
    first, last = head[1], head[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    assert first.bias is not None
    assert last.bias is not None
    nn.init.normal_(first.weight)
    first.bias.zero_()
    hidden = first(head[0](joint))
    deviation = hidden.std(0)
    first.weight.div_(deviation[:, None])
    first.bias.copy_(-hidden.mean(0) / deviation)
    nn.init.normal_(last.weight, std=WEIGHT)
    last.bias.zero_()


def _error(head: nn.Module, codes: Tensor, joint: Tensor, latents: Tensor) -> Tensor:
    return (head(joint).softmax(-1) @ codes - latents).square().sum(-1).mean()


def _fit(head: nn.Module, codes: Tensor, joint: Tensor, latents: Tensor) -> None:
    optimiser = torch.optim.Adam(head.parameters(), LEARNING_RATE)
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / STEPS)
    )
    for _ in range(STEPS):
        rows = torch.randint(len(latents), (ROWS,), device=latents.device)
        optimiser.zero_grad()
        _error(head, codes, joint[rows], latents[rows]).backward()
        optimiser.step()
        falling.step()
    optimiser.zero_grad()
