"""What a stage of training gives the engine, and what it says of a step and of a validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from dlf.losses.image import Wrap
from dlf.train.data import Batch

Inputs = dict[str, Tensor]
"""What a step works on: tensors on its device, and all that differs from one step to the next."""


@dataclass(frozen=True)
class LossReport:
    """total: what is differentiated.  terms: what is logged, scalars that stay on the device."""

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Validation:
    """Means over the validation images, and one image to look at."""

    terms: dict[str, float]
    image: Image.Image | None


class Stage(Protocol):
    """What a stage of training gives the engine (`dlf.train.engine.Run`)."""

    @property
    def module(self) -> nn.Module:
        """What trains; its state is what a checkpoint holds."""
        ...

    @property
    def copied(self) -> Sequence[str]:
        """Names of tensors whose last value stands for their average: rows of them jump."""
        ...

    @property
    def steady(self) -> bool:
        """Whether the host decides nothing in `loss` and `after_step` any more: they can be recorded."""
        ...

    def inputs(self, batch: Batch, progress: float) -> Inputs:
        """All that differs from one step to the next, at `progress` in [0, 1] of the run."""
        ...

    def loss(self, inputs: Inputs) -> LossReport:
        """Loss of a batch."""
        ...

    def compile_with(self, wrap: Wrap) -> None:
        """Replace what only computes with tensors of fixed shapes by what `wrap` makes of it."""
        ...

    def after_step(self, taken: Tensor) -> dict[str, Tensor]:
        """Anything that follows an update (reviving codes, a discriminator's step).

        taken: bool scalar on the device, False for a step that was left out because its gradient was not
        finite; then what trains must stay as it is.  Returns further terms, scalars on the device.
        """
        ...

    def validate(self) -> Validation:
        """Measure the weights that `module` holds now."""
        ...

    def after_validation(self, terms: Mapping[str, float]) -> None:
        """React to what a validation measured (the rate's control)."""
        ...

    def state(self) -> dict[str, Any]:
        """What a resumed run must know beside the weights: tensors and numbers."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a `state`; entries may be missing."""
        ...
