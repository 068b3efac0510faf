"""Training of one end of a codec that is out already, while the other stays as it is.

`stage: decoder`: only what lies behind the symbols trains (MS-ILLM, Muckley et al. 2023; DC-AE, Chen et al.
2025): a discriminator teaches the decoder to paint what the symbols leave open, and old files profit too.

`stage: encoder`: only what makes the symbols trains, for the decoder as it is after its discriminators; old
files stay as they are, and new ones need no new decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.nn.model import Bottleneck
from dlf.nn.schedule import token_schedule
from dlf.nn.windows import Grid
from dlf.train.codec_stage import CodecStage, Draw
from dlf.train.data import Batch, to_device
from dlf.train.stage import Inputs, LossReport


class HalfStage(CodecStage):
    """What both have in common: crops are coded as the bundle codes them, and no code moves."""

    def schedule_tokens(self) -> NDArray[np.integer[Any]]:
        """As many as the bundle sends; see `CodecStage`."""
        tokens, ends = self.module.config.tokens, self.config.token_ends
        if not ends:
            return super().schedule_tokens()
        low, high = ends
        return token_schedule(tokens.count, tail_drop=tokens.tail_drop, ends=(low, high))

    def draw(self, batch: Batch, progress: float) -> Draw:
        """Quality uniform, tokens as the quality asks for, details always."""
        qualities = batch.rng.uniform(0, 100, len(batch.pixels)).astype(np.float32)
        counts = self.token_counts[np.rint(qualities).astype(int)].astype(np.int64)
        device = batch.pixels.device
        quality, keep = (to_device(torch.from_numpy(a), device) for a in (qualities, counts))
        return Draw(quality, keep, torch.ones_like(quality))

    def after_step(self, taken: Tensor) -> dict[str, Tensor]:
        """Train the discriminators; see `Stage`."""
        return self.train_judge()

    def state(self) -> dict[str, Any]:
        """What the discriminators have learned; see `Stage`."""
        return self.judge.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Stage`."""
        self.judge.load_state(state)


class DecoderStage(HalfStage):
    """Training of the decoder on real symbols; see `dlf.train.stage.Stage` and `CodecStage`."""

    # what decides the symbols, or serves training alone
    FROZEN: ClassVar = (
        *("encoder", "quantize", "details.enc_", "details.context", "details.books"),
        *("vqgan.encoder", "vqgan.quant_conv"),
    )

    @property
    def copied(self) -> Sequence[str]:
        """Nothing jumps; see `Stage`."""
        return ()

    def loss(self, inputs: Inputs) -> LossReport:
        """Loss of a batch; see `Stage`."""
        # statistics and quantisers work as in the codec; the decoder has no part that depends on the mode
        for part in (self.module.encoder, self.module.quantize, self.module.details):
            part.eval()
        return super().loss(inputs)

    @torch.no_grad()
    def compress(self, pixels: Tensor, quality: Tensor, sent: Tensor, grid: Grid) -> Bottleneck:
        """As `Dlf.compress`, whole symbols without a gradient."""
        return self.module.compress(pixels, quality, sent, grid)


class EncoderStage(HalfStage):
    """Training of the encoder for a decoder that stays; see `dlf.train.stage.Stage` and `CodecStage`."""

    # what reads the symbols and paints them, and what says how likely they are
    FROZEN: ClassVar = (
        *("quantize", "details.dec_", "details.context", "details.books"),
        *("decoder", "fusion", "vqgan"),
    )
