"""Carry out a plan: images are read once and stay on the device, weights are handed on in memory."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dlf.errors import TrainingError
from dlf.nn.build import PRESETS
from dlf.train.budget import TimeBudget
from dlf.train.codec_stage import CodecStage
from dlf.train.compiling import fast_backends
from dlf.train.config import TrainConfig
from dlf.train.data import load_images, whole_cells
from dlf.train.device_sampler import DeviceSampler
from dlf.train.distributed import choose_device
from dlf.train.engine import Run
from dlf.train.plan import LEAST, Plan, check_plan, smallest_side
from dlf.train.recompute import recompute_blocks
from dlf.train.run import Sources, Start, build_stage, is_codec, load_start, make_sampler
from dlf.train.run_logger import RunLogger
from dlf.train.shards import ImageFile, find_images
from dlf.train.tokenizer_stage import TokenizerStage
from dlf.train.warmstart import check_images

log = logging.getLogger(__name__)

COMPILING = 45.0  # seconds that the first stage is given for it at most; later ones what the one before took
PORTION = 9  # of the minutes; no more than one part in so many


@dataclass(frozen=True)
class Shared:
    """What all stages use: training and validation images, and where crops are cut on the device."""

    images: Sequence[NDArray[np.uint8]]
    val: Sequence[NDArray[np.uint8]]
    crops: DeviceSampler | None
    device: torch.device


def run_plan(
    plan: Plan,
    sources: Sources,
    *,
    minutes: float,
    device: str = "auto",
    since: float | None = None,
) -> bool:
    """Train all stages in a row; False if a signal stopped one early.

    `sources.out` gets the newest weights, images and log rows under names that stay the same.
    `sources.init` are weights that the first stage starts from.  since: time.monotonic() when the minutes
    began, if that was earlier.  What reading images takes is spent by all stages, according to their
    shares.

    Raises:
        ValueError, OSError, DlfError: see `check_plan`, and `Run.train`; the weights of stages before stay.
    """
    since = time.monotonic() if since is None else since
    own = choose_device(device)
    start = None if sources.init is None else load_start(sources.init)
    check_plan(plan, sources, start, minutes)
    with fast_backends(own):
        return _run_stages(plan, sources, start, own, minutes, since)


def _run_stages(
    plan: Plan, sources: Sources, start: Start | None, own: torch.device, minutes: float, since: float
) -> bool:
    shared = open_shared(plan, sources, own)
    _check_warm_start(plan, start, shared.images)
    before = min(COMPILING, 60 * minutes / PORTION)
    for number, planned in enumerate(plan):
        began = time.monotonic()
        left = 60 * minutes - (began - since)
        if left < LEAST:
            msg = f"no time is left for the {planned.config.stage} stage; what was trained before it is kept"
            raise TrainingError(msg)
        length = stage_seconds(plan[number:], left, before)
        config = replace(planned.config, minutes=length / 60)
        log.info("stage %d of %d: %s, %.2f minutes", number + 1, len(plan), config.stage, config.minutes)
        stage = build_shared(config, sources, shared, start)
        sampler = make_sampler(config, shared.images, own, shared.crops)
        logger = RunLogger(sources.out, None, stage=config.stage)
        run = Run(config, stage, sampler, sources.out, logger, began, weights_only=True)
        # a signal may also come when the stage's own time is over
        if not run.train() or (run.stop and number + 1 < len(plan)):
            return False
        start = Start(run.average.weights, config.stage)
        if config.compile and isinstance(run.budget, TimeBudget):
            before = run.budget.first or before
        del stage, run
        tidy(own)
    return True


def stage_seconds(plan: Plan, left: float, before: float) -> float:
    """How much of what is left the first of these stages gets: its share after all have been compiled.

    before: seconds that a stage which compiles is expected to take until its first step has ended.
    """
    starts = [before * planned.config.compile for planned in plan]
    share = plan[0].share / sum(planned.share for planned in plan)
    return min(left, starts[0] + max(left - sum(starts), 1.0) * share)


def open_shared(plan: Plan, sources: Sources, device: torch.device, most: int | None = None) -> Shared:
    """Read images, at most so many, and see that every stage can use them."""
    began = time.monotonic()
    images = load_images(_spread(find_images(sources.train), most), smallest_side(plan))
    val = [whole_cells(image) for image in load_images(find_images(sources.val), 32)]
    crops: DeviceSampler | None = None
    for planned in plan:
        sampler = make_sampler(planned.config, images, device, crops)
        crops = sampler if isinstance(sampler, DeviceSampler) else crops
    log.info("images are ready after %.1f s", time.monotonic() - began)
    return Shared(images, val, crops, device)


def _check_warm_start(plan: Plan, start: Start | None, images: Sequence[NDArray[np.uint8]]) -> None:
    """See that there are images enough where a codec starts from its autoencoder."""
    preset, codec = PRESETS[plan[0].config.preset], plan[-1].config.stage != "tokenizer"
    if codec and preset.stem.tokenizer and (start is None or not is_codec(start.weights)):
        check_images(preset, images)


def _spread(files: Sequence[ImageFile], most: int | None) -> Sequence[ImageFile]:
    return files if most is None else files[:: max(1, len(files) // most)][:most]


def build_shared(
    config: TrainConfig, sources: Sources, shared: Shared, start: Start | None
) -> TokenizerStage | CodecStage:
    """A stage on its device that starts from these weights."""
    torch.manual_seed(config.seed)
    stage = build_stage(config, sources, shared.images, shared.val, start=start, device=shared.device)
    stage.module.to(shared.device)
    stage.judge.to(shared.device)
    if config.recompute:
        recompute_blocks(stage.module)
    return stage


def tidy(device: torch.device) -> None:
    """Give back what a stage held: memory, and graphs that refer to it."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
