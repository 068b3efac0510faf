"""Start the paper's preset from what it starts from: TiTok-L-32 and the VQGAN of taming-transformers.

DLF trains neither from nothing (section 4.1 of https://arxiv.org/abs/2503.01428).  Every tensor of a file
is taken over or dropped by name; anything else in it, or missing from it, is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import torch

from dlf.errors import CheckpointError
from dlf.importers import checkpoint
from dlf.importers.keymap import Entry, entries, fit
from dlf.nn.model import Dlf

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """A kind of pretrained file.

    prefix: what the released DLF checkpoints put before its names.  dropped: beginnings of names that
    the codec has no use for.
    """

    title: str
    prefix: str
    dropped: tuple[str, ...]

    def wants(self, entry: Entry) -> bool:
        """Whether such a file holds this tensor."""
        return entry.titok if self is TITOK else entry.theirs.startswith(self.prefix)


TITOK = Origin("TiTok", "hybrid_codec.", ("pixel_quantize.", "pixel_decoder.", "decoder.ffn."))
VQGAN = Origin("VQGAN", "vqgan.", ("loss.",))


def take_over(model: Dlf, path: Path, origin: Origin) -> tuple[str, ...]:
    """Copy the weights of a pretrained file into a model; returns the names that were dropped.

    Raises:
        CheckpointError: the file cannot be read, or does not hold exactly what the model needs.
    """
    found = checkpoint.read(path)
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wanted = {
        entry.theirs.removeprefix(origin.prefix): entry.ours
        for entry in entries(name for name, _ in model.named_parameters())
        if entry.ours is not None and origin.wants(entry)
    }
    dropped = tuple(sorted(name for name in found if name.startswith(origin.dropped)))
    _compare(found.keys() - set(dropped), wanted.keys(), path, origin)
    fitted = {ours: fit(theirs, found[theirs], tuple(own[ours].shape)) for theirs, ours in wanted.items()}
    with torch.no_grad():
        for ours, tensor in fitted.items():
            own[ours].copy_(tensor)
    for name in dropped:
        log.info("dropped %s %s", name, tuple(found[name].shape))
    log.info("%s: %d tensors taken over, %d dropped", origin.title, len(wanted), len(dropped))
    return dropped


def _compare(found: Set[str], wanted: Set[str], path: Path, origin: Origin) -> None:
    for names, what in ((wanted - found, "lacks"), (found - wanted, "also holds")):
        if names:
            first = ", ".join(sorted(names)[:3])
            msg = f"{path} is not the {origin.title} of this preset: it {what} {len(names)} tensors ({first})"
            raise CheckpointError(msg)
