"""Stage 0: the VQGAN tokenizer on its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.losses.objective import pixel_terms, weighted_sum
from dlf.losses.perceptual import StemDistance
from dlf.nn.build import PRESETS
from dlf.nn.vqgan import Vqgan, quantise_grid
from dlf.train import distributed
from dlf.train.config import TrainConfig
from dlf.train.data import Batch, to_float
from dlf.train.loop import LossReport, Validation
from dlf.train.pictures import rows_of_pairs

CODE_PATIENCE = 100  # steps without use after which a code is moved
SEED_STEP = 40  # the encoder's outputs are shapeless before
SEED_BATCHES = 16  # whose latents the codes start from


class TokenizerStage:
    """L1, low-frequency, perceptual and VQ loss; see `dlf.train.loop.Stage`."""

    def __init__(
        self, config: TrainConfig, perceptual: StemDistance | None, val: Sequence[NDArray[np.uint8]]
    ) -> None:
        self.config, self.perceptual, self.val = config, perceptual, val
        self.module = Vqgan(PRESETS[config.preset].vqgan).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # latents and indices of the step's batches
        self.last: deque[tuple[Tensor, Tensor]] = deque(maxlen=len(distributed.own_parts(config.parts)))
        # latents collected for seeding the codebook, (N, code dim)
        self.pending = torch.empty(0, PRESETS[config.preset].vqgan.code_dim)
        self.seen = 0

    def reconstruct(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pixels in [-1, 1] to (picture, latents, indices, vq loss)."""
        bf16 = self.config.precision == "bf16"
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            z = self.module.encode(pixels)
        z = z.float()
        quantised, indices, vq = quantise_grid(self.module.quantize, z)
        if self.module.training and self.seen < SEED_STEP:
            quantised, vq = z, vq * 0
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            picture = self.module.decode(quantised)
        return picture.float(), z, indices, vq

    def loss(self, batch: Batch, progress: float) -> LossReport:
        """Loss of a batch; see `Stage`."""
        target = batch.pixels * 2 - 1
        picture, z, indices, vq = self.reconstruct(target)
        with torch.autocast(target.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            terms = pixel_terms(picture, target, self.config.weights, self.perceptual)
        terms["vq"] = vq
        self.last.append((z.detach().flatten(0, -2), indices.flatten()))
        total = weighted_sum(terms, self.config.weights)
        return LossReport(total, {**{k: v.item() for k, v in terms.items()}, "std": z.detach().std().item()})

    def after_step(self) -> dict[str, float]:
        """Revive codes; see `Stage`."""
        self.seen += 1
        latents, indices = (distributed.gather_rows(rows) for rows in zip(*self.last, strict=True))
        if self.seen <= SEED_STEP:
            if self.seen > SEED_STEP - SEED_BATCHES:
                self.pending = torch.cat([self.pending.to(latents.device), latents])
            if self.seen == SEED_STEP:
                self.module.quantize.seed(self.pending)
                self.pending = self.pending[:0]
            return {}
        moved = self.module.quantize.revive(latents, indices, CODE_PATIENCE)
        return {"codes": float(len(indices.unique())), "moved": float(moved)}

    def validate(self) -> Validation:
        """Measure whole pictures; see `Stage`."""
        sums: dict[str, float] = {}
        pairs: list[tuple[Tensor, Tensor]] = []
        used: set[int] = set()
        for image in self.val:
            target = to_float([image]).to(self.module.quantize.idle.device) * 2 - 1
            picture, _, indices, _ = self.reconstruct(target)
            used.update(indices.flatten().tolist())
            for key, value in pixel_terms(picture, target, self.config.weights, self.perceptual).items():
                sums[key] = sums.get(key, 0.0) + float(value) / len(self.val)
            pairs.append((target, picture))
        return Validation({**sums, "codes": float(len(used))}, rows_of_pairs(pairs[:6]))

    def after_validation(self, terms: Mapping[str, float]) -> None:
        """Nothing to control; see `Stage`."""

    def state(self) -> dict[str, Any]:
        """Which codes are idle and how far the run is from seeding them; see `Stage`."""
        return {"seen": self.seen, "idle": self.module.quantize.idle, "pending": self.pending}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Stage`."""
        # to seed the codebook once more would throw away what was trained
        self.seen = state.get("seen", SEED_STEP)
        self.pending = state.get("pending", self.pending)
        self.module.quantize.idle.copy_(state.get("idle", self.module.quantize.idle))
