"""What the stages of a plan cost on a machine, as a table that is ready in a time that was named before."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Literal

import torch

from dlf.train.compiling import fast_backends, is_full
from dlf.train.config import TrainConfig
from dlf.train.distributed import choose_device
from dlf.train.engine import Run
from dlf.train.plan import Plan, check_plan
from dlf.train.plan_run import Shared, build_shared, open_shared, tidy
from dlf.train.profile import Profile, profile
from dlf.train.run import Sources, make_sampler

log = logging.getLogger(__name__)

SAMPLE = 400  # images that a profile reads
FEWEST = 3.0  # seconds below which no further part begins
HEAD = "stage       crop form       Mpixel/s  s a step    GiB  waiting  halts   before"

Form = Literal["eager", "graph", "compiled"]
Key = tuple[str, int, Form]
"""Stage, side of the crops, and whether as it is written, recorded (`dlf.train.graph`) or compiled."""


def profile_plan(
    plan: Plan,
    sources: Sources,
    steps: int,
    *,
    seconds: float,
    crops: Sequence[int] = (128, 256),
    device: str = "auto",
    since: float | None = None,
) -> Iterator[str]:
    """Measure steps of every stage with random weights; yields lines of a table.

    Each stage is measured as it is written on crops of these sides, then recorded and compiled on the crops
    that its configuration names, if it asks for that.  seconds: after which no part begins, counted from
    `since`; one that has begun is broken off.  No run is left behind.

    Raises:
        ValueError, OSError, DlfError: see `check_plan`, and for crops that no image fills.
    """
    since = time.monotonic() if since is None else since
    own = choose_device(device)
    check_plan(plan, sources, None, None)
    parts = _parts(plan, crops)
    sized = tuple(replace(plan[0], config=config) for config in parts.values())
    shared = open_shared(sized, sources, own, SAMPLE)
    yield f"{_name(own)}, torch {torch.__version__}, ready after {time.monotonic() - since:.1f} s"
    yield HEAD
    profiles: dict[Key, Profile] = {}
    with TemporaryDirectory() as folder, fast_backends(own):
        for key, config in parts.items():
            label = f"{key[0]:10} {key[1]:5} {key[2]:9}"
            if time.monotonic() + FEWEST > since + seconds:
                yield f"{label} left out: no time"
                continue
            try:
                with _alarm(since + seconds):
                    profiles[key] = _measure(config, sources, shared, Path(folder), steps)
                line = _row(label, profiles[key])
            except (RuntimeError, MemoryError) as error:
                if not is_full(error):
                    raise
                line = f"{label} the memory does not hold {config.pixels} pixels"
            except _TimeOver:
                line = f"{label} broken off: no time"
            yield line
            tidy(own)
    yield from _verdicts(profiles)
    yield f"{time.monotonic() - since:.1f} s in all"


def _parts(plan: Plan, crops: Sequence[int]) -> dict[Key, TrainConfig]:
    """What to measure, in this order: compiling may take all the time that there is."""
    parts: dict[Key, TrainConfig] = {}
    for planned in plan:
        for side in crops:
            config = replace(planned.config, shapes=((side, side),), compile=False, graph=False)
            parts[(config.stage, side, "eager")] = config
    forms: tuple[Form, Form] = ("graph", "compiled")
    for form in forms:
        for planned in plan:
            config = replace(planned.config, graph=form == "graph", compile=form == "compiled")
            asked = planned.config.graph if config.graph else planned.config.compile
            for shape in sorted(set(config.shapes)) if asked else ():
                parts[(config.stage, shape[1], form)] = replace(config, shapes=(shape,))
    return parts


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _measure(config: TrainConfig, sources: Sources, shared: Shared, folder: Path, steps: int) -> Profile:
    stage = build_shared(config, sources, shared, None)
    sampler = make_sampler(config, shared.images, shared.device, shared.crops)
    run = Run(config, stage, sampler, folder)
    measured = profile(run, steps, "")
    if run.compiler is not None and not run.compiler.active:
        log.warning("the numbers of %s are those of eager steps, for compiling failed", config.stage)
    return measured


def _row(label: str, measured: Profile) -> str:
    return (
        f"{label} {measured.rate / 1e6:9.3g} {measured.step:9.3g} {measured.memory / 2**30:6.2f} "
        f"{100 * measured.waiting:6.1f} % {measured.halts:6.3g} {measured.first:6.1f} s"
    )


def _verdicts(profiles: Mapping[Key, Profile]) -> Iterator[str]:
    """After how long a stage has seen more pixels than as it is written, what it took at first counted."""
    for (stage, side, form), fast in profiles.items():
        slow = profiles.get((stage, side, "eager"))
        if form == "eager" or slow is None:
            continue
        what = "compiling" if form == "compiled" else "recording"
        if fast.rate <= slow.rate:
            yield f"{stage} {side}: {what} does not pay"
            continue
        after = (fast.rate * fast.first - slow.rate * slow.first) / (fast.rate - slow.rate)
        yield f"{stage} {side}: {what} pays from {max(after, 0.0):.0f} s on"


class _TimeOver(BaseException):
    """Raised by a signal, past everything that catches errors of a step."""


@contextmanager
def _alarm(when: float) -> Iterator[None]:
    """Raise `_TimeOver` at that moment of time.monotonic(), where signals can do that."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeOver

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(when - time.monotonic(), 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
