"""The last stage: only what lies behind the symbols trains, so that the streams stay as they are.

Encoder, quantisers and context network are frozen (MS-ILLM, Muckley et al. 2023; DC-AE, Chen et al. 2025): a
discriminator then teaches the decoder to paint what the symbols leave open, and old files profit too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.nn.model import Bottleneck, Dlf
from dlf.nn.schedule import token_schedule
from dlf.nn.windows import Grid
from dlf.train.codec_stage import CodecStage, Draw
from dlf.train.config import TrainConfig
from dlf.train.data import Batch, to_device
from dlf.train.graph import Inputs
from dlf.train.stage import LossReport


class DecoderStage(CodecStage):
    """Training of the decoder on real symbols; see `dlf.train.loop.Stage`."""

    def __init__(
        self,
        config: TrainConfig,
        model: Dlf,
        perceptual: nn.Module | None,
        train: Sequence[NDArray[np.uint8]],
        val: Sequence[NDArray[np.uint8]],
        features: Path | None = None,
    ) -> None:
        super().__init__(config, model, perceptual, train, val, features)
        tokens = model.config.tokens
        if config.token_ends:
            low, high = config.token_ends
            self.schedule = token_schedule(tokens.count, tail_drop=tokens.tail_drop, ends=(low, high))
        self.copied = []
        # statistics and quantisers work as in the codec; the decoder has no part that depends on the mode
        self.frozen = [model.encoder, model.quantize, model.details]

    def draw(self, batch: Batch, progress: float) -> Draw:
        """Quality uniform, tokens as the quality asks for, details always."""
        qualities = batch.rng.uniform(0, 100, len(batch.pixels)).astype(np.float32)
        counts = self.schedule[np.rint(qualities).astype(int)].astype(np.int64)
        device = batch.pixels.device
        quality, keep = (to_device(torch.from_numpy(a), device) for a in (qualities, counts))
        return Draw(quality, keep, torch.ones_like(quality))

    def loss(self, inputs: Inputs) -> LossReport:
        """Loss of a batch; see `Stage`."""
        for part in self.frozen:
            part.eval()
        return super().loss(inputs)

    @torch.no_grad()
    def compress(self, pixels: Tensor, quality: Tensor, sent: Tensor, grid: Grid) -> Bottleneck:
        """As `Dlf.compress`, whole symbols without a gradient."""
        return self.module.compress(pixels, quality, sent, grid)

    def after_step(self, taken: Tensor) -> dict[str, Tensor]:
        """Train the discriminators; see `Stage`."""
        return self.judged()

    def state(self) -> dict[str, Any]:
        """What the discriminators have learned; see `Stage`."""
        return self.judge.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Stage`."""
        self.judge.load_state(state)
