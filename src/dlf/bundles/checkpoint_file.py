"""Checkpoint files: Lightning ``.ckpt``, plain state dicts, safetensors; nothing in them is ever run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dlf.errors import CheckpointError


def read(path: Path) -> dict[str, Tensor]:
    """Name to tensor, mapped to the file where its form allows it.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except (OSError, SafetensorError, RuntimeError, EOFError, KeyError) as error:
        msg = f"the checkpoint '{path}' is damaged or cannot be read ({error})".replace("\n", " ")
        raise CheckpointError(msg) from error
    except pickle.UnpicklingError as error:
        msg = (
            f"the checkpoint '{path}' is damaged or holds objects that would run code when read, and is "
            "therefore refused: save its state dict alone"
        )
        raise CheckpointError(msg) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        msg = f"the checkpoint '{path}' is not a state dict, a table of tensors"
        raise CheckpointError(msg)
    return dict(state)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError):  # the older form, not a zip file, cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)
