"""From a configuration file and folders of pictures to a finished stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.losses.perceptual import StemDistance
from dlf.train import checkpoint
from dlf.train.codec_stage import CodecStage, new_model
from dlf.train.config import TrainConfig, load_config
from dlf.train.data import CropSampler, find_images, load_images, whole_cells
from dlf.train.loop import CHECKPOINT, Run, Stage
from dlf.train.tokenizer_stage import TokenizerStage
from dlf.train.warmstart import warm_start

log = logging.getLogger(__name__)

TOKENIZER_PREFIX = "vqgan."
WARM_PICTURES = 400


@dataclass(frozen=True)
class Sources:
    """Where a run reads and writes.

    train, val: folders of pictures.  out: the run's folder.  init: a checkpoint whose averaged weights
    this stage starts from.  perceptual: weights file of the feature network.
    """

    train: Path
    val: Path
    out: Path
    init: Path | None
    perceptual: Path | None


def run_stage(config_path: Path, sources: Sources, threads: int) -> bool:
    """Train one stage, resuming what `sources.out` holds; False if a signal stopped it early."""
    config = load_config(config_path)
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    images = load_images(find_images(sources.train), min(min(shape) for shape in config.shapes))
    val = load_images(find_images(sources.val), 32)
    stage = build_stage(config, sources, images, [whole_cells(image) for image in val])
    sampler = CropSampler(images, config.shapes, config.pixels, config.seed)
    return Run(config, stage, sampler, sources.out).train()


def build_stage(
    config: TrainConfig,
    sources: Sources,
    images: Sequence[NDArray[np.uint8]],
    val: Sequence[NDArray[np.uint8]],
) -> Stage:
    """The stage that the configuration names, started from `sources.init`."""
    perceptual = None
    if config.weights.perceptual:
        if sources.perceptual is None:
            msg = "this stage has a perceptual term: name the weights file of its network"
            raise ValueError(msg)
        perceptual = StemDistance(sources.perceptual)
        perceptual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.stage == "tokenizer":
        stage = TokenizerStage(config, perceptual, val)
        if sources.init is not None:
            _start_from(stage.module, checkpoint.load(sources.init).ema)
        return stage
    model = new_model(config.preset)
    if sources.init is not None:
        weights = checkpoint.load(sources.init).ema
        tokenizer = not any(key.startswith(TOKENIZER_PREFIX) for key in weights)
        _start_from(model.vqgan if tokenizer else model, weights)
        if tokenizer and model.config.stem.tokenizer and not (sources.out / CHECKPOINT).exists():
            warm_start(model, images[:: max(1, len(images) // WARM_PICTURES)])
    return CodecStage(config, model, perceptual, images, val)


def _start_from(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    module.load_state_dict(weights)
    log.info("%d tensors from the initial checkpoint", len(weights))
