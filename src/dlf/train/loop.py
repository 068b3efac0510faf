"""The training loop: step, log, validate, save.  It knows nothing about models."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from dlf.nn.config import to_dict
from dlf.train import checkpoint, distributed
from dlf.train.board import Board
from dlf.train.checkpoint import Checkpoint
from dlf.train.config import TrainConfig
from dlf.train.data import Batch, Sampler

log = logging.getLogger(__name__)

CHECKPOINT = "last.pt"


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

    @property
    def copied(self) -> Sequence[str]:
        """Names of tensors whose last value stands for their average: rows of them jump."""
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

    def after_validation(self, terms: Mapping[str, float]) -> None:
        """React to what a validation found (the rate's control)."""
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


class _Loss(nn.Module):
    """A stage's loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module, self.stage = stage.module, stage

    def forward(self, batch: Batch, progress: float) -> LossReport:
        return self.stage.loss(batch, progress)


class Run:
    """One resumable run of one stage in a folder; every process of a parallel run has one."""

    def __init__(
        self, config: TrainConfig, stage: Stage, sampler: Sampler, folder: Path, board: Board | None = None
    ) -> None:
        self.config, self.stage, self.sampler, self.folder = config, stage, sampler, folder
        self.parameters = [p for p in stage.module.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.lr, betas=config.betas, fused=True)
        self.parts = distributed.own_parts(config.parts)
        self.step = 0
        self.skipped = 0
        self.stop = False
        self.loss = distributed.parallel(_Loss(stage), self.device)
        self.ema = {k: v.detach().clone() for k, v in stage.module.state_dict().items()}
        folder.mkdir(parents=True, exist_ok=True)
        self.board = board or Board(folder, config.steps)
        if (folder / CHECKPOINT).exists():
            self._resume(checkpoint.load(folder / CHECKPOINT))

    def _resume(self, state: Checkpoint) -> None:
        self.stage.module.load_state_dict(state.model)
        self.optimiser.load_state_dict(state.optimisers["main"])
        self.ema = {k: v.to(self.device) for k, v in state.ema.items()}
        self.stage.load_state(state.stage)
        self.step = state.step
        log.info("resuming %s at step %d", self.folder, self.step)
        now = to_dict(self.config)
        for key in sorted(now.keys() | state.config.keys()):
            if now.get(key) != state.config.get(key):
                log.warning("%s is now %s; it was %s", key, now.get(key), state.config.get(key))

    def save(self) -> None:
        """Write the checkpoint of the current step; OSError if that fails."""
        state = Checkpoint(
            self.step,
            to_dict(self.config),
            self.stage.module.state_dict(),
            self.ema,
            {"main": self.optimiser.state_dict()},
            self.stage.state(),
        )
        if distributed.rank() == 0:
            checkpoint.save(self.folder / CHECKPOINT, state)

    def train(self) -> bool:
        """Run to the configured number of steps; False if a signal stopped it earlier."""
        handlers = {n: signal.signal(n, self._on_signal) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._steps()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.board.close()
        self.save()
        return not self.stop

    def _steps(self) -> None:
        saved = started = time.monotonic()
        first = self.step
        recent: list[dict[str, float]] = []
        while self.step < self.config.steps and not self._stopped():
            recent.append(self._update())
            self.step += 1
            if self.step % self.config.log_every == 0:
                self._log(_means(recent), (time.monotonic() - started) / (self.step - first))
                recent.clear()
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                self._validate()
            if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self._try_to_save()
                saved = time.monotonic()

    def _try_to_save(self) -> None:
        """A full disk may be emptied before the next time; hours of training are not to end here."""
        try:
            self.save()
        except OSError as error:
            log.error("%s; the run goes on and tries again later", error)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop = True

    def _stopped(self) -> bool:
        """Whether any process got a signal: all must leave after the same step."""
        self.stop = distributed.anywhere(self.stop)
        return self.stop

    def _seed(self, part: int) -> None:
        """Noise depends on seed, step and part alone, so that a resumed run goes on as if never stopped."""
        torch.manual_seed(((self.config.seed << 32) + (part << 48) + self.step) % 2**63)

    def _update(self) -> dict[str, float]:
        rate = learning_rate(self.config, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        with distributed.joint_statistics(self.stage.module):
            terms = self._accumulate()
        norm = clip_each(self.parameters, self.config.clip)
        if not torch.isfinite(norm):
            self.skipped += 1
            return {"skipped": 1.0}
        self.optimiser.step()
        self._seed(self.config.parts)  # the same on all ranks
        extra = self.stage.after_step()
        distributed.share_codes(self.stage.module)
        self._average()
        return {**terms, **extra, "gradient": float(norm)}

    def _accumulate(self) -> dict[str, float]:
        """Gradients of the step's loss, averaged over its parts; returns means of this rank's terms."""
        rows: list[dict[str, float]] = []
        for part in self.parts:
            self._seed(part)
            batch = self.sampler(self.step, part)
            batch = replace(batch, pixels=batch.pixels.to(self.device, non_blocking=True))
            # ranks exchange gradients once a step
            with self._apart() if part != self.parts[-1] else nullcontext():
                report: LossReport = self.loss(batch, self.step / self.config.steps)
                (report.total / len(self.parts)).backward()
            rows.append(report.terms)
        return _means(rows)

    def _apart(self) -> AbstractContextManager[None]:
        """Keep gradients to this rank for now."""
        if isinstance(self.loss, nn.parallel.DistributedDataParallel):
            return self.loss.no_sync()
        return nullcontext()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        state = self.stage.module.state_dict()
        floats = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.ema[k] for k in floats], [state[k] for k in floats], 1 - decay)
        for name in self.stage.copied:
            self.ema[name].copy_(state[name])

    def _validate(self) -> None:
        terms = distributed.from_first(self._measure() if distributed.rank() == 0 else {})
        self.stage.after_validation(terms)

    def _measure(self) -> dict[str, float]:
        """Validate the averaged weights."""
        own = {k: v.clone() for k, v in self.stage.module.state_dict().items()}
        self.stage.module.load_state_dict(self.ema)
        self.stage.module.eval()
        with torch.no_grad():
            result = self.stage.validate()
        self.stage.module.train()
        self.stage.module.load_state_dict(own)
        self.board.row("val", self.step, result.terms)
        if result.picture is not None:
            self.board.picture(self.step, result.picture)
        return result.terms

    def _log(self, terms: dict[str, float], pace: float) -> None:
        terms = distributed.mean_terms(terms)
        unread = distributed.total(self.sampler.skipped)
        if distributed.rank() == 0:
            self.board.row("train", self.step, {**terms, **({"unread": unread} if unread else {})}, pace)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every key over the rows; 0 counts where a row lacks it."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: sum(row.get(key, 0.0) for row in rows) / len(rows) for key in keys}
