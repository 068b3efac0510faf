"""Parameters of a float model to a bundle folder of the torch engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dlf.bundles.bundle_writer import BundleSpec, seal, staged, tables_file
from dlf.codec.bundle import CONTEXT, TABLES, WEIGHTS
from dlf.entropy.tables import QUALITIES, TOTAL, gaussian_frequencies
from dlf.files import write_bytes
from dlf.geometry import WINDOW_PIXELS
from dlf.nn.build import PRESETS
from dlf.nn.context import SCALE_LOW
from dlf.nn.detail_branch import FLOAT_SKIP_BELOW
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig
from dlf.torch_engine.loading import PARTS, tensors_of
from dlf.torch_engine.snapped_context import MEAN_UNIT, SCALE_UNIT, STEP_UNIT

# the published tables of the details
SCALES = 256
SCALE_HIGH = 64.0
SYMBOL_LIMIT = 50

Get = Callable[[str], Tensor]
"""From one of our tensor names to the tensor, in our shape."""

EXTRA = "training.safetensors"
"""File of the tensors that only training needs; no part of the bundle proper."""


def size_of(tensors: Mapping[str, Tensor], dtype: str) -> int:
    """Bytes that the tensors take in a file."""
    return sum(tensor.numel() for tensor in tensors.values()) * getattr(torch, dtype).itemsize


def write_model(
    preset: str, tensors: Mapping[str, Tensor], folder: Path, spec: BundleSpec, dtype: str
) -> None:
    """Write a whole imported model, with what only training needs in a file beside it.

    tensors: all of the preset, by our names.  dtype: of the stored weights, named as torch names it.
    """
    used = tuple(chain.from_iterable(PARTS.values()))
    with staged(folder) as part:
        write_torch_bundle(PRESETS[preset], tensors.__getitem__, part, spec, dtype)
        write_start({k: v for k, v in tensors.items() if not k.startswith(used)}, part / EXTRA, dtype)


def write_start(tensors: Mapping[str, Tensor], path: Path, dtype: str) -> None:
    """Write tensors under our names to a safetensors file."""
    _save({name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}, path)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # what the library makes of a failed write
        msg = f"{path} cannot be written; if the disk is full, free some room ({error})"
        raise OSError(msg) from error
    path.chmod(0o644)  # the library makes files that only their owner can read


def write_torch_bundle(
    config: ModelConfig, get: Get, folder: Path, spec: BundleSpec, dtype: str = "float32"
) -> None:
    """Write all files of a bundle; existing ones are replaced.  One part is in memory at a time.

    dtype: of the stored weights, named as torch names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        model = Dlf(config)
    for part in WEIGHTS:
        # what decides the symbols is always kept as it was trained
        kind = torch.float32 if part == CONTEXT else getattr(torch, dtype)
        _save({name: get(name).to(kind) for name in tensors_of(model, part)}, folder / part)
    write_bytes(folder / TABLES, published_tables(config))
    seal(folder, "torch", config, spec)


def published_tables(config: ModelConfig) -> bytes:
    """The entropy coder's tables of the published model, as the bytes of an ``.npz`` file.

    Tokens cost the same number of bits each.  Details: 256 log-spaced standard deviations from 0.11 to
    64, a scale uses the next lower one; symbols whose scale is below 0.12 are not sent.  That bound
    lies inside one of the tables, which is split in two; those below it become one.
    """
    steps = np.log(SCALE_HIGH / SCALE_LOW) / (SCALES - 1)
    scales = SCALE_LOW * np.exp(steps * np.arange(SCALES))
    sent = int(np.searchsorted(scales, FLOAT_SKIP_BELOW, side="right")) - 1
    bounds = np.concatenate([[FLOAT_SKIP_BELOW], scales[sent + 1 :]])
    tokens, codes = config.tokens.count, config.tokens.codes
    options = {
        "mean_unit": MEAN_UNIT,
        "step_unit": STEP_UNIT,
        "padding": WINDOW_PIXELS,
        "symbol_sum": 1,
    }
    return tables_file(
        gaussian_frequency=gaussian_frequencies(np.concatenate([scales[:1], scales[sent:]]), SYMBOL_LIMIT),
        scale_bounds=np.rint(bounds * SCALE_UNIT).astype(np.int32),
        token_frequency=np.full((tokens, codes), TOTAL // codes, np.uint32),
        token_count=np.full(QUALITIES, tokens, np.uint8),
        prior=np.zeros((QUALITIES, 1), np.int16),
        **{name: np.array(value, np.int64) for name, value in options.items()},
    )
