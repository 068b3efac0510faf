"""Exponential moving average of a module's weights, which is what is validated, exported and handed on.

Why not `torch.optim.swa_utils.AveragedModel`: its `update_parameters` asks a tensor on the host how often it
was called and copies it to the device, neither of which can be part of a recorded step (`dlf.train.graph`),
averages a step that was left out as well, and takes twice as long (docs/training.md, section 11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages of all floating tensors of a module's state.

    decay: in [0, 1); at the start of a run smaller, so that random weights are soon forgotten.  0: the newest
    weights stand for their average, and there is no second copy of them.  latest: names of tensors whose
    newest value stands for their average, because rows of them jump.
    """

    def __init__(self, module: nn.Module, decay: float, latest: Sequence[str] = ()) -> None:
        self.decay, self.latest = decay, latest
        state = module.state_dict()
        # the module's own memory, to be asked for once
        self._floats = {k: v for k, v in state.items() if v.is_floating_point()}
        self.weights: dict[str, Tensor] = {k: v.detach() for k, v in state.items()}
        if decay:
            self.weights = {k: v.clone() for k, v in self.weights.items()}
        # how far averages go towards the newest weights; where a recorded step must find it
        device = next(iter(state.values())).device
        self._share = torch.ones((), device=device)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take up averages of a run before; with decay 0 the module has them."""
        if self.decay:
            for name, tensor in self.weights.items():
                tensor.copy_(weights[name])

    def prepare(self, step: int) -> None:
        """Say which step comes, counted from 0; not part of a recorded step."""
        self._share.fill_(1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self, taken: Tensor) -> None:
        """Follow the newest weights; taken: bool scalar on the device, False to leave the averages alone."""
        if not self.decay:
            return
        means, newest = [self.weights[name] for name in self._floats], list(self._floats.values())
        share = taken * self._share
        if share.device.type == "cpu":
            torch._foreach_lerp_(means, newest, [share] * len(newest))
        else:  # three times the memory's traffic, but not a kernel for each tensor
            moves = list(torch._foreach_sub(newest, means))
            torch._foreach_mul_(moves, share)
            torch._foreach_add_(means, moves)
        for name in self.latest:
            self.weights[name].copy_(self._floats[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Let the module have the averages meanwhile."""
        if not self.decay:
            yield
            return
        newest = {k: v.clone() for k, v in module.state_dict().items()}
        module.load_state_dict(self.weights)
        try:
            yield
        finally:
            module.load_state_dict(newest)
