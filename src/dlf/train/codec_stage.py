"""Stage 2: pixels end to end; and what alignment and the decoder's stage have in common with it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.losses.adversarial import Adversarial
from dlf.losses.image import ImageLoss, Wrap
from dlf.losses.objective import pixel_terms
from dlf.nn.build import PRESETS
from dlf.nn.hybrid import RunningStandard
from dlf.nn.model import Bottleneck, Dlf, Fused
from dlf.nn.schedule import sent_mask, token_schedule
from dlf.nn.windows import Grid
from dlf.train import distributed
from dlf.train.codebooks import CodebookCare, CodebookKeeper
from dlf.train.config import TrainConfig
from dlf.train.contact_sheet import rows_of_pairs
from dlf.train.data import Batch, all_to_device, to_device, to_float
from dlf.train.stage import Inputs, LossReport, Validation

log = logging.getLogger(__name__)

CARE = CodebookCare(wait=200, vectors=8192, patience=600)  # a step uses a few dozen of about a thousand codes
VALIDATION_QUALITIES = (10, 50, 90)
SHOWN = 6  # images of a contact sheet


class Draw(NamedTuple):
    """Random choices of a step, (B,) each.

    quality: in [0, 100].  keep: tokens that a full window sends.  details: 1, or 0 where the sample is
    decoded from its tokens alone.
    """

    quality: Tensor
    keep: Tensor
    details: Tensor


class Coded(NamedTuple):
    """What the networks make of a batch.

    image: (B, 3, H, W) in [-1, 1], or None where the stage looks at latents only.  vq: loss of the code
    books.  bpp: details' bits per pixel of each sample (B,).  rate: their weighted mean.
    """

    bottleneck: Bottleneck
    fused: Fused
    image: Tensor | None
    vq: Tensor
    bpp: Tensor
    rate: Tensor


class CodecStage:
    """End-to-end training (`stage: joint`); see `dlf.train.stage.Stage`.

    train: images to draw from, or samples of those that are streamed.  val: images of whole cells.
    perceptual, features: see `dlf.losses.image.ImageLoss`.
    """

    FROZEN: ClassVar[tuple[str, ...]] = ("vqgan.encoder", "vqgan.quant_conv")
    """Prefixes of what does not train."""
    DECODES: ClassVar = True
    """Whether images are decoded and judged."""
    SEEDS: ClassVar = False
    """Whether the tokens' codes are seeded here."""

    def __init__(
        self,
        config: TrainConfig,
        model: Dlf,
        perceptual: nn.Module | None,
        train: Sequence[NDArray[np.uint8]],
        val: Sequence[NDArray[np.uint8]],
        features: Path | None = None,
    ) -> None:
        self.config, self.perceptual, self.images, self.val = config, perceptual, train, val
        self.module = model
        lattice = ("quantize.embedding",) if model.config.tokens.levels else ()
        frozen = (*self.FROZEN, *lattice, *config.freeze)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        # a model of one rate gives the same image at every quality
        self.qualities = VALIDATION_QUALITIES if model.config.quant.qualities > 1 else (50,)
        self.bf16 = config.precision == "bf16"
        self.token_counts = self.schedule_tokens()
        batches = len(distributed.own_parts(config.parts))
        adversarial = config.adversarial if self.DECODES else Adversarial()
        self.judge = ImageLoss(
            config.weights, adversarial, perceptual, bf16=self.bf16, batches=batches, features=features
        )
        self.keeper = CodebookKeeper(model.codebooks(), CARE, batches=batches, seeded=not self.SEEDS)
        self.lambda_step = 0  # of the rate's schedule
        # what may be replaced by compiled forms
        self.networks = self.code

    def schedule_tokens(self) -> NDArray[np.integer[Any]]:
        """How many tokens a full window sends at each quality: (101,)."""
        tokens = self.module.config.tokens
        return token_schedule(tokens.count, tail_drop=tokens.tail_drop)

    @property
    def copied(self) -> Sequence[str]:
        """See `Stage`."""
        # a code that was moved has an average between two places, where nothing is
        books = set(map(id, self.module.codebooks()))
        names = [f"{name}.embedding.weight" for name, m in self.module.named_modules() if id(m) in books]
        # means and squares that were averaged apart would say too large a deviation
        return names + [
            f"{name}.{part}"
            for name, m in self.module.named_modules()
            if isinstance(m, RunningStandard)
            for part in ("mean", "square")
        ]

    def draw(self, batch: Batch, progress: float) -> Draw:
        """Quality uniform, once in four steps fewer tokens than it asks for, details as configured."""
        quality = batch.rng.uniform(0, 100, len(batch.pixels)).astype(np.float32)
        keep = self.token_counts[np.rint(quality).astype(int)].astype(np.int64)
        if batch.rng.random() < 0.25:
            keep = batch.rng.integers(1, keep + 1)
        dropout = self.config.detail_dropout * (1 - progress)
        details = (batch.rng.random(len(quality)) >= dropout).astype(np.float32)
        device = batch.pixels.device
        return Draw(*(to_device(torch.from_numpy(a), device) for a in (quality, keep, details)))

    def inputs(self, batch: Batch, progress: float) -> Inputs:
        """Pixels, what `draw` chose, weights of the rate, and what the loss draws; see `Stage`."""
        draw = self.draw(batch, progress)
        weight = self._rate_weight(draw.quality, progress)
        more = self.loss_inputs(batch, progress)
        return {"pixels": batch.pixels, **draw._asdict(), "weight": weight, **more}

    def loss_inputs(self, batch: Batch, progress: float) -> Inputs:
        """What `score` needs of a step."""
        return all_to_device(self.judge.draw(batch.rng, progress), batch.pixels.device)

    def loss(self, inputs: Inputs) -> LossReport:
        """Loss of a batch; see `Stage`."""
        pixels, draw = inputs["pixels"], Draw(*(inputs[name] for name in Draw._fields))
        grid = self.module.grid(*pixels.shape[2:])
        coded = self.networks(pixels, draw, inputs["weight"], grid)
        total, terms = self.score(coded, inputs)
        tokens = (coded.bottleneck.z, coded.bottleneck.tokens.indices)
        self.keeper.note([tokens, *coded.bottleneck.details.vectors])
        terms = {**terms, "vq": coded.vq, "bpp": coded.bpp.mean(), "rate": coded.rate}
        return LossReport(total + self.config.weights.vq * coded.vq + coded.rate, terms)

    def score(self, coded: Coded, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar with the gradient of all terms but codes and rate, and the unweighted terms."""
        assert coded.image is not None
        last = self.module.vqgan.decoder.conv_out.weight
        return self.judge(coded.image, inputs["pixels"] * 2 - 1, last, inputs)

    def code(self, pixels: Tensor, draw: Draw, weight: Tensor, grid: Grid) -> Coded:
        """Code and decode pixels (B, 3, H, W) in [0, 1]; weight: of each sample's bits per pixel (B,)."""
        model = self.module
        sent = sent_mask(draw.keep, model.config.tokens.count, grid.token)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            bottleneck = self.compress(pixels, draw.quality, sent, grid)
            codes = bottleneck.tokens.quantised.reshape(*sent.shape, -1)
            y_hat = bottleneck.details.y_hat * draw.details[:, None, None, None]
            if self.DECODES:
                synthesis = self.painter.synthesise(codes, sent, y_hat, draw.quality, grid)
                fused, image = synthesis.fused, synthesis.image.float()
            else:
                fused, image = model.fuse(codes, sent, y_hat, draw.quality, grid), None
        vq = bottleneck.tokens.loss + bottleneck.details.loss
        bpp = bottleneck.details.bits * draw.details / pixels[0, 0].numel()
        return Coded(bottleneck, fused, image, vq, bpp, (weight * bpp).mean())

    def compress(self, pixels: Tensor, quality: Tensor, sent: Tensor, grid: Grid) -> Bottleneck:
        """As `Dlf.compress`, with a gradient where the encoder trains."""
        return self.coder.compress(pixels, quality, sent, grid)

    @property
    def coder(self) -> Dlf:
        """What makes the symbols."""
        return self.module

    @property
    def painter(self) -> Dlf:
        """What paints them."""
        return self.module

    @property
    def steady(self) -> bool:
        """Whether the codebook is seeded; see `Stage`."""
        return self.judge.steady and self.keeper.seeded

    def compile_with(self, wrap: Wrap) -> None:
        """See `Stage`."""
        self.networks = wrap(self.networks)
        self.judge.compile_with(wrap)

    def _rate_weight(self, quality: Tensor, progress: float) -> Tensor:
        lambdas = self.config.rate.schedule.lambdas
        if lambdas:
            return torch.full_like(quality, lambdas[self.lambda_step])
        return self.config.rate.weight(quality, progress)

    def train_judge(self) -> dict[str, Tensor]:
        """The discriminators' turn."""
        return self.judge.after_step(distributed.average_gradients)

    def after_step(self, taken: Tensor) -> dict[str, Tensor]:
        """Train the discriminators, seed or revive codes; see `Stage`."""
        judged = self.train_judge()
        return {**self.keeper.after_step(taken), **judged}

    def validate(self) -> Validation:
        """Measure whole images; see `Stage`."""
        terms: dict[str, float] = {}
        pairs: list[tuple[Tensor, Tensor]] = []
        used: set[int] = set()
        for quality in self.qualities:
            for image in self.val:
                pixels = to_float([image]).to(self.module.quantize.idle.device)
                measured, decoded, indices = self._measure(pixels, quality)
                used.update(indices.tolist())
                for key, value in measured.items():
                    name = f"{key}_{quality}"
                    terms[name] = terms.get(name, 0.0) + value / len(self.val)
                if quality == 50:
                    pairs.append((pixels * 2 - 1, decoded))
        return Validation({**terms, "codes": float(len(used))}, rows_of_pairs(pairs[:SHOWN]))

    def _measure(self, pixels: Tensor, quality: int) -> tuple[dict[str, float], Tensor, Tensor]:
        """Terms of one image (1, 3, H, W) in [0, 1], what is decoded, and its tokens' indices."""
        grid = self.module.grid(*pixels.shape[2:])
        keep = torch.tensor([int(self.token_counts[quality])], device=pixels.device)
        sent = sent_mask(keep, self.module.config.tokens.count, grid.token)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            asked = torch.tensor([float(quality)], device=pixels.device)
            bottleneck = self.coder.compress(pixels, asked, sent, grid)
            codes = bottleneck.tokens.quantised.reshape(*sent.shape, -1)
            image = self.painter.synthesise(codes, sent, bottleneck.details.y_hat, asked, grid).image
        image, bits, area = image.float(), bottleneck.details.bits.item(), pixels[0, 0].numel()
        token_bits = int(sent.sum()) * math.log2(self.module.config.tokens.codes)
        terms = {
            "detail_bpp": bits / area,
            "bpp": (bits + token_bits) / area,
            "psnr": -10 * math.log10(F.mse_loss((image.clamp(-1, 1) + 1) / 2, pixels).item()),
            "active": float(bottleneck.details.active),
        }
        judged = pixel_terms(image, pixels * 2 - 1, self.config.weights, self.perceptual)
        terms |= {key: value.item() for key, value in judged.items()}
        return terms, image, bottleneck.tokens.indices

    def after_validation(self, terms: Mapping[str, float]) -> None:
        """Move lambda along its schedule, if there is one; see `Stage`."""
        schedule = self.config.rate.schedule
        if schedule.lambdas:
            self.lambda_step = schedule.next_step(self.lambda_step, terms["bpp_50"])
            log.info("lambda is %g", schedule.lambdas[self.lambda_step])

    def state(self) -> dict[str, Any]:
        """State of the code books, where the rate's control is, the discriminators; see `Stage`."""
        return {"books": self.keeper.state(), "lambda_step": self.lambda_step, **self.judge.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Stage`."""
        self.judge.load_state(state)
        self.keeper.load_state(state.get("books", {}))
        last = max(0, len(self.config.rate.schedule.lambdas) - 1)
        self.lambda_step = min(state.get("lambda_step", 0), last)


def new_model(preset: str) -> Dlf:
    """An untrained model in channels_last."""
    model: Dlf = Dlf(PRESETS[preset]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
