"""Weights alone, in small files: what a run can be continued from where its checkpoint is too large to keep.

A folder holds ``weights_00.safetensors``, ``weights_01.safetensors`` and so on, each below 16 MiB, float16.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dlf.train import checkpoint

PART_BYTES = 15 * 2**20  # of numbers; the rest of 16 MiB is for names and shapes
PATTERN = "weights_*.safetensors"
LARGEST = 65504.0  # of float16


def save_parts(folder: Path, weights: Mapping[str, Tensor], step: int) -> list[Path]:
    """Write all parts beside each other, then give them their names; older parts go.

    step: that the weights are of, so that parts of different steps are told apart.

    Raises:
        ValueError: one tensor alone is too large for a part.
        OSError: they cannot be written; older parts then stay.
    """
    parts = _divide({name: _small(tensor) for name, tensor in weights.items()})
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / PATTERN.replace("*", f"{number:02d}") for number in range(len(parts))]
    unfinished = [path.with_name(f"{path.name}.part") for path in paths]
    about = {"format": "pt", "step": str(step), "parts": str(len(parts))}
    try:
        for path, part in zip(unfinished, parts, strict=True):
            save_file(part, path, about)
        for path, old in zip(paths, unfinished, strict=True):
            os.replace(old, path)
    except SafetensorError as error:
        msg = f"the weights cannot be written to {folder} ({error}); is the disk full?"
        raise OSError(msg) from error
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)
    for path in set(folder.glob(PATTERN)) - set(paths):
        path.unlink()
    return paths


def _small(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.clamp(-LARGEST, LARGEST).to(torch.float16)
    return tensor.cpu().contiguous()


def _divide(weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Tensors in their order, a new part wherever the next one does not fit."""
    parts: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in weights.items():
        if tensor.nbytes > PART_BYTES:
            msg = f"{name} takes {tensor.nbytes / 2**20:.0f} MiB, more than a part of {PART_BYTES >> 20} MiB"
            raise ValueError(msg)
        if used + tensor.nbytes > PART_BYTES:
            parts.append({})
            used = 0
        parts[-1][name] = tensor
        used += tensor.nbytes
    return parts


def load_weights(source: Path) -> dict[str, Tensor]:
    """Averaged weights, float32, of a training checkpoint or of a folder that `save_parts` wrote.

    Raises:
        ValueError: it is neither, or a part is damaged, missing or of another step.
        OSError: it cannot be read.
    """
    if not source.is_dir():
        return checkpoint.load(source).ema
    paths = sorted(source.glob(PATTERN))
    if not paths:
        msg = f"there are no {PATTERN} in {source}"
        raise ValueError(msg)
    found: dict[str, Tensor] = {}
    labels: set[tuple[str, str]] = set()
    for path in paths:
        label, part = _read(path)
        labels.add(label)
        found.update(part)
    if len(labels) != 1 or labels.pop()[1] != str(len(paths)):
        msg = f"the weights in {source} are not complete: parts are missing, or of different steps"
        raise ValueError(msg)
    return {name: t.float() if t.is_floating_point() else t for name, t in found.items()}


def _read(path: Path) -> tuple[tuple[str, str], dict[str, Tensor]]:
    """Step and number of parts of a part, and its tensors."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            names = list(file.keys())
            part = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        msg = f"{path} is damaged ({error})"
        raise ValueError(msg) from error
    return (about.get("step", ""), about.get("parts", "")), part
