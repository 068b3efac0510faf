"""The training loop: step, log, validate, save.  It knows nothing about models."""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from dlf.nn.config import to_dict
from dlf.train import checkpoint
from dlf.train.checkpoint import Checkpoint
from dlf.train.config import TrainConfig
from dlf.train.data import Batch, CropSampler

log = logging.getLogger(__name__)

CHECKPOINT = "last.pt"
LOG = "log.jsonl"


@dataclass(frozen=True)
class LossReport:
    """total: what is differentiated.  terms: what is logged."""

    total: Tensor
    terms: dict[str, float]


@dataclass(frozen=True)
class Validation:
    """Means over the validation pictures, and one picture to look at."""

    terms: dict[str, float]
    picture: Image.Image | None


class Stage(Protocol):
    """What a stage of training gives the loop."""

    @property
    def module(self) -> nn.Module:
        """What trains; its state is what a checkpoint holds."""
        ...

    def loss(self, batch: Batch, progress: float) -> LossReport:
        """Loss of a batch at `progress` in [0, 1] of the run."""
        ...

    def after_step(self) -> dict[str, float]:
        """Anything that follows an update (reviving codes, a discriminator's step)."""
        ...

    def validate(self) -> Validation:
        """Measure the weights that `module` holds now."""
        ...

    def state(self) -> dict[str, Any]:
        """What a resumed run must know beside the weights: tensors and numbers."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a `state`; entries may be missing."""
        ...


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, cosine to the end."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    start = config.hold * config.steps
    if step <= start:
        return config.lr
    fraction = min(1.0, (step - start) / max(1.0, config.steps - start))
    return config.lr_end + (config.lr - config.lr_end) * 0.5 * (1 + math.cos(math.pi * fraction))


@torch.no_grad()
def clip_each(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Clip the gradient of each tensor to norm `limit`; returns the norm of the whole before.

    Clipped as one, a single part with large gradients would silence all others.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    scales = [limit / norm.clamp(min=limit) for norm in norms]
    torch._foreach_mul_(gradients, scales)
    return torch.stack(norms).norm()


class Run:
    """One resumable run of one stage in a folder."""

    def __init__(self, config: TrainConfig, stage: Stage, sampler: CropSampler, folder: Path) -> None:
        self.config, self.stage, self.sampler, self.folder = config, stage, sampler, folder
        self.parameters = [p for p in stage.module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.lr, betas=config.betas, fused=True)
        self.step = 0
        self.skipped = 0
        self.stop = False
        self.ema = {k: v.detach().clone() for k, v in stage.module.state_dict().items()}
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            self._resume(checkpoint.load(folder / CHECKPOINT))

    def _resume(self, state: Checkpoint) -> None:
        self.stage.module.load_state_dict(state.model)
        self.optimiser.load_state_dict(state.optimisers["main"])
        self.ema = state.ema
        self.stage.load_state(state.stage)
        self.step = state.step
        log.info("resuming %s at step %d", self.folder, self.step)

    def save(self) -> None:
        """Write the checkpoint of the current step."""
        state = Checkpoint(
            self.step,
            to_dict(self.config),
            self.stage.module.state_dict(),
            self.ema,
            {"main": self.optimiser.state_dict()},
            self.stage.state(),
        )
        checkpoint.save(self.folder / CHECKPOINT, state)

    def train(self) -> bool:
        """Run to the configured number of steps; False if a signal stopped it earlier."""
        handlers = {n: signal.signal(n, self._on_signal) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._steps()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self.save()
        return not self.stop

    def _steps(self) -> None:
        saved = started = time.monotonic()
        first = self.step
        recent: list[dict[str, float]] = []
        while self.step < self.config.steps and not self.stop:
            recent.append(self._update())
            self.step += 1
            if self.step % self.config.log_every == 0:
                pace = (time.monotonic() - started) / (self.step - first)
                self._log("train", _means(recent), pace)
                recent.clear()
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                self._validate()
            if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self.save()
                saved = time.monotonic()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop = True

    def _update(self) -> dict[str, float]:
        rate = learning_rate(self.config, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # noise depends on seed and step alone, as crops do, so that a resumed run goes on as if never stopped
        torch.manual_seed((self.config.seed << 32) + self.step)
        report = self.stage.loss(self.sampler(self.step), self.step / self.config.steps)
        self.optimiser.zero_grad(set_to_none=True)
        report.total.backward()
        norm = clip_each(self.parameters, self.config.clip)
        if not torch.isfinite(norm):
            self.skipped += 1
            return {"skipped": 1.0}
        self.optimiser.step()
        extra = self.stage.after_step()
        self._average()
        return {**report.terms, **extra, "gradient": float(norm)}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        state = self.stage.module.state_dict()
        floats = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.ema[k] for k in floats], [state[k] for k in floats], 1 - decay)

    def _validate(self) -> None:
        own = {k: v.clone() for k, v in self.stage.module.state_dict().items()}
        self.stage.module.load_state_dict(self.ema)
        self.stage.module.eval()
        with torch.no_grad():
            result = self.stage.validate()
        self.stage.module.train()
        self.stage.module.load_state_dict(own)
        self._log("val", result.terms, 0.0)
        if result.picture is not None:
            result.picture.save(self.folder / f"val_{self.step:07d}.png")

    def _log(self, kind: str, terms: dict[str, float], pace: float) -> None:
        left = pace * (self.config.steps - self.step) / 60
        row = {"kind": kind, "step": self.step, **{k: round(v, 5) for k, v in terms.items()}}
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "seconds": round(pace, 4)}) + "\n")
        text = "  ".join(f"{k} {v:.4g}" for k, v in terms.items())
        log.info("%s %d/%d  %s  (%.0f min left)", kind, self.step, self.config.steps, text, left)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every key over the rows; 0 counts where a row lacks it."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: sum(row.get(key, 0.0) for row in rows) / len(rows) for key in keys}
