"""Large weights of the big networks in 8 bits: whole numbers, and a scale for each output channel.

Only weights of linear layers and convolutions are packed.  Code books, positions, and the context network,
whose numbers decide symbols, are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlf.nn.model import Dlf

SMALLEST = 4096  # elements; fewer are not worth two more nodes
FAN_IN = 32  # with fewer inputs to a channel its scale would be a large share of what is stored
LIMIT = 127
# shares of a channel's largest weight that may become the largest number
CLIPS = (1.0, 0.99, 0.98, 0.96, 0.93, 0.9, 0.8)

CONTEXT = "details.context."
ENCODER_SIDE = ("encoder.", "details.enc_")


@dataclass(frozen=True)
class Packed:
    """codes: int8, -127..127, of the weight's shape.  scale: float32, its shape but 1 where it repeats."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def restore(self) -> NDArray[np.float32]:
        """The weight in float32, as Cast and Mul make it."""
        found: NDArray[np.float32] = self.codes.astype(np.float32) * self.scale
        return found

    def forms(self) -> Iterator[Packed]:
        """As torch has it, and as a graph may: a matrix is transposed for MatMul."""
        yield self
        if self.codes.ndim == 2:
            yield Packed(np.ascontiguousarray(self.codes.T), np.ascontiguousarray(self.scale.T))


def pack(weight: NDArray[np.float32]) -> Packed:
    """Round a weight (out, ...): each output channel by the clipping of least squared error."""
    rows = weight.reshape(len(weight), -1)
    most = np.abs(rows).max(1, keepdims=True)
    codes, scale = np.zeros_like(rows), np.ones_like(most)
    least = np.full_like(most, np.inf)
    for clip in CLIPS:
        tried = np.where(most > 0, most * np.float32(clip / LIMIT), 1).astype(np.float32)
        rounded = np.clip(np.rint(rows / tried), -LIMIT, LIMIT)
        error = np.square(rounded * tried - rows).sum(1, keepdims=True)
        better = error < least
        codes, scale = np.where(better, rounded, codes), np.where(better, tried, scale)
        least = np.minimum(error, least)
    shape = (len(weight), *(1,) * (weight.ndim - 1))
    return Packed(codes.astype(np.int8).reshape(weight.shape), scale.reshape(shape))


@torch.no_grad()
def round_to_eight(model: Dlf, keep: Sequence[str] = ()) -> dict[str, Packed]:
    """Round the weights of a model that are to be stored so, and return them by name.

    keep: prefixes of names to leave as they are, beside the context network.
    """
    packed = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d) or f"{name}.".startswith((CONTEXT, *keep)):
            continue
        weight = module.weight
        if weight.numel() < SMALLEST or weight[0].numel() < FAN_IN:
            continue
        packed[f"{name}.weight"] = found = pack(weight.numpy())
        weight.copy_(torch.from_numpy(found.restore()))
    return packed
