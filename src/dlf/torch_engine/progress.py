"""How far the networks are, for runs that take long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from dlf.nn.layers import SwinBlock, TransformerBlock
from dlf.nn.vqgan import ResBlock

# blocks that take most of the time, and roughly how much each takes
_COSTS: tuple[tuple[type[nn.Module], float], ...] = (
    (TransformerBlock, 4.0),
    (SwinBlock, 2.0),
    (ResBlock, 4.0),
)


def watch(modules: Iterable[nn.Module], label: str, report: Callable[[str, float], None]) -> None:
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
