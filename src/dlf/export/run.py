"""From a training checkpoint to a checked bundle."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlf.codec.bundle import ModelBundle
from dlf.export.bundle_writer import BundleSpec, write_bundle
from dlf.export.onnx_writer import SMALL
from dlf.export.parity import Parity, compare
from dlf.nn.build import PRESETS
from dlf.nn.model import Dlf
from dlf.train import checkpoint
from dlf.train.data import load_images, to_float, whole_cells
from dlf.train.shards import PictureFile, find_images

log = logging.getLogger(__name__)

STATISTICS_PICTURES = 600  # about 10^5 tokens: enough to tell common codes from rare ones
PARITY_PICTURES = 3


@dataclass(frozen=True)
class ExportJob:
    """What to export: a checkpoint's averaged weights, pictures for the token statistics, names.

    token_ends: see `dlf.nn.semantic.token_schedule`.
    """

    checkpoint: Path
    data: Path
    folder: Path
    name: str
    id: int
    default_quality: int
    card: dict[str, Any]
    token_ends: tuple[int, int] | None = None


def export(job: ExportJob) -> Parity:
    """Write and check the bundle; nothing is left behind where the check fails (BundleError)."""
    state = checkpoint.load(job.checkpoint)
    model = Dlf(PRESETS[str(state.config["preset"])]).eval()
    model.load_state_dict(state.ema)
    round_to_half(model)
    pictures = [whole_cells(p) for p in load_images(_spread(find_images(job.data)), 64)]
    counts = count_tokens(model, pictures)
    spec = BundleSpec(job.name, job.id, job.default_quality, counts, job.card, job.token_ends)
    part = job.folder.with_name(job.folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        write_bundle(model, part, spec)
        parity = compare(model, ModelBundle.open(part), pictures[:PARITY_PICTURES], job.default_quality)
        log.info("%s", parity)
        parity.check()
        shutil.rmtree(job.folder, ignore_errors=True)
        part.rename(job.folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return parity


@torch.no_grad()
def round_to_half(model: Dlf) -> None:
    """Round the weights that the files hold in half precision; the context network keeps its own."""
    for name, parameter in model.named_parameters():
        if "details.context" not in name and parameter.numel() >= SMALL:
            parameter.copy_(parameter.half().float())


@torch.no_grad()
def count_tokens(model: Dlf, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """How often each code stands at each place of a window: int64 (tokens, codes)."""
    tokens = model.config.tokens
    counts = np.zeros((tokens.count, tokens.codes), np.int64)
    for picture in pictures:
        grid = model.grid(*picture.shape[:2])
        z, _ = model.encoder(to_float([picture]), grid)
        indices = model.quantize.nearest(z).numpy()
        for place in range(tokens.count):
            counts[place] += np.bincount(indices[:, place], minlength=tokens.codes)
    return counts


def _spread(files: list[PictureFile]) -> list[PictureFile]:
    return files[:: max(1, len(files) // STATISTICS_PICTURES)]
