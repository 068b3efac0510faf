"""Weights alone, in small files: what a run can be continued from where its checkpoint is too large to keep.

A folder holds ``weights_00.safetensors``, ``weights_01.safetensors`` and so on, each below 16 MiB, float16 or
in part 8 bits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dlf.bundles.eight_bits import SMALLEST, is_sensitive, pack
from dlf.nn.hybrid import STEM, TOKENIZER
from dlf.train import checkpoint

PART_BYTES = 15 * 2**20  # of numbers; the rest of 16 MiB is for names and shapes
PATTERN = "weights_*.safetensors"
LARGEST = 65504.0  # of float16
LABELS = ("preset", "stage", "step")  # what weights say of themselves
SCALE = "/scale"  # behind a tensor's name: of its rows in 8 bits


def save_parts(
    folder: Path,
    weights: Mapping[str, Tensor],
    step: int,
    about: Mapping[str, str] | None = None,
    *,
    eight_bits: bool = False,
) -> list[Path]:
    """Write all parts beside each other, then give them their names; older parts go.

    step: that the weights are of, so that parts of different steps are told apart.  about: what else the
    files say of them: preset, stage.  eight_bits: large tensors as bytes, with a scale for each row, but for
    those that a bundle keeps as well (`dlf.bundles.eight_bits`); of a codec, the autoencoder's encoder is
    left out, and read back as the stem that was trained from it.

    Raises:
        ValueError: one tensor alone is too large for a part.
        OSError: they cannot be written; older parts then stay.
    """
    small: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not eight_bits:
            small[name] = _small(tensor)
        elif not _is_spare(name, tensor, weights):
            small |= _in_eight_bits(name, tensor)
    parts = _divide(small)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / PATTERN.replace("*", f"{number:02d}") for number in range(len(parts))]
    unfinished = [path.with_name(f"{path.name}.part") for path in paths]
    label = {**(about or {}), "format": "pt", "step": str(step), "parts": str(len(parts))}
    try:
        for path, part in zip(unfinished, parts, strict=True):
            path.write_bytes(save(part, label))
        for path, old in zip(paths, unfinished, strict=True):
            os.replace(old, path)
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


def _is_spare(name: str, tensor: Tensor, weights: Mapping[str, Tensor]) -> bool:
    twin = weights.get(name.replace(TOKENIZER, STEM, 1)) if name.startswith(TOKENIZER) else None
    return twin is not None and twin.shape == tensor.shape


def _in_eight_bits(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A large tensor of floats as int8 and its rows' scales; any other as it always is."""
    few = tensor.dim() < 2 or tensor.numel() < SMALLEST
    if not tensor.is_floating_point() or few or is_sensitive(name.rpartition(".")[0]):
        return {name: _small(tensor)}
    packed = pack(tensor.detach().float().cpu().numpy())
    return {name: torch.from_numpy(packed.codes), name + SCALE: torch.from_numpy(packed.scale).flatten()}


def _restored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 in the place of all floats, and of bytes with scales."""
    weights: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            continue
        scale = stored.get(name + SCALE)
        if scale is not None:
            weights[name] = tensor.float() * scale.reshape(-1, *[1] * (tensor.dim() - 1))
        else:
            weights[name] = tensor.float() if tensor.is_floating_point() else tensor
    if any(name.endswith(SCALE) for name in stored):
        spare = {name.replace(STEM, TOKENIZER, 1): name for name in weights if name.startswith(STEM)}
        weights |= {name: weights[twin].clone() for name, twin in spare.items() if name not in weights}
    return weights


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
    return load_labelled(source)[0]


def load_labelled(source: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As `load_weights`, and what is known about them: preset, stage and step, where the files say so."""
    if not source.is_dir():
        state = checkpoint.load(source)
        facts = {**state.config, "step": state.step}
        return state.ema, {key: str(facts[key]) for key in LABELS if key in facts}
    paths = sorted(source.glob(PATTERN))
    if not paths:
        msg = f"there are no {PATTERN} in {source}"
        raise ValueError(msg)
    stored: dict[str, Tensor] = {}
    labels: list[dict[str, str]] = []
    for path in paths:
        label, part = _read(path)
        labels.append(label)
        stored.update(part)
    about = labels[0]
    if any(label != about for label in labels) or about.get("parts") != str(len(paths)):
        msg = f"the weights in {source} are not complete: parts are missing, or of different steps"
        raise ValueError(msg)
    return _restored(stored), {key: about[key] for key in LABELS if key in about}


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a part says of itself, and its tensors."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            names = list(file.keys())
            part = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        msg = f"{path} is damaged ({error})"
        raise ValueError(msg) from error
    return about, part
