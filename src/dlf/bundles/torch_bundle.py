"""Parameters of a float model to a bundle in a folder: weights, probability tables, manifest with hashes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from dlf.codec.bundle import (
    CONTEXT,
    ENGINES,
    FORMAT,
    MANIFEST,
    TABLES,
    WEIGHTS,
    Manifest,
    numerics_id,
    sha256_of,
)
from dlf.entropy.tables import QUALITIES, TOTAL, gaussian_frequencies
from dlf.files import write_bytes
from dlf.geometry import WINDOW_PIXELS
from dlf.nn.build import PRESETS
from dlf.nn.config import ModelConfig, to_dict
from dlf.nn.model import Dlf
from dlf.torch_engine.loading import PARTS, tensors_of
from dlf.torch_engine.snapped_context import MEAN_UNIT, SCALE_UNIT, STEP_UNIT

# the published tables of the details
SCALES = 256
SCALE_LOW, SCALE_HIGH = 0.11, 64.0
SKIP_BELOW = 0.12
SYMBOL_LIMIT = 50

Get = Callable[[str], Tensor]
"""From one of our tensor names to the tensor, in our shape."""

EXTRA = "training.safetensors"
"""File of the tensors that only training needs; no part of the bundle proper."""


@dataclass(frozen=True)
class BundleSpec:
    """name, id: how people and streams name the model.  dtype: of the stored weights.  card: free-form."""

    name: str
    id: int
    dtype: str
    card: dict[str, Any]


def size_of(tensors: Mapping[str, Tensor], dtype: str) -> int:
    """Bytes that the tensors take in a file."""
    return sum(tensor.numel() for tensor in tensors.values()) * getattr(torch, dtype).itemsize


def write_model(preset: str, tensors: Mapping[str, Tensor], folder: Path, spec: BundleSpec) -> None:
    """Write a whole imported model, with what only training needs in a file beside it."""
    config = PRESETS[preset]
    write_bundle(config, tensors.__getitem__, folder, spec)
    used = tuple(chain.from_iterable(PARTS.values()))
    write_start({k: v for k, v in tensors.items() if not k.startswith(used)}, folder / EXTRA, spec.dtype)


def write_start(tensors: Mapping[str, Tensor], path: Path, dtype: str) -> None:
    """Write tensors under our names to a safetensors file."""
    _save({name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}, path)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)  # the library makes files that only their owner can read


def write_bundle(config: ModelConfig, get: Get, folder: Path, spec: BundleSpec) -> None:
    """Write all files of a bundle; existing ones are replaced.  One part is in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        model = Dlf(config)
    for part in WEIGHTS:
        # what decides the symbols is always kept as it was trained
        dtype = torch.float32 if part == CONTEXT else getattr(torch, spec.dtype)
        _save({name: get(name).to(dtype) for name in tensors_of(model, part)}, folder / part)
    write_bytes(folder / TABLES, published_tables(config))
    hashes = {name: sha256_of(folder / name) for name in ENGINES["torch"].files}
    manifest = Manifest(
        format=FORMAT,
        name=spec.name,
        id=spec.id,
        numerics=numerics_id(hashes, ENGINES["torch"].numerics),
        files=hashes,
        tokens=config.tokens.count,
        codes=config.tokens.codes,
        channels=config.quant.channels,
        swin_window=config.detail.swin_window,
        default_quality=50,
        card=spec.card,
        engine="torch",
        network=to_dict(config),
    )
    write_bytes(folder / MANIFEST, manifest.dump().encode())


def published_tables(config: ModelConfig) -> bytes:
    """The entropy coder's tables of the published model, as the bytes of an ``.npz`` file.

    Tokens cost the same number of bits each.  Details: 256 log-spaced standard deviations from 0.11 to
    64, a scale uses the next lower one; symbols whose scale is below 0.12 are not sent.  That bound
    lies inside one of the tables, which is split in two; those below it become one.
    """
    steps = np.log(SCALE_HIGH / SCALE_LOW) / (SCALES - 1)
    scales = SCALE_LOW * np.exp(steps * np.arange(SCALES))
    sent = int(np.searchsorted(scales, SKIP_BELOW, side="right")) - 1
    bounds = np.concatenate([[SKIP_BELOW], scales[sent + 1 :]])
    codes = config.tokens.codes
    chosen = {
        "mean_unit": MEAN_UNIT,
        "step_unit": STEP_UNIT,
        "padding": WINDOW_PIXELS,
        "symbol_sum": 1,
    }
    options: dict[str, Any] = {name: np.array(value, np.int64) for name, value in chosen.items()}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        gaussian_frequency=gaussian_frequencies(np.concatenate([scales[:1], scales[sent:]]), SYMBOL_LIMIT),
        scale_bounds=np.rint(bounds * SCALE_UNIT).astype(np.int32),
        token_frequency=np.full((config.tokens.count, codes), TOTAL // codes, np.uint32),
        token_count=np.full(QUALITIES, config.tokens.count, np.uint8),
        prior=np.zeros((QUALITIES, 1), np.int16),
        **options,
    )
    return buffer.getvalue()
