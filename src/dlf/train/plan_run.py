"""Carry out a plan, or measure its stages: pictures and judges are read once, weights are handed on."""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.nn.build import PRESETS
from dlf.train.board import Board
from dlf.train.budget import TimeBudget
from dlf.train.codec_stage import CodecStage
from dlf.train.compiling import set_backends
from dlf.train.config import TrainConfig
from dlf.train.data import load_images, whole_cells
from dlf.train.device_sampler import DeviceSampler
from dlf.train.distributed import choose_device
from dlf.train.loop import Run
from dlf.train.plan import Plan, check_plan, smallest_side
from dlf.train.profile import Profile, profile
from dlf.train.recompute import recompute_blocks
from dlf.train.run import Sources, build_stage, is_codec, make_sampler
from dlf.train.shards import PictureFile, find_images
from dlf.train.tokenizer_stage import TokenizerStage
from dlf.train.warmstart import check_pictures
from dlf.train.weights import load_weights

log = logging.getLogger(__name__)

COMPILING = 45.0  # seconds that the first stage is given for it at most; later ones what the one before took
PORTION = 9  # of the minutes; no more than one part in so many
SAMPLE = 400  # pictures that a profile reads
ROOM = 2.0  # a profile leaves out a part that may take so many times as long as the longest of its kind


@dataclass(frozen=True)
class _Shared:
    """What all stages use: training and validation pictures, and where crops are cut on the device."""

    images: Sequence[NDArray[np.uint8]]
    val: Sequence[NDArray[np.uint8]]
    crops: DeviceSampler | None
    device: torch.device


def run_plan(
    plan: Plan,
    sources: Sources,
    threads: int,
    *,
    minutes: float,
    device: str = "auto",
    since: float | None = None,
) -> bool:
    """Train all stages in a row; False if a signal stopped one early.

    `sources.out` gets the newest weights, pictures and log rows under names that stay the same.
    `sources.init` are weights that the first stage starts from.  since: time.monotonic() when the minutes
    began, if that was earlier.  What reading pictures takes is spent by all stages, according to their
    shares.

    Raises:
        ValueError, OSError, DlfError: see `check_plan`, and `Run.train`; the weights of stages before stay.
    """
    since = time.monotonic() if since is None else since
    torch.set_num_threads(threads)
    own = choose_device(device)
    weights: Mapping[str, Tensor] | None = None
    if sources.init is not None:
        weights = load_weights(sources.init)
    check_plan(plan, sources, weights, minutes)
    shared = _open(plan, sources, own)
    _check_warm_start(plan, weights, shared.images)
    before = min(COMPILING, 60 * minutes / PORTION)
    for number, planned in enumerate(plan):
        began = time.monotonic()
        length = stage_seconds(plan[number:], 60 * minutes - (began - since), before)
        config = replace(planned.config, minutes=length / 60)
        log.info("stage %d of %d: %s, %.2f minutes", number + 1, len(plan), config.stage, config.minutes)
        stage = _build(config, sources, shared, weights)
        sampler = make_sampler(config, shared.images, own, shared.crops)
        board = Board(sources.out, None, stage=config.stage)
        run = Run(config, stage, sampler, sources.out, board, began, weights_only=True)
        if not run.train():
            return False
        weights = run.ema
        if config.compile and isinstance(run.budget, TimeBudget):
            before = run.budget.first or before
        del stage, run
        _tidy(own)
    return True


def stage_seconds(plan: Plan, left: float, before: float) -> float:
    """How much of what is left the first of these stages gets: its share after all have been compiled.

    before: seconds that a stage which compiles is expected to take until its first step has ended.
    """
    starts = [before * planned.config.compile for planned in plan]
    share = plan[0].share / sum(planned.share for planned in plan)
    return starts[0] + max(left - sum(starts), 1.0) * share


def _open(plan: Plan, sources: Sources, device: torch.device, most: int | None = None) -> _Shared:
    """Read pictures, at most so many, and see that every stage can use them."""
    set_backends(device)
    began = time.monotonic()
    images = load_images(_spread(find_images(sources.train), most), smallest_side(plan))
    val = [whole_cells(image) for image in load_images(find_images(sources.val), 32)]
    crops: DeviceSampler | None = None
    for planned in plan:
        sampler = make_sampler(planned.config, images, device, crops)
        crops = sampler if isinstance(sampler, DeviceSampler) else crops
    log.info("pictures are ready after %.1f s", time.monotonic() - began)
    return _Shared(images, val, crops, device)


def _check_warm_start(
    plan: Plan, start: Mapping[str, Tensor] | None, images: Sequence[NDArray[np.uint8]]
) -> None:
    """See that there are pictures enough where a codec starts from its autoencoder."""
    preset, codec = PRESETS[plan[0].config.preset], plan[-1].config.stage != "tokenizer"
    if codec and preset.stem.tokenizer and (start is None or not is_codec(start)):
        check_pictures(preset, images)


def _spread(files: Sequence[PictureFile], most: int | None) -> Sequence[PictureFile]:
    return files if most is None else files[:: max(1, len(files) // most)][:most]


def _build(
    config: TrainConfig, sources: Sources, shared: _Shared, weights: Mapping[str, Tensor] | None
) -> TokenizerStage | CodecStage:
    torch.manual_seed(config.seed)
    stage = build_stage(config, sources, shared.images, shared.val, start=weights, device=shared.device)
    stage.module.to(shared.device)
    stage.judge.to(shared.device)
    if config.recompute:
        recompute_blocks(stage.module)
    return stage


def _tidy(device: torch.device) -> None:
    """Give back what a stage held: memory, and graphs that refer to it."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


HEAD = "stage       crop form       Mpixel/s  s a step    GiB  waiting  halts   before"


def profile_plan(
    plan: Plan,
    sources: Sources,
    threads: int,
    steps: int,
    *,
    seconds: float,
    crops: Sequence[int] = (128, 256),
    device: str = "auto",
    since: float | None = None,
) -> Iterator[str]:
    """Measure steps of every stage with random weights, eager and then compiled; yields lines of a table.

    crops: sides of the squares.  seconds: after which no part begins, counted from `since`; one that has
    begun is broken off.  A compiled form is measured only of stages that ask for it.  No run is left behind.
    """
    since = time.monotonic() if since is None else since
    torch.set_num_threads(threads)
    own = choose_device(device)
    check_plan(plan, sources, None, None)
    sized = [
        replace(planned, config=replace(planned.config, shapes=((side, side),)))
        for side in crops
        for planned in plan
    ]
    shared = _open(tuple(sized), sources, own, SAMPLE)
    yield f"{own}, torch {torch.__version__}, ready after {time.monotonic() - since:.1f} s"
    yield HEAD
    # what matters most first: the time may not suffice for all
    ordered = sorted(plan, key=lambda planned: -planned.share)
    parts = [(p.config, side, form) for form in (False, True) for p in ordered for side in crops]
    longest = {False: 0.0, True: 0.0}
    with TemporaryDirectory() as folder:
        for config, side, compiled in parts:
            if compiled and not config.compile:
                continue
            label = f"{config.stage:10} {side:5} {'compiled' if compiled else 'eager':9}"
            began = time.monotonic()
            if began + ROOM * longest[compiled] > since + seconds:
                yield f"{label} left out: no time"
                continue
            config = replace(config, shapes=((side, side),), compile=compiled)
            try:
                with _alarm(since + seconds):
                    found = _measure(config, sources, shared, Path(folder), steps)
                line = _row(label, found)
            except torch.OutOfMemoryError:
                line = f"{label} the memory does not hold {config.pixels} pixels"
            except _TimeOver:
                line = f"{label} broken off: no time"
            yield line
            longest[compiled] = max(longest[compiled], time.monotonic() - began)
            _tidy(own)
    yield f"{time.monotonic() - since:.1f} s in all"


def _measure(config: TrainConfig, sources: Sources, shared: _Shared, folder: Path, steps: int) -> Profile:
    stage = _build(config, sources, shared, None)
    sampler = make_sampler(config, shared.images, shared.device, shared.crops)
    run = Run(config, stage, sampler, folder)
    found = profile(run, steps, "")
    if run.compiler is not None and not run.compiler.active:
        log.warning("the numbers of %s are those of eager steps, for compiling failed", config.stage)
    return found


def _row(label: str, found: Profile) -> str:
    return (
        f"{label} {found.rate / 1e6:9.3g} {found.step:9.3g} {found.memory / 2**30:6.2f} "
        f"{100 * found.waiting:6.1f} % {found.halts:6.3g} {found.first:6.1f} s"
    )


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
