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
from torch import nn

from dlf.nn.model import Dlf
from dlf.nn.semantic import sent_mask, token_schedule
from dlf.train.codec_stage import CodecStage, Draw
from dlf.train.config import TrainConfig
from dlf.train.data import Batch
from dlf.train.loop import LossReport


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
        quality = batch.rng.uniform(0, 100, len(batch.crops)).astype(np.float32)
        keep = self.schedule[np.rint(quality).astype(int)].astype(np.int64)
        details = np.ones(len(quality), np.float32)
        return Draw(*(torch.from_numpy(a).to(batch.pixels.device) for a in (quality, keep, details)))

    def loss(self, batch: Batch, progress: float) -> LossReport:
        """Loss of a batch; see `Stage`."""
        for part in self.frozen:
            part.eval()
        draw = self.draw(batch, progress)
        model, pixels = self.module, batch.pixels
        grid = model.grid(*pixels.shape[2:])
        sent = sent_mask(draw.keep, model.config.tokens.count, grid.token)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                bottleneck = model.compress(pixels, draw.quality, sent, grid)
            codes = bottleneck.tokens.quantised.reshape(*sent.shape, -1)
            fused = model.fuse(codes, sent, bottleneck.details.y_hat, draw.quality, grid)
            picture = model.vqgan.decode(fused.latent).float()
        last = model.vqgan.decoder.conv_out.weight
        total, terms = self.judge(picture, pixels * 2 - 1, last, batch.rng, progress)
        return LossReport(total, {k: v.item() for k, v in terms.items()})

    def after_step(self) -> dict[str, float]:
        """Train the discriminators; see `Stage`."""
        return self.judged()

    def state(self) -> dict[str, Any]:
        """What the discriminators have learned; see `Stage`."""
        return self.judge.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Stage`."""
        self.judge.load_state(state)
