"""How much memory a model of the torch engine needs, said before it is spent."""

from __future__ import annotations

from pathlib import Path

import torch

from dlf.errors import EngineError
from dlf.nn.config import ModelConfig

_MEMINFO = Path("/proc/meminfo")
_KEPT = 256 * 2**20  # what the rest of the process needs
_WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def weight_bytes(parameters: int, precision: str) -> int:
    """Bytes that a part with so many parameters takes once it is loaded; most are in linear layers."""
    return parameters * _WEIGHT_BYTES[precision] + _KEPT


def activation_bytes(config: ModelConfig, pixels: int, painting: torch.dtype | None) -> int:
    """Bytes that the networks need beside their weights for a picture (or tile) of so many pixels.

    painting: what the VQGAN decoder computes in, or None for the analysis.

    Painting: six maps at full size of the last level's width are alive at once.  Analysis: four maps of
    a transformer's inner width on the patches, for the ViT with its tokens and for the details.
    """
    if painting:
        return 6 * painting.itemsize * config.vqgan.channels[0] * pixels
    inner = config.tokens.mlp_ratio * config.tokens.width + 4 * config.detail.width
    return 4 * 4 * inner * pixels // 256


def available_bytes() -> int | None:
    """Memory that can still be had, or None where the system does not say."""
    try:
        lines = _MEMINFO.read_text("ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def check(needed: int, what: str) -> None:
    """Raise EngineError if `needed` bytes are more than can be had."""
    free = available_bytes()
    if free is not None and needed > free:
        msg = f"{what} needs about {needed / 1e9:.1f} GB of memory, but only {free / 1e9:.1f} GB are free"
        raise EngineError(msg)
