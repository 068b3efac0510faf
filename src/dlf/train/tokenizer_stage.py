"""Stage 0: the VQGAN tokenizer on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.losses.image import ImageLoss, Wrap
from dlf.losses.objective import pixel_terms
from dlf.nn.build import PRESETS
from dlf.nn.vq import VectorQuantizer, quantise_grid
from dlf.nn.vqgan import Vqgan
from dlf.train import distributed
from dlf.train.codebooks import CodebookCare, CodebookKeeper
from dlf.train.config import TrainConfig
from dlf.train.contact_sheet import rows_of_pairs
from dlf.train.data import Batch, all_to_device, to_float
from dlf.train.stage import Inputs, LossReport, Validation

CARE = CodebookCare(wait=40, vectors=4096, patience=100)


class TokenizerStage:
    """Picture loss and VQ loss; see `dlf.train.stage.Stage`."""

    def __init__(
        self,
        config: TrainConfig,
        perceptual: nn.Module | None,
        val: Sequence[NDArray[np.uint8]],
        features: Path | None = None,
    ) -> None:
        self.config, self.perceptual, self.val = config, perceptual, val
        self.module = Vqgan(PRESETS[config.preset].vqgan).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bf16 = config.precision == "bf16"
        batches = len(distributed.own_parts(config.parts))
        self.judge = ImageLoss(
            config.weights,
            config.adversarial,
            perceptual,
            bf16=self.bf16,
            batches=batches,
            features=features,
        )
        self.book = self.module.quantize if config.quantised else None
        books = [] if self.book is None else [self.book]
        self.keeper = CodebookKeeper(books, CARE, batches=batches, seeded=not books)
        self.networks = self.reconstruct
        self.copied: list[str] = []  # its codes move in the first steps only, and profit from averaging

    def reconstruct(self, pixels: Tensor, *, rounded: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixels in [-1, 1] to (image, latents, indices, vq loss).

        rounded: decode codes; else the latents as they are, with a loss of 0.
        """
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            z = self.module.encode(pixels)
        quantised = z = z.float()
        vq, indices = z.new_zeros(()), torch.zeros(z.shape[:-1], dtype=torch.int64, device=z.device)
        # processes exchange the gradients of all weights: those of codes that are not in use are 0
        if self.book is not None:
            nearest, indices, loss = quantise_grid(self.book, z)
            quantised, vq = (nearest, loss) if rounded else (z, 0 * loss)
        elif isinstance(self.module.quantize, VectorQuantizer):
            vq = 0 * self.module.quantize.embedding.weight.sum()
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            image = self.module.decode(quantised)
        return image.float(), z, indices, vq

    def inputs(self, batch: Batch, progress: float) -> Inputs:
        """Pixels, and what the judge draws; see `Stage`."""
        drawn = all_to_device(self.judge.draw(batch.rng, progress), batch.pixels.device)
        return {"pixels": batch.pixels, **drawn}

    def loss(self, inputs: Inputs) -> LossReport:
        """Loss of a batch; see `Stage`."""
        target = inputs["pixels"] * 2 - 1
        image, z, indices, vq = self.networks(target, rounded=self.config.quantised and self.keeper.seeded)
        total, terms = self.judge(image, target, self.module.decoder.conv_out.weight, inputs)
        self.keeper.note([(z.flatten(0, -2), indices.flatten())])
        shown = {**terms, "vq": vq, "std": z.detach().std()}
        return LossReport(total + self.config.weights.vq * vq, shown)

    @property
    def steady(self) -> bool:
        """Whether all codes are seeded; see `Stage`."""
        return self.judge.steady and self.keeper.seeded

    def compile_with(self, wrap: Wrap) -> None:
        """See `Stage`."""
        self.networks = wrap(self.networks)
        self.judge.compile_with(wrap)

    def after_step(self, taken: Tensor) -> dict[str, Tensor]:
        """Train the discriminators, seed or revive codes; see `Stage`."""
        judged = self.judge.after_step(distributed.average_gradients)
        return {**self.keeper.after_step(taken), **judged}

    def validate(self) -> Validation:
        """Measure whole images; see `Stage`."""
        sums: dict[str, float] = {}
        pairs: list[tuple[Tensor, Tensor]] = []
        used: set[int] = set()
        for image in self.val:
            target = to_float([image]).to(self.module.post_quant_conv.weight.device) * 2 - 1
            decoded, _, indices, _ = self.reconstruct(target, rounded=self.config.quantised)
            used.update(indices.flatten().tolist())
            for key, value in pixel_terms(decoded, target, self.config.weights, self.perceptual).items():
                sums[key] = sums.get(key, 0.0) + float(value) / len(self.val)
            pairs.append((target, decoded))
        return Validation({**sums, "codes": float(len(used))}, rows_of_pairs(pairs[:6]))

    def after_validation(self, terms: Mapping[str, float]) -> None:
        """Nothing to control; see `Stage`."""

    def state(self) -> dict[str, Any]:
        """State of the codebook and of the discriminators; see `Stage`."""
        return {"books": self.keeper.state(), **self.judge.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Stage`."""
        self.judge.load_state(state)
        self.keeper.load_state(state.get("books", {}))
