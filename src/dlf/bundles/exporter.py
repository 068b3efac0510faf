"""From a trained model to a checked bundle; nothing is left behind where the check fails."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlf.bundles import graphs
from dlf.bundles.bundle_writer import BundleSpec, staged
from dlf.bundles.eight_bits import CONTEXT, DECODER_SIDE, ENCODER_SIDE, Feed, Packed, round_to_eight
from dlf.bundles.onnx_bundle import (
    ANALYSIS,
    SYNTHESIS,
    TokenUse,
    plan_tensors,
    write_onnx_bundle,
    write_partial_bundle,
)
from dlf.bundles.onnx_graph import SMALL
from dlf.bundles.parity import ENDS, Parity, compare, worst
from dlf.bundles.recover import Recovered, recover_if_of
from dlf.codec.bundle import ModelBundle
from dlf.codec.onnx_backend import OnnxBackend
from dlf.errors import BundleError
from dlf.nn.levels import from_levels
from dlf.nn.model import Dlf
from dlf.nn.schedule import QUALITIES
from dlf.records import UInt8

log = logging.getLogger(__name__)

WEIGHTS = ("float16", "int8")  # what large weights of analysis and synthesis are stored in
ENCODER, DECODER = ANALYSIS, SYNTHESIS  # graphs that a bundle may have anew for the streams of another
SIDES = {ENCODER: ENCODER_SIDE, DECODER: DECODER_SIDE}  # weights of theirs
PARITY_IMAGES = 3
CODE_ERROR = 2e-3  # of a number of a code, which a bundle may hold in 16 bits


@dataclass(frozen=True)
class ExportJob:
    """What to write: a bundle in `folder`.

    token_ends: see `dlf.nn.schedule.token_schedule`.  weights: one of `WEIGHTS`.
    """

    folder: Path
    spec: BundleSpec
    token_ends: tuple[int, int] | None = None
    weights: str = WEIGHTS[0]


@dataclass(frozen=True)
class SameStreamJob:
    """What to write: a bundle in `folder` for the streams of `base`, with another decoder, encoder or both.

    name, card: of the new bundle.  graphs: which of `DECODER` and `ENCODER` are new; all else is that of
    `base`.  weights: of those graphs, one of `WEIGHTS`.
    """

    folder: Path
    name: str
    card: dict[str, Any]
    base: ModelBundle
    weights: str = WEIGHTS[0]
    graphs: tuple[str, ...] = (DECODER,)

    @property
    def kept(self) -> str:
        """What must be that of `base`, in words."""
        if ENCODER not in self.graphs:
            return "encoder, quantisers or context network are not those"
        if DECODER not in self.graphs:
            return "decoder or context network are not those"
        return "context network is not that"


def export(model: Dlf, images: Sequence[UInt8], job: ExportJob) -> Parity:
    """Write and check the bundle of a model, whose weights are rounded as the files hold them.

    images: uint8 (H, W, 3), sides multiples of 32, like those to come: tokens are counted on all of them, and
    the first few are compared.

    Raises:
        BundleError: the bundle does not compute what the model does.
    """
    sample = images[:PARITY_IMAGES]
    packed = round_weights(model, job.weights, sample)
    tokens = TokenUse(count_tokens(model, images), job.token_ends)
    with staged(job.folder) as part:
        write_onnx_bundle(model, part, job.spec, tokens, packed)
        parity = compare(model, ModelBundle.open(part), sample, job.spec.default_quality)
        log.info("%s", parity)
        parity.check()
    return parity


def export_same_stream(model: Dlf, images: Sequence[UInt8], job: SameStreamJob) -> Parity:
    """Write and check a bundle that differs from `job.base` in how it decodes, how it encodes, or both.

    A model of another preset than the base's may have its streams, too (`dlf.train.half_stages`): of such a
    one only the context network and what is new must agree.

    images: as for `export`, to compare on.  The two are compared at the qualities of the prior's anchors:
    between them a recovered checkpoint's prior may be another by a rounding, which the tables of the bundle
    decide.

    Raises:
        BundleError: context network, codes or a graph that is not new are not those of `job.base`, or a new
            graph fails the check.
    """
    _check_base(model, job)
    own = recover_if_of(job.base, model.config.name)
    if own is not None:
        _check_codes(model, own, job.base.manifest.name)
    sample = images[:PARITY_IMAGES]
    keep = [prefix for graph, side in SIDES.items() if graph not in job.graphs for prefix in side]
    packed = round_weights(model, job.weights, sample, keep, partial(_feed, model, job))
    # an end of another preset was trained beside a teacher's, and has no other end of its own
    ends = job.graphs if own is None else ENDS
    with staged(job.folder) as part:
        write_partial_bundle(model, part, job.base, job.graphs, job.name, job.card, packed)
        bundle = ModelBundle.open(part)
        anchors = np.linspace(0, QUALITIES - 1, model.config.quant.qualities).astype(int)
        parity = worst([compare(model, bundle, sample, int(quality), ends) for quality in anchors])
        log.info("%s", parity)
        if not parity.symbols or (DECODER not in job.graphs and not parity.holds):
            msg = (
                f"the checkpoint's {job.kept} of '{job.base.manifest.name}', whose streams it would be "
                f"wrong for: {parity}"
            )
            raise BundleError(msg)
        parity.check()
    return parity


def _feed(model: Dlf, job: SameStreamJob, image: UInt8) -> None:
    """Run an image through the new ends of a model, the decoder on what will be its symbols."""
    plans, asked = plan_tensors(model.grid(*image.shape[:2])), torch.tensor([float(QUALITIES // 2)])
    if ENCODER in job.graphs:
        tokens, y = graphs.Analysis(model)(torch.tensor(image), asked, *plans)
    else:
        latents = OnnxBackend(job.base, job.base.tables()).analyse(image, QUALITIES // 2)
        tokens, y = torch.from_numpy(latents.tokens).long(), torch.from_numpy(latents.y)
    if DECODER in job.graphs:
        graphs.Synthesis(model)(tokens, y[None], asked, *plans)


def _check_base(model: Dlf, job: SameStreamJob) -> None:
    """Refuse a model that cannot have written files of the base, a base without graphs, and its name."""
    base, config = job.base.manifest, model.config
    if base.engine != "onnx":
        msg = f"the model '{base.name}' is run by torch, and so it has no synthesis graph to replace"
        raise BundleError(msg)
    if base.name == job.name:
        msg = f"a new model needs a name of its own, since '{base.name}' stays"
        raise BundleError(msg)
    ours = (config.tokens.count, config.tokens.codes, config.quant.channels, config.detail.swin_window)
    if ours != (base.tokens, base.codes, base.channels, base.swin_window):
        msg = (
            f"the checkpoint's preset '{config.name}' has other tokens, channels or windows than "
            f"'{base.name}', so it cannot decode its files"
        )
        raise BundleError(msg)


@torch.no_grad()
def _check_codes(model: Dlf, own: Recovered, name: str) -> None:
    """Refuse a model whose tokens mean something else than those of the base's files.

    own: what the base was recovered as; its name is `name`.
    """
    theirs = copy.deepcopy(model.quantize)
    theirs.embedding.weight.copy_(own.tensors["quantize.embedding.weight"])
    if not torch.allclose(theirs.codebook(), model.quantize.codebook(), atol=CODE_ERROR):
        msg = f"the codes of the checkpoint's tokens are not those of '{name}'"
        raise BundleError(msg)


@torch.no_grad()
def round_weights(
    model: Dlf,
    kind: str,
    images: Sequence[UInt8] = (),
    keep: Sequence[str] = (),
    feed: Feed | None = None,
) -> list[Packed]:
    """Round the weights as the files hold them; the context network keeps its own.

    kind: one of `WEIGHTS`.  images, feed: see `round_to_eight`.
    keep: prefixes of weights that are rounded to float16 in any case.
    Returns those that are to be stored in 8 bits.
    """
    packed = round_to_eight(model, images, keep, feed) if kind == "int8" else {}
    for name, parameter in model.named_parameters():
        if not name.startswith(CONTEXT) and name not in packed and parameter.numel() >= SMALL:
            parameter.copy_(parameter.half().float())
    return list(packed.values())


@torch.no_grad()
def count_tokens(model: Dlf, images: Sequence[UInt8]) -> NDArray[np.int64]:
    """How often each code stands at each place of a window: int64 (tokens, codes).

    images: uint8 (H, W, 3), sides multiples of 32.
    """
    tokens = model.config.tokens
    counts = np.zeros((tokens.count, tokens.codes), np.int64)
    for image in images:
        encoded = model.encoder(from_levels(torch.tensor(image)), model.grid(*image.shape[:2]))
        indices = model.quantize.nearest(encoded.z).numpy()
        for place in range(tokens.count):
            counts[place] += np.bincount(indices[:, place], minlength=tokens.codes)
    return counts
