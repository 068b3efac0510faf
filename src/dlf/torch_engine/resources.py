"""What a run of the torch engine needs and what this machine has: memory, the processor, progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import nn

from dlf.errors import EngineError
from dlf.nn.layers import SwinBlock, TransformerBlock
from dlf.nn.model_config import ModelConfig
from dlf.nn.vqgan import ResBlock

_IMPORTER = os.getpid()
_REST = 256 * 2**20  # bytes that the rest of the process needs
_WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

# blocks that take most of the time, and roughly how much each takes
_COSTS: tuple[tuple[type[nn.Module], float], ...] = (
    (TransformerBlock, 4.0),
    (SwinBlock, 2.0),
    (ResBlock, 4.0),
)


def weight_bytes(parameters: int, precision: str) -> int:
    """Bytes that a part with so many parameters takes once it is loaded; most are in linear layers."""
    return parameters * _WEIGHT_BYTES[precision] + _REST


def activation_bytes(config: ModelConfig, pixels: int, decoder_dtype: torch.dtype | None) -> int:
    """Bytes that the networks need beside their weights for an image (or tile) of so many pixels.

    decoder_dtype: what the VQGAN decoder computes in, or None for the analysis.

    Synthesis: six maps at full size of the last level's width are alive at once.  Analysis: four maps of
    a transformer's inner width on the patches, for the ViT with its tokens and for the details.
    """
    if decoder_dtype is not None:
        return 6 * decoder_dtype.itemsize * config.vqgan.channels[0] * pixels
    inner = config.tokens.mlp_ratio * config.tokens.width + 4 * config.detail.width
    return 4 * 4 * inner * pixels // 256


def available_bytes() -> int:
    """Memory that can still be had."""
    return int(psutil.virtual_memory().available)


def check_memory(needed: int, what: str) -> None:
    """Raise EngineError if `needed` bytes are more than can be had."""
    free = available_bytes()
    if needed > free:
        msg = f"{what} needs about {needed / 1e9:.1f} GB of memory, but only {free / 1e9:.1f} GB are free"
        raise EngineError(msg)


def processor_has(*names: str) -> bool:
    """Whether the processor has any of these features, named as torch names them ("avx512_bf16").

    A torch that does not tell gives False for all.
    """
    tell: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    features = tell()
    return any(bool(features.get(name)) for name in names)


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads meanwhile, None for what it uses anyway; the host's number comes back.

    A forked child has none of its parent's threads, and OpenMP would wait for them for ever: there it is one.
    """
    if os.getpid() != _IMPORTER:
        count = 1
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


def report_progress(modules: Iterable[nn.Module], label: str, report: Callable[[str, float], None]) -> None:
    """Report the share of the modules' blocks that are done, from now on, whenever one is."""
    blocks = [
        (block, cost)
        for module in modules
        for block in module.modules()
        for kind, cost in _COSTS
        if isinstance(block, kind)
    ]
    total = sum(cost for _, cost in blocks)
    done = 0.0

    def after(cost: float) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            nonlocal done
            done = done + cost if done < total else cost  # the next run of the same blocks
            report(label, min(done / total, 1.0))

        return hook

    for block, cost in blocks:
        block.register_forward_hook(after(cost))
