"""What a step costs on this machine, measured before a run."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dlf.train import graph
from dlf.train.data import Batch, Sampler
from dlf.train.engine import Run

log = logging.getLogger(__name__)

# steps before the clock starts, and one of every shape; a step was recorded and replayed by then
WARM_UP = graph.WARM_UP + 2


@dataclass(frozen=True)
class Profile:
    """Means over some steps.

    label: what was measured.  rate: pixels a second.  step: seconds.  memory: bytes at the peak, of the
    device, on a CPU of the process.  waiting: share of the time that the host spent on drawing crops.
    first: seconds of the steps before, in which shapes are met for the first time (and compiled).  halts:
    how often a step made the host wait for a GPU.
    """

    label: str
    rate: float
    step: float
    memory: int
    waiting: float
    first: float
    halts: float = 0.0

    def __str__(self) -> str:
        """One line to read."""
        return (
            f"{self.label}: {self.rate / 1e6:.3g} Mpixel/s, {self.step:.3g} s a step, "
            f"{self.memory / 2**30:.2f} GiB at most, {100 * self.waiting:.1f} % waiting for images; "
            f"{self.first:.3g} s before" + (f"; {self.halts:.3g} halts a step" if self.halts else "")
        )


class _Watched:
    """A sampler that counts pixels and seconds, and notes shapes."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.pixels, self.seconds = sampler, 0, 0.0
        self.shapes: set[torch.Size] = set()

    @property
    def skipped(self) -> int:
        """See `Sampler`."""
        return self.sampler.skipped

    def __call__(self, step: int, part: int = 0) -> Batch:
        """See `Sampler`."""
        began = time.perf_counter()
        batch = self.sampler(step, part)
        self.seconds += time.perf_counter() - began
        self.pixels += batch.pixels[:, 0].numel()
        self.shapes.add(batch.pixels.shape)
        return batch


def profile(run: Run, steps: int, label: str) -> Profile:
    """Take steps of a run, which is of no use afterwards, as near its end as all terms need."""
    sampler = _Watched(run.sampler)
    run.sampler, run.place = sampler, 0.95 * run.config.steps
    began = time.perf_counter()
    start = run.step
    while run.step < start + WARM_UP or len(sampler.shapes) < len(set(run.config.shapes)):
        run.advance()
    _wait(run.device)
    first = time.perf_counter() - began
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    sampler.pixels, sampler.seconds = 0, 0.0
    began = time.perf_counter()
    with _halts(run.device) as halts:
        for _ in range(steps):
            run.advance()
    _wait(run.device)
    whole = time.perf_counter() - began
    run.sampler = sampler.sampler
    rate, waiting = sampler.pixels / whole, sampler.seconds / whole
    return Profile(label, rate, whole / steps, _peak(run.device), waiting, first, len(halts) / steps)


@contextmanager
def _halts(device: torch.device) -> Iterator[list[str]]:
    """Collect where the host waits for a GPU."""
    places: list[str] = []
    if device.type != "cuda":
        yield places
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield places
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places += [f"{w.filename}:{w.lineno}" for w in said if "synchroniz" in str(w.message)]
    for place in sorted(set(places)):
        log.info("a step waits for the GPU at %s", place)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
