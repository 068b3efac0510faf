"""Save and resume a run: one file, written atomically, loaded without unpickling code."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """State of a run after `step` steps.

    config: the TrainConfig as a plain dict.  model, ema: state dicts of the trained and the averaged
    weights.  optimisers: state dicts by name.  stage: what else the stage has to remember; empty if nothing.
    spent: of a budget of minutes, see `dlf.train.budget`; empty for one of steps.
    """

    step: int
    config: dict[str, Any]
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimisers: dict[str, Any]
    stage: dict[str, Any] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write to a temporary file beside `path`, then replace it.

    Raises:
        OSError: it cannot be written, for example because the disk is full; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        torch.save({"format": FORMAT, **vars(checkpoint)}, temporary)
        os.replace(temporary, path)
    except RuntimeError as error:  # what torch makes of a failed write
        msg = f"the checkpoint {path} cannot be written; if the disk is full, free some room"
        raise OSError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; ValueError if it is not one of ours."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        if data.pop("format") == FORMAT:
            return Checkpoint(**data)
    except (AttributeError, EOFError, KeyError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(_refusal(path)) from error
    raise ValueError(_refusal(path))


def _refusal(path: Path) -> str:
    return f"{path} is not a training checkpoint of format {FORMAT}"
