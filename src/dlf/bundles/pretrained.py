"""Start the paper's preset from what it starts from: TiTok-L-32 and the VQGAN of taming-transformers.

DLF trains neither from nothing (section 4.1 of https://arxiv.org/abs/2503.01428).  Which tensor goes where
is said in `dlf.bundles.released`.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from dlf.bundles import checkpoint_file
from dlf.bundles.released import Origin, match
from dlf.errors import CheckpointError
from dlf.nn.model import Dlf

log = logging.getLogger(__name__)


def take_over(model: Dlf, path: Path, origin: Origin) -> tuple[str, ...]:
    """Copy the weights of a pretrained file into a model; returns the names that were dropped.

    Raises:
        CheckpointError: the file cannot be read, or does not hold exactly what the model needs; the
            model is then as it was.
    """
    released = checkpoint_file.read(path)
    try:
        tensors = match(model.config, released, origin)
    except CheckpointError as error:
        msg = f"{path} is not the {origin.title} of this preset: {error}"
        raise CheckpointError(msg) from error
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    dropped = tuple(sorted(name for name in released if origin.drops(name)))
    for name in dropped:
        log.info("dropped %s %s", name, tuple(released[name].shape))
    log.info("%s: %d tensors taken over, %d dropped", origin.title, len(tensors), len(dropped))
    return dropped
