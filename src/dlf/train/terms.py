"""Means of what is logged, added up on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Means:
    """Means of terms over steps; they are added up on the device and read back once."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], Tensor] = {}
        self.taken: Tensor | None = None
        self.steps = 0

    def add(self, terms: Mapping[str, Tensor], taken: Tensor) -> None:
        """Add a step's terms; taken: bool scalar, False for a step that was left out."""
        values = torch.stack([value.detach().float() for value in terms.values()])
        values, keys = torch.where(taken, values, 0.0), tuple(terms)
        self.sums[keys] = self.sums[keys] + values if keys in self.sums else values
        self.taken = taken.float() if self.taken is None else self.taken + taken
        self.steps += 1

    def read(self) -> dict[str, float]:
        """Return means over the steps that were taken, and the share of those that were not, if any.

        0 counts where a step lacks a term.
        """
        if self.taken is None:
            return {}
        numbers = torch.cat([*self.sums.values(), self.taken[None]]).tolist()
        taken = numbers.pop()
        means: dict[str, float] = {}
        for key, value in zip((key for keys in self.sums for key in keys), numbers, strict=True):
            means[key] = means.get(key, 0.0) + value / max(taken, 1.0)
        skipped = {"skipped": 1 - taken / self.steps} if taken < self.steps else {}
        return {**(means if taken else {}), **skipped}
