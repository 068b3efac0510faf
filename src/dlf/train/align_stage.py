"""Stage 1: the codec learns to say the latents, or codes, that its tokenizer would use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlf.geometry import CELL, PATCH
from dlf.losses.image import Wrap
from dlf.losses.objective import weighted_sum
from dlf.nn.model import Dlf, Fused
from dlf.train.codec_stage import CodecStage, Coded
from dlf.train.data import Batch, Crop, to_device, to_float, whole_cells
from dlf.train.stage import Inputs


@torch.no_grad()
def tokenizer_latents(model: Dlf, pixels: Tensor, *, bf16: bool) -> Tensor:
    """The tokenizer's latents of pixels (B, 3, H, W) in [0, 1]: float32 (B, h, w, code dim)."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
        return model.vqgan.encode(pixels * 2 - 1).float()


@torch.no_grad()
def tokenizer_indices(model: Dlf, pixels: Tensor, *, bf16: bool) -> Tensor:
    """The tokenizer's codes of pixels (B, 3, H, W) in [0, 1]: int64 (B, h, w)."""
    assert model.vqgan.quantize is not None
    return model.vqgan.quantize.nearest(tokenizer_latents(model, pixels, bf16=bf16))


class LatentCache:
    """Tokenizer indices of whole training images, plain and mirrored: uint16 (h, w) each."""

    def __init__(self, model: Dlf, images: Sequence[NDArray[np.uint8]], *, bf16: bool) -> None:
        self.maps = [
            tuple(self._encode(model, view, bf16) for view in (image, image[:, ::-1]))
            for image in map(whole_cells, images)
        ]

    def _encode(self, model: Dlf, image: NDArray[np.uint8], bf16: bool) -> NDArray[np.uint16]:
        pixels = to_float([np.ascontiguousarray(image)]).to(model.quantize.idle.device)
        return tokenizer_indices(model, pixels, bf16=bf16)[0].cpu().numpy().astype(np.uint16)

    def __call__(self, crops: Sequence[Crop]) -> Tensor:
        """Indices of a batch: int64 (B, h, w)."""
        return torch.from_numpy(np.stack([self._cut(crop) for crop in crops]).astype(np.int64))

    def _cut(self, crop: Crop) -> NDArray[np.uint16]:
        cells = CELL // PATCH
        rows, cols = crop.height // PATCH, crop.width // PATCH
        plain, mirrored = self.maps[crop.image]
        top, left = crop.top * cells, crop.left * cells
        if not crop.mirrored:
            return plain[top : top + rows, left : left + cols]
        right = mirrored.shape[1] - left
        return mirrored[top : top + rows, right - cols : right]


class AlignStage(CodecStage):
    """Alignment to the tokenizer's latents; see `dlf.train.stage.Stage` and `CodecStage`."""

    FROZEN: ClassVar = ("vqgan",)
    DECODES: ClassVar = False
    SEEDS: ClassVar = True

    @cached_property
    def cache(self) -> LatentCache:
        """Computed at the first step, when a resumed run has its weights."""
        return LatentCache(self.module, self.images, bf16=self.bf16)

    def loss_inputs(self, batch: Batch, progress: float) -> Inputs:
        """The tokenizer's latents of a batch, or the indices of its codes where it has some.

        Indices are those of whole images where they fit into memory, else of the crops.
        """
        if self.module.vqgan.quantize is None:
            return {"target": tokenizer_latents(self.module, batch.pixels, bf16=self.bf16)}
        if self.config.stream or not batch.crops:
            return {"target": tokenizer_indices(self.module, batch.pixels, bf16=self.bf16)}
        return {"target": to_device(self.cache(batch.crops), batch.pixels.device)}

    def score(self, coded: Coded, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Distance from the tokenizer; see `CodecStage`."""
        return self._latent_terms(coded.fused, inputs["target"])

    def compile_with(self, wrap: Wrap) -> None:
        """See `Stage`."""
        super().compile_with(wrap)
        self._latent_terms = wrap(self._latent_terms)  # type: ignore[method-assign]

    def _latent_terms(self, fused: Fused, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """target: latents (B, h, w, code dim) or indices (B, h, w), see `loss_inputs`."""
        book = self.module.vqgan.quantize
        if book is None or fused.logits is None:
            variance = target.var((0, 1, 2), correction=0).mean()
            terms = {"latent": F.mse_loss(fused.latent.float(), target) / variance}
        else:
            terms = {
                "latent": F.mse_loss(fused.latent.float(), book.codebook()[target]),
                "code": F.cross_entropy(fused.logits.float().flatten(0, -2), target.flatten()),
            }
        return weighted_sum(terms, self.config.weights), terms
