"""The engine: step, log, validate, save.  It knows nothing about models, only the protocol of a stage.

Why not Lightning Fabric: what it would take over here is the choice of a device, the process group and the
wrapping for several processes, some 40 lines; docs/training.md, section 11, has the numbers.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from dlf.errors import TrainingError
from dlf.nn.model_config import to_dict
from dlf.train import checkpoint, distributed
from dlf.train.budget import Work, budget
from dlf.train.checkpoint import Checkpoint
from dlf.train.compiling import Compiler, any_shape, is_full, too_large
from dlf.train.config import TrainConfig, dotted
from dlf.train.data import Sampler, to_device
from dlf.train.graph import StepGraph
from dlf.train.run_logger import RunLogger
from dlf.train.stage import Inputs, LossReport, Stage
from dlf.train.terms import Means
from dlf.train.weight_average import WeightAverage
from dlf.train.weights import save_parts

log = logging.getLogger(__name__)

CHECKPOINT = "last.pt"


def learning_rate(config: TrainConfig, step: float) -> float:
    """Linear warm-up, constant, cosine to the end; step: see `Budget.place`."""
    adam = config.optimiser
    if step < adam.warmup:
        return adam.lr * min(1.0, (step + 1) / adam.warmup)
    start = adam.hold * config.steps
    if step <= start:
        return adam.lr
    fraction = min(1.0, (step - start) / max(1.0, config.steps - start))
    return adam.lr_end + (adam.lr - adam.lr_end) * 0.5 * (1 + math.cos(math.pi * fraction))


@torch.no_grad()
def clip_each(parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
    """Clip the gradient of each tensor to norm `limit`; returns the norm of the whole before.

    Clipped as one, a single part with large gradients would silence all others.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    torch._foreach_mul_(gradients, (limit / norms.clamp(min=limit)).unbind())
    return norms.norm()


class _Loss(nn.Module):
    """A stage's loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module, self.stage = stage.module, stage

    def forward(self, inputs: Inputs) -> LossReport:
        return self.stage.loss(inputs)


class Run:
    """One resumable run of one stage in a folder; every process of a parallel run has one.

    since: time.monotonic() when the run's time began to count, if that was earlier.
    weights_only: keep averaged weights in small files, and no checkpoint: the run cannot be resumed.
    """

    def __init__(
        self,
        config: TrainConfig,
        stage: Stage,
        sampler: Sampler,
        folder: Path,
        logger: RunLogger | None = None,
        since: float | None = None,
        *,
        weights_only: bool = False,
    ) -> None:
        self.config, self.stage, self.sampler, self.folder = config, stage, sampler, folder
        self.weights_only = weights_only
        self.parameters = [p for p in stage.module.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.on_gpu = self.device.type == "cuda"
        adam = config.optimiser
        self.optimiser = torch.optim.Adam(self.parameters, adam.lr, adam.betas, fused=True)
        self.rate = torch.zeros((), device=self.device)  # of learning, where a recorded step must find it
        self.parts = distributed.own_parts(config.parts)
        self.step = 0
        self.left_out = torch.zeros((), dtype=torch.int64, device=self.device)
        self.stop = False  # this process was asked to; only ever set, since a signal may come at any moment
        self.stopped = False  # as all processes agreed
        self.compiler = Compiler() if config.compile else None
        if self.compiler is not None:
            stage.compile_with(self.compiler)
        records = config.graph and self.on_gpu and len(self.parts) == distributed.size() == 1
        self.graph = StepGraph(lambda inputs: self._compute([inputs])) if records else None
        self.loss = distributed.data_parallel(_Loss(stage), self.device)
        self.average = WeightAverage(stage.module, config.ema, stage.copied)
        folder.mkdir(parents=True, exist_ok=True)
        self.logger = logger or RunLogger(folder, config.steps)
        spent: dict[str, float] = {}
        if (folder / CHECKPOINT).exists():
            state = checkpoint.load(folder / CHECKPOINT)
            self._resume(state)
            spent = state.spent
        self.budget = budget(config, spent, since)
        self.validated = self.step
        self.place = 0.0  # see `Budget`
        self.shapes: set[torch.Size] = set()  # of batches so far
        self.new_shape = True  # whether the last step was the first of its shape

    def _resume(self, state: Checkpoint) -> None:
        try:
            self.stage.module.load_state_dict(state.model)
            self.optimiser.load_state_dict(state.optimisers["main"])
            self.average.load(state.ema)
            self.stage.load_state(state.stage)
        except (RuntimeError, ValueError, KeyError) as error:
            if is_full(error):
                raise
            was = " of ".join(str(state.config[key]) for key in ("stage", "preset") if key in state.config)
            msg = (
                f"the run in {self.folder} cannot be resumed with this configuration (it is "
                f"{was or 'another'}): name another folder for the results"
            )
            raise TrainingError(msg) from error
        self.step = state.step
        log.info("resuming %s at step %d", self.folder, self.step)
        now, before = dotted(to_dict(self.config)), dotted(state.config)
        for key in sorted(now.keys() | before.keys()):
            if now.get(key) != before.get(key):
                log.warning("%s is now %s; it was %s", key, now.get(key), before.get(key))

    @property
    def skipped(self) -> int:
        """Steps that were left out because their gradient was not finite; asks the device."""
        return int(self.left_out)

    def save(self) -> None:
        """Write the checkpoint of the current step, or its weights alone; OSError if that fails."""
        if self.weights_only:
            self._save_parts()
            return
        state = Checkpoint(
            self.step,
            to_dict(self.config),
            self.stage.module.state_dict(),
            self.average.weights,
            {"main": self.optimiser.state_dict()},
            self.stage.state(),
            self.budget.state(),
        )
        if distributed.rank() == 0:
            checkpoint.save(self.folder / CHECKPOINT, state)
            if self.config.minutes:  # on a machine that may be lent for minutes, too
                self._save_parts()

    def _save_parts(self) -> None:
        about = {"preset": self.config.preset, "stage": self.config.stage}
        save_parts(self.folder, self.average.weights, self.step, about)

    def train(self) -> bool:
        """Run to the end of the budget; False if a signal stopped it earlier.

        Raises:
            OSError: the last checkpoint cannot be written.
            TrainingError: the budget is too small, the images are unfit, the device's memory is full;
                the last checkpoint stays.
        """
        handlers = {n: signal.signal(n, self._on_signal) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._steps()
            self.save()
        except (RuntimeError, MemoryError) as error:
            if not is_full(error):
                raise
            raise too_large(self.config) from error
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self.logger.close()
        return not self.stopped

    def _steps(self) -> None:
        started, first, recent = time.monotonic(), self.step, Means()
        while self._goes_on():
            began = time.monotonic()
            recent.add(*self.advance())
            took = time.monotonic() - began
            if self.new_shape:
                log.info("the first step of such crops took %.1f s", took)
            self.budget.stepped(took, new=self.new_shape)
            if self.step % self.config.log_every == 0:
                self._log(recent.read(), (time.monotonic() - started) / (self.step - first))
                recent = Means()
            if self._is_due("validation"):
                self._timed("validation", self._validate)
            if self.budget.due("checkpoint", self.step):
                self._timed("checkpoint", self._try_to_save)
        if not self.stopped and self.validated < self.step:
            self._validate()

    def _goes_on(self) -> bool:
        """Whether there is a next step: all ranks leave after the same one, whichever got a signal."""
        first = distributed.rank() == 0
        place = self.budget.place(self.step) if first else 0.0
        self.place, over, stopped = distributed.all_reduce_max(
            place, first and self.budget.over(self.step), self.stop
        )
        self.stopped = bool(stopped)
        return not over and not self.stopped

    def _is_due(self, work: Work) -> bool:
        """Whether rank 0's budget says so."""
        return distributed.all_reduce_any(distributed.rank() == 0 and self.budget.due(work, self.step))

    def _timed(self, work: Work, do: Callable[[], None]) -> None:
        began = time.monotonic()
        do()
        self.budget.worked(work, time.monotonic() - began)

    def _try_to_save(self) -> None:
        """A full disk may be emptied before the next time; hours of training are not to end here."""
        try:
            self.save()
        except OSError as error:
            log.error("%s; the run goes on and tries again later", error)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop = True

    def _seed(self, part: int) -> None:
        """Noise depends on seed, step and part alone, so that a resumed run goes on as if never stopped."""
        if self.on_gpu and torch.cuda.is_current_stream_capturing():
            return  # a recorded step takes the seed that is set when it is replayed
        torch.manual_seed(((self.config.seed << 32) + (part << 48) + self.step) % 2**63)

    def advance(self) -> tuple[dict[str, Tensor], Tensor]:
        """Take a step, without compiling if that fails; returns what `_update` does."""
        try:
            result = self._update()
        except Exception as error:
            if self.compiler is None or not self.compiler.gives_up(error):
                raise
            result = self._update()
        self.step += 1
        return result

    def _update(self) -> tuple[dict[str, Tensor], Tensor]:
        """One step; returns its terms, and whether its gradient was finite so that it was taken."""
        rate = learning_rate(self.config, self.place)
        self.rate.fill_(rate)
        for group in self.optimiser.param_groups:
            group["lr"], group["capturable"] = (self.rate, True) if self.on_gpu else (rate, False)
        self.average.prepare(self.step)
        inputs = self._inputs()
        if self.graph is not None and self.stage.steady:
            self._seed(self.parts[0])
            return self.graph(inputs[0])
        return self._compute(inputs)

    def _inputs(self) -> list[Inputs]:
        """What this rank's parts of the step work on."""
        inputs: list[Inputs] = []
        before = len(self.shapes)
        for part in self.parts:
            batch = self.sampler(self.step, part)
            self.shapes.add(batch.pixels.shape)
            batch = replace(batch, pixels=to_device(batch.pixels, self.device))
            inputs.append(self.stage.inputs(batch, self.place / self.config.steps))
        self.new_shape = len(self.shapes) > before
        return inputs

    def _compute(self, inputs: Sequence[Inputs]) -> tuple[dict[str, Tensor], Tensor]:
        """All that the device does in a step; the host does not look at any number."""
        self.optimiser.zero_grad(set_to_none=True)
        with distributed.all_reduce_statistics(self.stage.module):
            terms = self._accumulate(inputs)
        norm = clip_each(self.parameters, self.config.optimiser.clip)
        taken = torch.isfinite(norm)
        self.left_out += ~taken
        # the fused optimiser itself leaves such a step out, so that nobody need wait for the answer
        self.optimiser.found_inf = (~taken).float()  # type: ignore[attr-defined]
        self.optimiser.step()
        self._seed(self.config.parts)  # the same on all ranks
        extra = self.stage.after_step(taken)
        self.average.update(taken)
        return {**terms, **extra, "gradient": norm}, taken

    def _accumulate(self, inputs: Sequence[Inputs]) -> dict[str, Tensor]:
        """Gradients of the step's loss, averaged over its parts; returns means of this rank's terms."""
        rows: list[dict[str, Tensor]] = []
        for part, own in zip(self.parts, inputs, strict=True):
            self._seed(part)
            # ranks exchange gradients once a step
            with self._apart() if part != self.parts[-1] else nullcontext():
                report: LossReport = self.loss(own)
                (report.total / len(self.parts)).backward()
            rows.append({key: value.detach() for key, value in report.terms.items()})
        return {key: torch.stack([row[key] for row in rows]).mean() for key in rows[0]}

    def _apart(self) -> AbstractContextManager[None]:
        """Keep gradients to this rank for now."""
        if isinstance(self.loss, nn.parallel.DistributedDataParallel):
            return self.loss.no_sync()
        return nullcontext()

    def _validate(self) -> None:
        terms = distributed.broadcast(self._measure() if distributed.rank() == 0 else {})
        self.stage.after_validation(terms)
        self.validated = self.step

    def _measure(self) -> dict[str, float]:
        """Validate the averaged weights."""
        with self.average.applied(self.stage.module), torch.no_grad(), any_shape():
            self.stage.module.eval()
            result = self.stage.validate()
            self.stage.module.train()
        self.logger.log_terms("val", self.step, result.terms)
        if result.image is not None:
            self.logger.log_image(self.step, result.image)
        return result.terms

    def _log(self, terms: dict[str, float], pace: float) -> None:
        terms = distributed.all_reduce_mean(terms)
        unread = distributed.all_reduce_sum(self.sampler.skipped)
        if distributed.rank() == 0:
            left = self.budget.left(self.step, pace)
            terms = {**terms, **({"unread": unread} if unread else {})}
            self.logger.log_terms("train", self.step, terms, pace, left)
