"""Gradient checkpointing: keep a block's input instead of its activations, and run it again backwards."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from dlf.nn.depth import DepthBlock
from dlf.nn.interact import InteractBlock
from dlf.nn.layers import ConvNextBlock, SwinBlock, TransformerBlock
from dlf.nn.vqgan import Level

BLOCKS = (TransformerBlock, SwinBlock, ConvNextBlock, InteractBlock, DepthBlock, Level)


def recompute_blocks(module: nn.Module) -> None:
    """Make every block of the networks forget its activations; numbers and parameter names stay."""
    inside: set[nn.Module] = set()
    for block in module.modules():
        if isinstance(block, BLOCKS) and block not in inside:
            inside.update(block.modules())  # a block within a block would run three times
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
