"""Code books in training: seeded from vectors that the encoder gives, and idle codes moved to such vectors.

A code that nothing is near to never gets a gradient, so without either a small codebook collapses to a
handful of codes (see `dlf.nn.vq.VectorQuantizer`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlf.nn.vq import VectorQuantizer
from dlf.train import distributed

BatchVectors = Sequence[tuple[Tensor, Tensor]]
"""Of each book the vectors (N, dim) of a batch and the indices of their codes (N,)."""


@dataclass(frozen=True)
class CodebookCare:
    """When codes are seeded and moved.

    wait: steps before which the encoder's vectors are shapeless, or their statistics far from settled.
    vectors: how many, the newest, the codes start from.  patience: steps without use after which a code is
    moved.
    """

    wait: int
    vectors: int
    patience: int


class CodebookKeeper:
    """Seeds the first of some code books, then revives the codes of all of them.

    books: in the order of a batch's vectors; those that do not train are left alone.  batches: of a step,
    that this process computes.  seeded: whether the first book holds codes worth keeping already.
    """

    def __init__(
        self, books: Sequence[VectorQuantizer], care: CodebookCare, *, batches: int, seeded: bool
    ) -> None:
        self.books, self.care = books, care
        self.trained = [i for i, book in enumerate(books) if book.embedding.weight.requires_grad]
        self.steps = 0
        # vectors for seeding, (N, code dim); None: the first book is seeded
        dim = books[0].embedding.embedding_dim if books else 0
        self._collected: Tensor | None = None if seeded or 0 not in self.trained else torch.empty(0, dim)
        self._batches: deque[BatchVectors] = deque(maxlen=batches)

    @property
    def seeded(self) -> bool:
        """Whether all books hold codes of the encoder's vectors; from then on the host decides nothing."""
        return self._collected is None

    def note(self, vectors: BatchVectors) -> None:
        """Remember a batch of the step, without its graph."""
        self._batches.append([(z.detach(), indices) for z, indices in vectors])

    @torch.no_grad()
    def after_step(self, taken: Tensor) -> dict[str, Tensor]:
        """Seed or revive, the same on all ranks.

        taken: bool scalar, False for a step that does not count.  Returns what is to be logged once books
        are seeded: `codes` of the first book in use, and how many codes were `moved`, scalars on the device.
        """
        self.steps += 1
        if not self.trained:
            return {}
        rows = [_of_all_ranks(batches) for batches in zip(*self._batches, strict=True)]
        if self._collected is not None:
            self._collect(rows[0][0])
            return {}
        moved = [self.books[i].revive(*rows[i], self.care.patience, taken) for i in self.trained]
        for i in self.trained:  # ranks move the same codes, but round differently
            distributed.broadcast_tensor(self.books[i].embedding.weight.data)
        return {"codes": self.books[0].used(rows[0][1]).sum(), "moved": torch.stack(moved).sum()}

    def _collect(self, z: Tensor) -> None:
        assert self._collected is not None
        self._collected = torch.cat([self._collected.to(z.device), z])[-self.care.vectors :]
        if self.steps >= self.care.wait and len(self._collected) >= self.care.vectors:
            self.books[0].seed(self._collected)
            distributed.broadcast_tensor(self.books[0].embedding.weight.data)
            self._collected = None

    def state(self) -> dict[str, Any]:
        """What a resumed run must know: which codes are idle, and what will seed them."""
        collected = {} if self._collected is None else {"collected": self._collected}
        return {"steps": self.steps, "idle": [book.idle for book in self.books], **collected}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a `state`; entries may be missing."""
        # without an entry the codebook was seeded, and doing so again would throw away what was trained
        self._collected = state.get("collected")
        self.steps = state.get("steps", 0)
        for book, idle in zip(self.books, state.get("idle", ()), strict=False):
            book.idle.copy_(idle)


def _of_all_ranks(batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Vectors and indices of all batches of the step."""
    z, indices = zip(*batches, strict=True)
    return distributed.all_gather_rows(z), distributed.all_gather_rows(indices)
