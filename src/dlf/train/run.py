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

from dlf.importers.pretrained import take_over
from dlf.importers.released import TITOK, VQGAN
from dlf.losses.perceptual import perceptual_distance
from dlf.train import checkpoint, distributed
from dlf.train.board import Board
from dlf.train.codec_stage import CodecStage, new_model
from dlf.train.config import TrainConfig, load_config
from dlf.train.data import Ahead, CropSampler, Sampler, StreamSampler, load_images, whole_cells
from dlf.train.decoder_stage import DecoderStage
from dlf.train.distributed import choose_device
from dlf.train.loop import CHECKPOINT, Run
from dlf.train.recompute import recompute_blocks
from dlf.train.shards import find_images
from dlf.train.tokenizer_stage import TokenizerStage
from dlf.train.warmstart import warm_start

log = logging.getLogger(__name__)

TOKENIZER_PREFIX = "vqgan."
WARM_PICTURES = 400


@dataclass(frozen=True)
class Sources:
    """Where a run reads and writes.

    train, val: folders of pictures or WebDataset shards.  out: the run's folder.  init: a checkpoint
    whose averaged weights this stage starts from.  perceptual: see
    `dlf.losses.perceptual.perceptual_distance`.
    features: weights of the frozen network of a discriminator (`dlf.losses.discriminators.LiteFeatures`).
    titok, vqgan: files of the pretrained models that a new codec starts from.
    """

    train: Path
    val: Path
    out: Path
    init: Path | None
    perceptual: str | None
    features: Path | None = None
    titok: Path | None = None
    vqgan: Path | None = None


def run_stage(
    config_path: Path, sources: Sources, threads: int, *, device: str = "auto", tensorboard: bool = False
) -> bool:
    """Train one stage, resuming what `sources.out` holds; False if a signal stopped it early.

    threads: of each process.  device: "auto", "cpu" or "cuda".  Started by torchrun, the processes train
    one model together.
    """
    config = load_config(config_path)
    torch.set_num_threads(threads)
    own = choose_device(device)
    with distributed.process_group(own):
        first = distributed.rank() == 0
        if not first:
            logging.getLogger("dlf").setLevel(logging.WARNING)
        torch.manual_seed(config.seed)
        sampler, images = open_pictures(config, sources.train)
        val = load_images(find_images(sources.val), 32)
        stage = build_stage(config, sources, images, [whole_cells(image) for image in val])
        stage.module.to(own)
        stage.judge.to(own)
        if config.recompute:
            recompute_blocks(stage.module)
        board = Board(sources.out, config.steps, tensorboard=tensorboard and first)
        return Run(config, stage, sampler, sources.out, board).train()


def open_pictures(config: TrainConfig, place: Path) -> tuple[Sampler, list[NDArray[np.uint8]]]:
    """Where crops come from, and pictures in memory: all, or a sample of those that are streamed."""
    files = find_images(place)
    smallest = min(min(shape) for shape in config.shapes)
    if not config.stream:
        images = load_images(files, smallest)
        return CropSampler(images, config.shapes, config.pixels, config.seed), images
    log.info("%d pictures to draw from", len(files))
    images = load_images(files[:: max(1, len(files) // WARM_PICTURES)][:WARM_PICTURES], smallest)
    parts = distributed.own_parts(config.parts)

    def following(step: int, part: int) -> tuple[int, int]:
        return (step, part + parts.step) if part + parts.step < config.parts else (step + 1, parts.start)

    return Ahead(StreamSampler(files, config.shapes, config.pixels, config.seed), following), images


def build_stage(
    config: TrainConfig,
    sources: Sources,
    images: Sequence[NDArray[np.uint8]],
    val: Sequence[NDArray[np.uint8]],
) -> TokenizerStage | CodecStage:
    """The stage that the configuration names, started from `sources.init`."""
    perceptual = None
    if config.weights.perceptual:
        if sources.perceptual is None:
            msg = "this stage has a perceptual term: name its network with --perceptual"
            raise ValueError(msg)
        perceptual = perceptual_distance(sources.perceptual)
        perceptual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.stage == "tokenizer":
        stage = TokenizerStage(config, perceptual, val, sources.features)
        if sources.init is not None:
            _start_from(stage.module, checkpoint.load(sources.init).ema)
        return stage
    model = new_model(config.preset)
    resumes = (sources.out / CHECKPOINT).exists()
    for path, origin in ((sources.titok, TITOK), (sources.vqgan, VQGAN)):
        if path is not None and not resumes:
            take_over(model, path, origin)
    if sources.init is not None:
        weights = checkpoint.load(sources.init).ema
        tokenizer = not any(key.startswith(TOKENIZER_PREFIX) for key in weights)
        _start_from(model.vqgan if tokenizer else model, weights)
        if tokenizer and model.config.stem.tokenizer and not resumes:
            if model.config.vqgan.codes:
                pictures = images[:: max(1, len(images) // WARM_PICTURES)]
                warm_start(model, pictures, apart=config.codes_apart)
            else:  # nothing between stem and latent has a formula, and the align stage soon finds it
                stem = model.encoder.patch_embed.get_submodule("encoder")
                stem.load_state_dict(model.vqgan.encoder.state_dict())
    kind = DecoderStage if config.stage == "decoder" else CodecStage
    return kind(config, model, perceptual, images, val, sources.features)


def _start_from(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    module.load_state_dict(weights)
    log.info("%d tensors from the initial checkpoint", len(weights))
