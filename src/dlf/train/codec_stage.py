"""Stages 1 and 2: alignment to the tokenizer's latents, then pixels end to end."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.geometry import CELL, PATCH
from dlf.losses.adversarial import Adversarial
from dlf.losses.objective import pixel_terms, weighted_sum
from dlf.losses.picture import PictureLoss, Wrap
from dlf.nn.build import PRESETS
from dlf.nn.hybrid import RunningStandard
from dlf.nn.model import Bottleneck, Dlf, Fused
from dlf.nn.schedule import sent_mask, token_schedule
from dlf.nn.windows import Grid
from dlf.train import distributed
from dlf.train.config import Rate, TrainConfig
from dlf.train.controller import next_rung
from dlf.train.data import Batch, Crop, all_to_device, to_device, to_float, whole_cells
from dlf.train.graph import Inputs
from dlf.train.pictures import rows_of_pairs
from dlf.train.stage import LossReport, Validation

log = logging.getLogger(__name__)

# prefixes of what does not train; in the last stage, what decides the symbols, or serves training alone
FROZEN = {
    "align": ("vqgan",),
    "joint": ("vqgan.encoder", "vqgan.quant_conv"),
    "decoder": (
        *("encoder", "quantize", "details.enc_", "details.context", "details.books"),
        *("vqgan.encoder", "vqgan.quant_conv"),
    ),
}
CODE_PATIENCE = 600  # a step uses a few dozen of about a thousand codes
SEED_VECTORS = 8192
SEED_AFTER = 150  # steps: until then the running statistics of the tokens are far from theirs
VALIDATION_QUALITIES = (10, 50, 90)


def rate_weight(rate: Rate, quality: Tensor, progress: float) -> Tensor:
    """Weight of bits per pixel for each sample's quality (B,) at `progress` in [0, 1] of the run."""
    span = max(rate.ramp_to - rate.ramp_from, 1e-9)
    ramp = min(1.0, max(0.0, (progress - rate.ramp_from) / span))
    factor = rate.initial ** (1 - ramp)
    share = quality / 100
    return factor * rate.at_low ** (1 - share) * rate.at_high**share


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
    """Tokenizer indices of whole training pictures, plain and mirrored: uint16 (h, w) each."""

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

    picture: (B, 3, H, W) in [-1, 1], or None where the stage looks at latents only.  vq: loss of the code
    books.  bpp: details' bits per pixel of each sample (B,).  rate: their weighted mean.
    """

    bottleneck: Bottleneck
    fused: Fused
    picture: Tensor | None
    vq: Tensor
    bpp: Tensor
    rate: Tensor


def _gather(batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Vectors and indices of all batches of the step, of all ranks."""
    z, indices = zip(*batches, strict=True)
    return distributed.gather_rows(z), distributed.gather_rows(indices)


class CodecStage:
    """Alignment (`stage: align`) or end-to-end training (`joint`); see `dlf.train.loop.Stage`."""

    def __init__(
        self,
        config: TrainConfig,
        model: Dlf,
        perceptual: nn.Module | None,
        train: Sequence[NDArray[np.uint8]],
        val: Sequence[NDArray[np.uint8]],
        features: Path | None = None,
    ) -> None:
        self.config, self.perceptual, self.val = config, perceptual, val
        self.module = model
        lattice = ("quantize.embedding",) if model.config.tokens.levels else ()
        frozen = (*FROZEN[config.stage], *lattice, *config.freeze)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        # a model of one rate gives the same picture at every quality
        self.qualities = VALIDATION_QUALITIES if model.config.quant.qualities > 1 else (50,)
        self.bf16 = config.precision == "bf16"
        self.images = train
        tokens = model.config.tokens
        self.schedule = token_schedule(tokens.count, tail_drop=tokens.tail_drop)
        self.token_bits = math.log2(tokens.codes)
        adversarial = Adversarial() if config.stage == "align" else config.adversarial
        batches = len(distributed.own_parts(config.parts))
        self.judge = PictureLoss(
            config.weights, adversarial, perceptual, bf16=self.bf16, batches=batches, features=features
        )
        # vectors and indices of each code book in the step's batches
        self.last: deque[list[tuple[Tensor, Tensor]]] = deque(maxlen=batches)
        # vectors collected for seeding the codebook, (N, code dim); None: it is seeded
        seeds = config.stage == "align" and model.quantize.embedding.weight.requires_grad
        self.pending = torch.empty(0, tokens.code_dim) if seeds else None
        self.waited = 0  # steps
        self.rung = 0  # of the rate's ladder
        # what may be replaced by compiled forms
        self.networks, self.latent_terms = self.code, self._latent_terms
        # a code that was moved has an average between two places, where nothing is
        books = set(map(id, model.codebooks()))
        self.copied = [f"{name}.embedding.weight" for name, m in model.named_modules() if id(m) in books]
        # means and squares that were averaged apart would say too large a deviation
        self.copied += [
            f"{name}.{part}"
            for name, m in model.named_modules()
            if isinstance(m, RunningStandard)
            for part in ("mean", "square")
        ]

    @cached_property
    def cache(self) -> LatentCache:
        """Computed at the first step, when a resumed run has its weights."""
        return LatentCache(self.module, self.images, bf16=self.bf16)

    def draw(self, batch: Batch, progress: float) -> Draw:
        """Quality uniform, once in four steps fewer tokens than it asks for, details as configured."""
        quality = batch.rng.uniform(0, 100, len(batch.pixels)).astype(np.float32)
        keep = self.schedule[np.rint(quality).astype(int)].astype(np.int64)
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
        if self.config.stage == "align":
            more = {"wanted": self._wanted(batch)}
        else:
            more = all_to_device(self.judge.draw(batch.rng, progress), batch.pixels.device)
        return {"pixels": batch.pixels, **draw._asdict(), "weight": weight, **more}

    def loss(self, inputs: Inputs) -> LossReport:
        """Loss of a batch; see `Stage`."""
        pixels, draw = inputs["pixels"], Draw(*(inputs[name] for name in Draw._fields))
        grid = self.module.grid(*pixels.shape[2:])
        coded = self.networks(pixels, draw, inputs["weight"], grid)
        if coded.picture is None:
            total, terms = self.latent_terms(coded.fused, inputs["wanted"])
        else:
            last = self.module.vqgan.decoder.conv_out.weight
            total, terms = self.judge(coded.picture, pixels * 2 - 1, last, inputs)
        tokens = (coded.bottleneck.z.detach(), coded.bottleneck.tokens.indices)
        self.last.append([tokens, *coded.bottleneck.details.vectors])
        terms = {**terms, "vq": coded.vq, "bpp": coded.bpp.mean(), "rate": coded.rate}
        return LossReport(total + self.config.weights.vq * coded.vq + coded.rate, terms)

    def code(self, pixels: Tensor, draw: Draw, weight: Tensor, grid: Grid) -> Coded:
        """Code and decode pixels (B, 3, H, W) in [0, 1]; weight: of each sample's bits per pixel (B,)."""
        model = self.module
        sent = sent_mask(draw.keep, model.config.tokens.count, grid.token)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            bottleneck = self.compress(pixels, draw.quality, sent, grid)
            codes = bottleneck.tokens.quantised.reshape(*sent.shape, -1)
            y_hat = bottleneck.details.y_hat * draw.details[:, None, None, None]
            if self.config.stage == "align":
                fused, picture = model.fuse(codes, sent, y_hat, draw.quality, grid), None
            else:
                synthesis = model.synthesise(codes, sent, y_hat, draw.quality, grid)
                fused, picture = synthesis.fused, synthesis.image.float()
        vq = bottleneck.tokens.loss + bottleneck.details.loss
        bpp = bottleneck.details.bits * draw.details / pixels[0, 0].numel()
        return Coded(bottleneck, fused, picture, vq, bpp, (weight * bpp).mean())

    def compress(self, pixels: Tensor, quality: Tensor, sent: Tensor, grid: Grid) -> Bottleneck:
        """As `Dlf.compress`, with a gradient where the encoder trains."""
        return self.module.compress(pixels, quality, sent, grid)

    @property
    def steady(self) -> bool:
        """Whether the codebook is seeded; see `Stage`."""
        return self.judge.steady and self.pending is None

    def compile_with(self, wrap: Wrap) -> None:
        """See `Stage`."""
        self.networks, self.latent_terms = wrap(self.networks), wrap(self.latent_terms)
        self.judge.compile_with(wrap)

    def _rate_weight(self, quality: Tensor, progress: float) -> Tensor:
        ladder = self.config.rate.ladder
        if ladder.lambdas:
            return torch.full_like(quality, ladder.lambdas[self.rung])
        return rate_weight(self.config.rate, quality, progress)

    def _wanted(self, batch: Batch) -> Tensor:
        """The tokenizer's latents of a batch, or the indices of its codes where it has some.

        Indices are those of whole pictures where they fit into memory, else of the crops.
        """
        if self.module.vqgan.quantize is None:
            return tokenizer_latents(self.module, batch.pixels, bf16=self.bf16)
        if self.config.stream or not batch.crops:
            return tokenizer_indices(self.module, batch.pixels, bf16=self.bf16)
        return to_device(self.cache(batch.crops), batch.pixels.device)

    def _latent_terms(self, fused: Fused, wanted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """wanted: see `_wanted`."""
        book = self.module.vqgan.quantize
        if book is None or fused.logits is None:
            variance = wanted.var((0, 1, 2), correction=0).mean()
            terms = {"latent": F.mse_loss(fused.latent.float(), wanted) / variance}
        else:
            terms = {
                "latent": F.mse_loss(fused.latent.float(), book.codebook()[wanted]),
                "code": F.cross_entropy(fused.logits.float().flatten(0, -2), wanted.flatten()),
            }
        return weighted_sum(terms, self.config.weights), terms

    def judged(self) -> dict[str, Tensor]:
        """The discriminators' turn."""
        return self.judge.after_step(distributed.average_gradients)

    def after_step(self, taken: Tensor) -> dict[str, Tensor]:
        """Revive codes, train the discriminator; see `Stage`."""
        judged = self.judged()
        found = [_gather(batches) for batches in zip(*self.last, strict=True)]
        z, _ = found[0]
        if self.pending is not None:
            # the codebook starts from vectors that the encoder produces once it has found its feet
            self.waited += 1
            if self.waited <= SEED_AFTER:
                return judged
            self.pending = torch.cat([self.pending.to(z.device), z])
            if len(self.pending) >= SEED_VECTORS:
                self.module.quantize.seed(self.pending)
                self.pending = None
            return judged
        books = zip(self.module.codebooks(), found, strict=True)
        trained = [(book, rows) for book, rows in books if book.embedding.weight.requires_grad]
        moved = [book.revive(*rows, CODE_PATIENCE, taken) for book, rows in trained]
        return {"moved": torch.stack([z.new_zeros((), dtype=torch.int64), *moved]).sum(), **judged}

    def validate(self) -> Validation:
        """Measure whole pictures; see `Stage`."""
        terms: dict[str, float] = {}
        pairs: list[tuple[Tensor, Tensor]] = []
        used: set[int] = set()
        for quality in self.qualities:
            for image in self.val:
                pixels = to_float([image]).to(self.module.quantize.idle.device)
                picture, bottleneck, sent = self._code(pixels, quality)
                used.update(bottleneck.tokens.indices.tolist())
                bits = bottleneck.details.bits.item()
                row = {
                    "detail_bpp": bits / pixels[0, 0].numel(),
                    "bpp": (bits + int(sent.sum()) * self.token_bits) / pixels[0, 0].numel(),
                    "psnr": -10 * math.log10(F.mse_loss((picture.clamp(-1, 1) + 1) / 2, pixels).item()),
                    **{
                        k: v.item()
                        for k, v in pixel_terms(
                            picture, pixels * 2 - 1, self.config.weights, self.perceptual
                        ).items()
                    },
                    "active": float(bottleneck.details.active),
                }
                for key, value in row.items():
                    name = f"{key}_{quality}"
                    terms[name] = terms.get(name, 0.0) + value / len(self.val)
                if quality == 50:
                    pairs.append((pixels * 2 - 1, picture))
        return Validation({**terms, "codes": float(len(used))}, rows_of_pairs(pairs[:6]))

    def after_validation(self, terms: Mapping[str, float]) -> None:
        """Move lambda along its ladder, if there is one; see `Stage`."""
        ladder = self.config.rate.ladder
        if ladder.lambdas:
            self.rung = next_rung(self.rung, terms["bpp_50"], ladder)
            log.info("lambda is %g", ladder.lambdas[self.rung])

    def state(self) -> dict[str, Any]:
        """Which codes are idle, what will seed them, where the rate's control is; see `Stage`."""
        pending = {} if self.pending is None else {"pending": self.pending}
        idle = torch.cat([book.idle for book in self.module.codebooks()])
        return {"idle": idle, "rung": self.rung, "waited": self.waited, **pending, **self.judge.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Stage`."""
        # without an entry the codebook was seeded, and doing so again would throw away what was trained
        self.pending = state.get("pending")
        self.judge.load_state(state)
        self.waited = state.get("waited", SEED_AFTER)
        self.rung = min(state.get("rung", 0), max(0, len(self.config.rate.ladder.lambdas) - 1))
        books = self.module.codebooks()
        if "idle" in state:
            for book, idle in zip(books, state["idle"].split([len(b.idle) for b in books]), strict=True):
                book.idle.copy_(idle)

    def _code(self, pixels: Tensor, quality: int) -> tuple[Tensor, Bottleneck, Tensor]:
        grid = self.module.grid(*pixels.shape[2:])
        keep = torch.tensor([int(self.schedule[quality])], device=pixels.device)
        sent = sent_mask(keep, self.module.config.tokens.count, grid.token)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.bf16):
            asked = torch.tensor([float(quality)], device=pixels.device)
            bottleneck, _, picture = self.module(pixels, asked, sent)
        return picture.float(), bottleneck, sent


def new_model(preset: str) -> Dlf:
    """An untrained model in channels_last."""
    model: Dlf = Dlf(PRESETS[preset]).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
