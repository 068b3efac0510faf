"""Vector quantiser: nearest code, straight-through gradient, codebook and commitment loss.

Its codes are learned, or a lattice that is given (`lattice`), of which nothing is learned.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VqResult(NamedTuple):
    """quantised: (N, dim), straight-through.  indices: int64 (N,).  loss: codebook and commitment, ()."""

    quantised: Tensor
    indices: Tensor
    loss: Tensor


def lattice(levels: int, dim: int) -> Tensor:
    """All points of `levels` numbers, one apart and centred at 0, in each dimension: (levels ** dim, dim).

    For numbers of deviation 1 that is nearly the best quantiser of so many levels (of four: Max 1960).
    """
    numbers = torch.arange(levels, dtype=torch.float32) - (levels - 1) / 2
    return torch.cartesian_prod(*[numbers] * dim).reshape(-1, dim)


class VectorQuantizer(nn.Module):
    """Nearest of `codes` vectors (van den Oord et al. 2017), on the unit sphere if `normalise`.

    levels: above 0, the codes are a `lattice` (FSQ, Mentzer et al. 2024) and do not train.

    An unused code never gets a gradient, so `revive` moves codes that were idle for long to vectors
    that the encoder does produce; without it a small codebook collapses to a handful of codes.
    """

    idle: Tensor

    def __init__(
        self, codes: int, dim: int, *, normalise: bool, commitment: float = 0.25, levels: int = 0
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)
        if levels:
            self.embedding = nn.Embedding.from_pretrained(lattice(levels, dim), freeze=True)
        self.normalise = normalise
        self.commitment = commitment
        self.register_buffer("idle", torch.zeros(codes), persistent=False)

    def codebook(self) -> Tensor:
        """All codes, (codes, dim), as the decoder sees them."""
        weight = self.embedding.weight
        return F.normalize(weight, dim=-1) if self.normalise else weight

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the nearest code of each row of z (..., dim): int64 (...)."""
        if self.normalise:
            z = F.normalize(z, dim=-1)
        codes = self.codebook()
        # |z|^2 is the same for all codes
        return (codes.square().sum(-1) - 2 * z @ codes.t()).argmin(-1)

    def forward(self, z: Tensor) -> VqResult:
        """Quantise z (N, dim)."""
        if self.normalise:
            z = F.normalize(z, dim=-1)
        indices = self.nearest(z.detach())
        codes = self.codebook()[indices]
        loss = (codes - z.detach()).square().mean() + self.commitment * (codes.detach() - z).square().mean()
        return VqResult(z + (codes - z).detach(), indices, loss)

    @torch.no_grad()
    def revive(self, z: Tensor, indices: Tensor, patience: int, taken: Tensor | bool = True) -> Tensor:
        """Count idle steps and move codes idle for more than `patience` to random rows of z (N, dim).

        indices: codes that were used, int64 of any shape.
        taken: bool scalar; False for a step that does not count.  Returns how many codes were moved.  All
        shapes are fixed, so that nothing is read back.
        """
        idle = torch.where(self.used(indices), 0.0, self.idle + 1)
        taken = torch.as_tensor(taken, device=z.device)
        dead = idle > patience
        # the n-th dead code takes the n-th row of a random order, as long as there are rows
        turn = dead.cumsum(0) - 1
        order = torch.randperm(len(z), device=z.device)
        picks = z[order[turn.clamp(0, len(z) - 1)]]
        moved = taken & dead & (turn < len(z)) & picks.isfinite().all(-1)
        picks = F.normalize(picks, dim=-1) if self.normalise else picks
        weight = self.embedding.weight
        weight.copy_(torch.where(moved[:, None], picks.to(weight.dtype), weight))
        self.idle.copy_(torch.where(taken, torch.where(moved, 0.0, idle), self.idle))
        return moved.sum()

    def used(self, indices: Tensor) -> Tensor:
        """Which codes are among the indices, int64 of any shape: bool (codes,)."""
        marks = torch.zeros(len(self.idle), dtype=torch.bool, device=self.idle.device)
        return marks.scatter_(0, indices.flatten(), torch.ones_like(marks[:1]).expand(indices.numel()))

    @torch.no_grad()
    def seed(self, z: Tensor, iterations: int = 10) -> None:
        """Initialise the codes by k-means over rows of z (N, dim), N at least the number of codes."""
        z = z[z.isfinite().all(-1)]
        if self.normalise:
            z = F.normalize(z, dim=-1)
        weight = self.embedding.weight
        weight.copy_(z[torch.randperm(len(z))[: len(weight)].to(z.device)])
        for _ in range(iterations):
            indices = self.nearest(z)
            sums = torch.zeros_like(weight).index_add_(0, indices, z)
            counts = torch.bincount(indices, minlength=len(weight)).unsqueeze(1)
            weight.copy_(torch.where(counts > 0, sums / counts.clamp(min=1), weight))


def quantise_grid(quantize: VectorQuantizer, z: Tensor) -> VqResult:
    """Quantise vectors on a grid, (B, h, w, dim); the result has them there: indices (B, h, w)."""
    flat: VqResult = quantize(z.reshape(-1, z.shape[-1]))
    return VqResult(flat.quantised.reshape(z.shape), flat.indices.reshape(z.shape[:-1]), flat.loss)
