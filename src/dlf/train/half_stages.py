"""Training of one end of a codec that is out already, while the other stays as it is.

`stage: decoder`: only what lies behind the symbols trains (MS-ILLM, Muckley et al. 2023; DC-AE, Chen et al.
2025): a discriminator teaches the decoder to paint what the symbols leave open, and old files profit too.

`stage: encoder`: only what makes the symbols trains, for the decoder as it is after its discriminators; old
files stay as they are, and new ones need no new decoder.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.nn.hybrid import RunningStandard
from dlf.nn.model import Bottleneck, Dlf
from dlf.nn.schedule import token_schedule
from dlf.nn.windows import Grid
from dlf.train.codec_stage import CodecStage, Coded, Draw
from dlf.train.data import Batch, to_device
from dlf.train.stage import Inputs, LossReport

log = logging.getLogger(__name__)

STREAMS = ("details.context.", "quantize.")
"""Prefixes of what decides how symbols are written."""


class HalfStage(CodecStage):
    """What both have in common: crops are coded as the bundle codes them, and no code moves.

    teacher: a model of the same streams whose other end takes the place of the model's own, or None; see
    `learn_from`.
    """

    teacher: Dlf | None = None

    def learn_from(self, teacher: Dlf, *, start: bool) -> None:
        """Train an end for the streams of another model, whose context network and codes the model is given.

        start: also begin with those of the teacher's weights that the model has a place for, as one of the
        teacher's widths that is less deep has for most.
        """
        self.teacher = teacher.eval().requires_grad_(False)
        own, theirs = self.module.state_dict(), teacher.state_dict()
        fits = {k: v for k, v in theirs.items() if k in own and v.shape == own[k].shape}
        common = tuple(key for key in theirs if key.startswith(STREAMS))
        if missing := [key for key in common if key not in fits]:
            msg = (
                f"the teacher's streams are not those of the preset '{self.module.config.name}': {missing[0]}"
            )
            raise ValueError(msg)
        taken = fits if start else {key: fits[key] for key in common}
        self.module.load_state_dict(taken, strict=False)
        log.info("%d of %d tensors from the teacher", len(taken), len(own))

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

    @property
    def coder(self) -> Dlf:
        """See `CodecStage`."""
        return self.teacher or self.module

    @torch.no_grad()
    def compress(self, pixels: Tensor, quality: Tensor, sent: Tensor, grid: Grid) -> Bottleneck:
        """As `Dlf.compress`, whole symbols without a gradient."""
        return super().compress(pixels, quality, sent, grid)


class EncoderStage(HalfStage):
    """Training of the encoder for a decoder that stays; see `dlf.train.stage.Stage` and `CodecStage`."""

    # what reads the symbols and paints them, and what says how likely they are
    FROZEN: ClassVar = (
        *("quantize", "details.dec_", "details.context", "details.books"),
        *("decoder", "fusion", "vqgan"),
    )

    @property
    def painter(self) -> Dlf:
        """See `CodecStage`."""
        return self.teacher or self.module

    def loss(self, inputs: Inputs) -> LossReport:
        """Loss of a batch; see `Stage`."""
        # the decoder knows codes of vectors standardised by these statistics; ones that follow would undo
        # whatever scale the encoder learns, the smaller the faster
        for part in self.module.modules():
            if isinstance(part, RunningStandard):
                part.eval()
        return super().loss(inputs)

    def score(self, coded: Coded, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """As `CodecStage`, and with a teacher how far its latent and token vectors are."""
        total, terms = super().score(coded, inputs)
        weight = self.config.weights.latent
        if self.teacher is None or not weight:
            return total, terms
        pixels = inputs["pixels"]
        with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            theirs = self.teacher.analyse(pixels, inputs["quality"], self.teacher.grid(*pixels.shape[2:]))
        found, y, z = coded.bottleneck, theirs.y.float(), theirs.z.float().flatten(0, 1)
        latent = (found.details.y_hat - y).square().mean() / y.var() + (found.z - z).square().mean()
        return total + weight * latent, {**terms, "latent": latent}
