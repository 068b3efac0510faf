"""From a configuration and folders of images to a finished stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.bundles.pretrained import take_over
from dlf.bundles.released import TITOK, VQGAN
from dlf.losses.perceptual import perceptual_distance
from dlf.nn.build import PRESETS
from dlf.train import distributed
from dlf.train.align_stage import AlignStage
from dlf.train.codec_stage import CodecStage, new_model
from dlf.train.compiling import fast_backends, is_full, too_large
from dlf.train.config import TrainConfig
from dlf.train.data import CropSampler, Prefetch, Sampler, StreamSampler, load_images, whole_cells
from dlf.train.device_sampler import DeviceSampler, fits_device
from dlf.train.distributed import choose_device
from dlf.train.engine import CHECKPOINT, Run
from dlf.train.half_stages import DecoderStage, EncoderStage, HalfStage
from dlf.train.profile import Profile, profile
from dlf.train.recompute import recompute_blocks
from dlf.train.run_logger import RunLogger
from dlf.train.shards import find_images
from dlf.train.tokenizer_stage import TokenizerStage
from dlf.train.trained_model import load_model
from dlf.train.warmstart import warm_start
from dlf.train.weights import load_labelled

log = logging.getLogger(__name__)

TOKENIZER_PREFIX = "vqgan."
WARM_IMAGES = 400


@dataclass(frozen=True)
class Start:
    """Averaged weights that a stage starts from; stage: the one that they come from, if that is known."""

    weights: Mapping[str, Tensor]
    stage: str = ""


@dataclass(frozen=True)
class Sources:
    """Where a run reads and writes.

    train, val: folders of images or WebDataset shards.  out: the run's folder.  init: a checkpoint or a
    folder of weights (`dlf.train.weights`) whose averaged weights this stage starts from.  perceptual: see
    `dlf.losses.perceptual.perceptual_distance`.
    features: weights of the frozen network of a discriminator (`dlf.losses.discriminators.LiteFeatures`).
    titok, vqgan: files of the pretrained models that a new codec starts from.  teacher: checkpoint or folder
    of weights of a model whose streams an end is trained for, see `dlf.train.half_stages`.
    """

    train: Path
    val: Path
    out: Path
    init: Path | None
    perceptual: str | None
    features: Path | None = None
    titok: Path | None = None
    vqgan: Path | None = None
    teacher: Path | None = None


def run_stage(
    config: TrainConfig,
    sources: Sources,
    *,
    device: str = "auto",
    tensorboard: bool = False,
    since: float | None = None,
) -> bool:
    """Train one stage, resuming what `sources.out` holds; False if a signal stopped it early.

    device: "auto", "cpu" or "cuda".  since: time.monotonic() when a run of minutes began, if that was
    earlier.  Started by torchrun, the processes train one model together.  Takes the process's random
    numbers, and handles SIGTERM and SIGINT meanwhile.
    """
    since = time.monotonic() if since is None else since
    own = choose_device(device)
    with distributed.process_group(own), fast_backends(own):
        stage, sampler = _prepare(config, sources, own)
        steps = None if config.minutes else config.steps
        logger = RunLogger(sources.out, steps, tensorboard=tensorboard and distributed.rank() == 0)
        return Run(config, stage, sampler, sources.out, logger, since).train()


def profile_stage(
    config: TrainConfig, sources: Sources, steps: int, *, device: str = "auto"
) -> Iterator[Profile]:
    """Measure steps of a stage as it is written, then compiled if the configuration says so.

    No run is left behind, and none in `sources.out` is touched or resumed.
    """
    own = choose_device(device)
    with TemporaryDirectory() as folder, fast_backends(own):
        nowhere = replace(sources, out=Path(folder))
        stage, sampler = _prepare(config, nowhere, own)
        shapes = ", ".join(f"{height}x{width}" for height, width in sorted(set(config.shapes)))
        label = f"{config.preset} {config.stage}, {shapes}, {config.parts} x {config.pixels} pixels, {own}"
        for compiled in (False, True)[: 1 + config.compile]:
            run = Run(replace(config, compile=compiled), stage, sampler, nowhere.out)
            try:
                yield profile(run, steps, f"{label}, {'compiled' if compiled else 'eager'}")
            except (RuntimeError, MemoryError) as error:
                if not is_full(error):
                    raise
                raise too_large(config) from error


def _prepare(
    config: TrainConfig, sources: Sources, own: torch.device
) -> tuple[TokenizerStage | CodecStage, Sampler]:
    """Everything that a run needs, on its device."""
    torch.manual_seed(config.seed)
    sampler, images = open_images(config, sources.train, own)
    val = load_images(find_images(sources.val), 32)
    stage = build_stage(config, sources, images, [whole_cells(image) for image in val], device=own)
    stage.module.to(own)
    stage.judge.to(own)
    if config.recompute:
        recompute_blocks(stage.module)
    return stage, sampler


def open_images(
    config: TrainConfig, place: Path, device: torch.device
) -> tuple[Sampler, list[NDArray[np.uint8]]]:
    """Where crops come from, and images in memory: all, or a sample of those that are streamed."""
    files = find_images(place)
    smallest = min(min(shape) for shape in config.shapes)
    if not config.stream:
        images = load_images(files, smallest)
        return make_sampler(config, images, device), images
    log.info("%d images to draw from", len(files))
    images = load_images(files[:: max(1, len(files) // WARM_IMAGES)][:WARM_IMAGES], smallest)
    streamed = StreamSampler(files, config.shapes, config.pixels, config.seed)
    return Prefetch(streamed, distributed.own_parts(config.parts)), images


def make_sampler(
    config: TrainConfig,
    images: Sequence[NDArray[np.uint8]],
    device: torch.device,
    shared: DeviceSampler | None = None,
) -> CropSampler | DeviceSampler:
    """Crops of images in memory; shared: has them on the device already."""
    drawn = (config.shapes, config.pixels, config.seed)
    if not on_device(config, device):
        return CropSampler(images, *drawn)
    if shared is not None:
        return shared.again(*drawn, config.downscale)
    fits_device(images, device)
    return DeviceSampler(images, *drawn, device, config.downscale)


def on_device(config: TrainConfig, device: torch.device) -> bool:
    """Whether crops are cut there."""
    pays = device.type == "cuda" or config.downscale > 1
    return config.sampler == "device" or (config.sampler == "auto" and pays)


def open_perceptual(config: TrainConfig, source: str | None) -> nn.Module | None:
    """The network of the perceptual term, if the stage has one; ValueError if none or no file is named."""
    if not config.weights.perceptual:
        return None
    if source is None:
        msg = "this stage has a perceptual term: name its network with --perceptual"
        raise ValueError(msg)
    network = perceptual_distance(source)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def build_stage(
    config: TrainConfig,
    sources: Sources,
    images: Sequence[NDArray[np.uint8]],
    val: Sequence[NDArray[np.uint8]],
    *,
    start: Start | None = None,
    device: torch.device | None = None,
) -> TokenizerStage | CodecStage:
    """The stage that the configuration names, started from `start`, or else from `sources.init`.

    device: where a warm start computes; the processor if not named.
    """
    perceptual = open_perceptual(config, sources.perceptual)
    if start is None and sources.init is not None:
        start = load_start(sources.init)
    check_spread(config, start)
    weights = None if start is None else start.weights
    if config.stage == "tokenizer":
        stage = TokenizerStage(config, perceptual, val, sources.features)
        if weights is not None:
            _start_from(stage.module, weights, config, sources.init)
        return stage
    model = new_model(config.preset)
    resumes = (sources.out / CHECKPOINT).exists()
    for path, origin in ((sources.titok, TITOK), (sources.vqgan, VQGAN)):
        if path is not None and not resumes:
            take_over(model, path, origin)
    if weights is not None:
        tokenizer = not is_codec(weights)
        _start_from(model.vqgan if tokenizer else model, weights, config, sources.init)
        if tokenizer and model.config.stem.tokenizer and not resumes:
            samples = images[:: max(1, len(images) // WARM_IMAGES)]
            warm_start(model.to(device or torch.device("cpu")), samples, spread=config.codebook_spread)
    kinds = {
        "align": AlignStage, "joint": CodecStage, "decoder": DecoderStage, "encoder": EncoderStage,
    }  # fmt: skip
    found = kinds[config.stage](config, model, perceptual, images, val, sources.features)
    if sources.teacher is not None:
        _let_teach(found, sources.teacher, device, start=weights is None and not resumes)
    return found


def _let_teach(stage: CodecStage, source: Path, device: torch.device | None, *, start: bool) -> None:
    """Give an end of a codec a teacher; ValueError where it cannot have one.  start: see `learn_from`."""
    if not isinstance(stage, HalfStage):
        msg = f"a teacher is for the stages decoder and encoder, not for {stage.config.stage}"
        raise ValueError(msg)
    teacher = load_model(source).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    stage.learn_from(teacher, start=start)


def load_start(source: Path) -> Start:
    """Averaged weights of a checkpoint or a folder; errors as those of `dlf.train.weights.load_weights`."""
    weights, labels = load_labelled(source)
    return Start(weights, labels.get("stage", ""))


def check_spread(config: TrainConfig, start: Start | None) -> None:
    """Raise ValueError where the configuration spreads a codebook and no warm start would do so."""
    if config.codebook_spread == 1.0:
        return
    preset = PRESETS[config.preset]
    if not preset.stem.tokenizer or not preset.vqgan.codes:
        reason = f"the preset {config.preset} has no codes that it could move"
    elif start is not None and start.stage == "align":
        reason = "the weights that the stage starts from were aligned to codes where they are now"
    else:
        return
    msg = f"codebook_spread is {config.codebook_spread:g}, but {reason}: set codebook_spread=1"
    raise ValueError(msg)


def is_codec(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a whole codec; else of a tokenizer."""
    return any(key.startswith(TOKENIZER_PREFIX) for key in weights)


def _start_from(
    module: nn.Module, weights: Mapping[str, Tensor], config: TrainConfig, source: Path | None
) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:  # what torch makes of missing and unknown names, and of other shapes
        which = "the weights before it" if source is None else str(source)
        msg = (
            f"the {config.stage} stage of the preset '{config.preset}' cannot start from {which}: "
            "that is of another preset, or of no stage before it"
        )
        raise ValueError(msg) from error
    log.info("%d tensors from the initial checkpoint", len(weights))
