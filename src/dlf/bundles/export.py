"""From a training checkpoint to a checked bundle."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlf.bundles.eight_bits import CONTEXT, ENCODER_SIDE, Packed, round_to_eight
from dlf.bundles.onnx_bundle import BundleSpec, PainterSpec, write_bundle, write_painter
from dlf.bundles.onnx_graph import SMALL
from dlf.bundles.parity import Parity, compare, worst
from dlf.codec.bundle import ModelBundle
from dlf.errors import BundleError
from dlf.nn.build import PRESETS
from dlf.nn.model import Dlf
from dlf.nn.semantic import QUALITIES
from dlf.train.data import load_images, to_float, whole_cells
from dlf.train.shards import ImageFile, find_images
from dlf.train.weights import load_labelled

log = logging.getLogger(__name__)

STATISTICS_PICTURES = 600  # about 10^5 tokens: enough to tell common codes from rare ones
WEIGHTS = ("float16", "int8")  # what large weights of analysis and synthesis are stored in
PARITY_PICTURES = 3
PAINTER_FILES = 12  # of which a few may be unreadable or too small


@dataclass(frozen=True)
class ExportJob:
    """What to export: a checkpoint's averaged weights, pictures for the token statistics, names.

    checkpoint: may be a folder of weights alone (`dlf.train.weights`).  preset: of weights that do not say
    it.  token_ends: see `dlf.nn.semantic.token_schedule`.  weights: one of `WEIGHTS`.
    """

    checkpoint: Path
    data: Path
    folder: Path
    name: str
    id: int
    default_quality: int
    card: dict[str, Any]
    token_ends: tuple[int, int] | None = None
    weights: str = WEIGHTS[0]
    preset: str | None = None


@dataclass(frozen=True)
class PainterJob:
    """A checkpoint whose decoder is a new painter for the files of `base`.

    data: pictures to compare on.  name, card: of the new bundle; all else is that of `base`.
    weights: of the new painter, one of `WEIGHTS`.  checkpoint, preset: see `ExportJob`.
    """

    checkpoint: Path
    data: Path
    folder: Path
    name: str
    card: dict[str, Any]
    base: ModelBundle
    weights: str = WEIGHTS[0]
    preset: str | None = None


def export(job: ExportJob) -> Parity:
    """Write and check the bundle; nothing is left behind where the check fails (BundleError)."""
    model = load_model(job.checkpoint, job.preset)
    pictures = _load(find_images(job.data), STATISTICS_PICTURES)
    packed = round_weights(model, job.weights, pictures[:PARITY_PICTURES])
    counts = count_tokens(model, pictures)
    spec = BundleSpec(job.name, job.id, job.default_quality, counts, job.card, job.token_ends)
    with _staged(job.folder) as part:
        write_bundle(model, part, spec, packed)
        parity = compare(model, ModelBundle.open(part), pictures[:PARITY_PICTURES], job.default_quality)
        log.info("%s", parity)
        parity.check()
    return parity


def export_painter(job: PainterJob) -> Parity:
    """Write a bundle that differs from `job.base` in how it paints, and check it.

    The two are compared at the qualities of the prior's anchors: between them a recovered checkpoint's
    prior may be another by a rounding, which the tables of the bundle decide.

    Raises:
        BundleError: the checkpoint's encoder, quantisers or context network are not those of `job.base`,
            or the new graph fails the check; nothing is left behind.
    """
    model = load_model(job.checkpoint, job.preset)
    _check_base(model, job)
    pictures = _load(find_images(job.data)[:PAINTER_FILES], PAINTER_FILES)[:PARITY_PICTURES]
    packed = round_weights(model, job.weights, pictures, keep=ENCODER_SIDE)
    with _staged(job.folder) as part:
        write_painter(model, part, PainterSpec(job.base, job.name, job.card), packed)
        bundle = ModelBundle.open(part)
        anchors = np.linspace(0, QUALITIES - 1, model.config.quant.qualities).astype(int)
        parity = worst([compare(model, bundle, pictures, int(quality)) for quality in anchors])
        log.info("%s", parity)
        if not parity.symbols:
            msg = (
                "the checkpoint's encoder, quantisers or context network are not those of "
                f"'{job.base.manifest.name}', whose files it would paint wrongly: {parity}"
            )
            raise BundleError(msg)
        parity.check()
    return parity


def load_model(path: Path, preset: str | None = None) -> Dlf:
    """The model of a checkpoint, or of a folder of weights alone, with the averaged weights.

    preset: of weights that do not say it.

    Raises:
        ValueError: these are no weights of ours, or not those of a codec of the preset.
    """
    weights, about = load_labelled(path)
    said = about.get("preset", preset)
    if said is None:
        msg = f"the weights in {path} do not say which preset they are of: name it with --preset"
        raise ValueError(msg)
    if preset not in (None, said):
        msg = f"{path} is of the preset '{said}', not of '{preset}'"
        raise ValueError(msg)
    preset = said
    if preset not in PRESETS:
        msg = f"{path} is of the preset '{preset}', which this package does not have"
        raise ValueError(msg)
    model = Dlf(PRESETS[preset]).eval()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:  # what torch makes of missing and unknown names
        msg = f"{path} does not hold the weights of a codec of the preset '{preset}'"
        raise ValueError(msg) from error
    return model


def _check_base(model: Dlf, job: PainterJob) -> None:
    """Refuse a model that cannot have written files of the base, a base without graphs, and its name."""
    known, config = job.base.manifest, model.config
    if known.engine != "onnx":
        msg = f"the model '{known.name}' is run by torch, and so it has no synthesis graph to replace"
        raise BundleError(msg)
    if known.name == job.name:
        msg = f"a new painter needs a name of its own, since '{known.name}' stays"
        raise BundleError(msg)
    ours = (config.tokens.count, config.tokens.codes, config.quant.channels, config.detail.swin_window)
    if ours != (known.tokens, known.codes, known.channels, known.swin_window):
        msg = (
            f"the checkpoint's preset '{config.name}' has other tokens, channels or windows than "
            f"'{known.name}', so it cannot paint its files"
        )
        raise BundleError(msg)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `folder` at the end; whatever fails removes it."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@torch.no_grad()
def round_weights(
    model: Dlf, kind: str, pictures: Sequence[NDArray[np.uint8]] = (), keep: Sequence[str] = ()
) -> list[Packed]:
    """Round the weights as the files hold them; the context network keeps its own.

    kind: one of `WEIGHTS`.  pictures: see `round_to_eight`.
    keep: prefixes of weights that are rounded to float16 in any case.
    Returns those that are to be stored in 8 bits.
    """
    packed = round_to_eight(model, pictures, keep) if kind == "int8" else {}
    for name, parameter in model.named_parameters():
        if not name.startswith(CONTEXT) and name not in packed and parameter.numel() >= SMALL:
            parameter.copy_(parameter.half().float())
    return list(packed.values())


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


def _load(files: list[ImageFile], count: int) -> list[NDArray[np.uint8]]:
    """About `count` of the pictures, spread over all, cut to whole cells."""
    spread = files[:: max(1, len(files) // count)]
    return [whole_cells(picture) for picture in load_images(spread, 64)]
