"""Everything that judges a decoded image in training, as the tokenizer and the joint stage use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.losses.adversarial import Adversarial, Adversary, Average, no_averaging
from dlf.losses.discriminators import LiteFeatures, View
from dlf.losses.objective import Weights, pixel_terms, weighted_sum
from dlf.losses.perceptual import feature_distance
from dlf.losses.texture import contrast_distance

OFFSETS = 8  # places, in either direction, that the feature network may begin at


Wrap = Callable[[Any], Any]
"""Makes a function of the same arguments and results, such as a compiled one."""


class ImageLoss:
    """Pixel, perceptual and adversarial terms of a batch, and the discriminator's turn after the step."""

    def __init__(
        self,
        weights: Weights,
        adversarial: Adversarial,
        perceptual: nn.Module | None,
        *,
        bf16: bool,
        batches: int = 1,
        features: Path | None = None,
    ) -> None:
        self.weights, self.perceptual, self.bf16 = weights, perceptual, bf16
        self.adversary = Adversary(adversarial, bf16=bf16, batches=batches) if adversarial.active else None
        self.pixel_terms = partial(pixel_terms, weights=weights, perceptual=None)
        self.distance = perceptual if weights.perceptual else None
        self.pulls = False  # whether discriminators count in this step
        self.features = _feature_network(weights, adversarial, features)
        self.maps: Callable[[Tensor], Sequence[Tensor]] = self.features or _no_maps
        self.texture_distance = contrast_distance if weights.texture else None
        self.feature_distance = feature_distance if weights.features else None

    def draw(self, rng: np.random.Generator, progress: float) -> dict[str, NDArray[Any]]:
        """What differs from step to step: where the networks begin, and how much discriminators count.

        rng: this step's random numbers.  progress: in [0, 1] of the run.
        """
        strength = 0.0 if self.adversary is None else self.adversary.config.strength(progress)
        self.pulls = strength > 0
        return {"offset": rng.integers(0, OFFSETS, 2), "strength": np.array(strength, np.float32)}

    def __call__(
        self, image: Tensor, target: Tensor, last: Tensor, inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a scalar with the gradient of the weighted sum, and the unweighted terms.

        image, target: RGB (B, 3, H, W) in [-1, 1].  last: weights of the layer that made the image.
        inputs: what `draw` says, as tensors.
        """
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.bf16):
            terms = self.pixel_terms(image, target)
            shifted = (_from(image, inputs["offset"]), _from(target, inputs["offset"]))
            if self.distance is not None:
                terms["perceptual"] = self.distance(*shifted).mean()
            decoded, original = self._views(*shifted)
            if self.texture_distance is not None:
                terms["texture"] = self.texture_distance(decoded.maps, original.maps).mean()
            if self.feature_distance is not None:
                terms["features"] = self.feature_distance(decoded.maps, original.maps).mean()
        total = weighted_sum(terms, self.weights)
        if self.adversary is None:
            return total, terms
        judged = self.adversary.terms(decoded, original)
        return self.adversary.weigh(
            judged, total, image, last, inputs["strength"], pulls=self.pulls
        ), terms | judged

    def _views(self, image: Tensor, target: Tensor) -> tuple[View, View]:
        """Both with the maps that texture and discriminators look at, made once."""
        with torch.no_grad():
            original = View(target, self.maps(target))
        return View(image, self.maps(image)), original

    @property
    def steady(self) -> bool:
        """Whether every step takes the same course."""
        return self.adversary is None or not self.adversary.config.adaptive

    def compile_with(self, wrap: Wrap) -> None:
        """Replace what only computes with tensors of fixed shapes by what `wrap` makes of it."""
        self.pixel_terms = wrap(self.pixel_terms)
        if self.distance is not None:
            self.distance = wrap(self.distance)
        if self.features is not None:
            self.maps = wrap(self.maps)
        if self.texture_distance is not None:
            self.texture_distance = wrap(self.texture_distance)
        if self.feature_distance is not None:
            self.feature_distance = wrap(self.feature_distance)
        if self.adversary is not None:
            self.adversary.embed = wrap(self.adversary.embed)  # type: ignore[method-assign]
            self.adversary.judge = wrap(self.adversary.judge)  # type: ignore[method-assign]

    def to(self, device: torch.device) -> None:
        """Move the networks that judge."""
        if self.perceptual is not None:
            self.perceptual.to(device)
        if self.features is not None:
            self.features.to(device)
        if self.adversary is not None:
            self.adversary.network.to(device)

    def after_step(self, average: Average = no_averaging) -> dict[str, Tensor]:
        """Let the discriminator learn from the step's images; returns what is to be logged.

        average: brings its gradients together where several processes train.
        """
        return {} if self.adversary is None else {"hinge": self.adversary.update(average)}

    def state(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {} if self.adversary is None else {"adversary": self.adversary.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a `state`; one of a run without a discriminator leaves a new one as it is."""
        if self.adversary is not None and "adversary" in state:
            self.adversary.load_state(state["adversary"])


def _feature_network(
    weights: Weights, adversarial: Adversarial, features: Path | None
) -> LiteFeatures | None:
    """The frozen network, if a term looks at its maps; ValueError if `features` does not hold it."""
    users = feature_users(weights, adversarial)
    if not users:
        return None
    if features is None:
        msg = f"this stage has a {users[0]}: name the weights of its network with --features"
        raise ValueError(msg)
    return LiteFeatures(features).eval()


def feature_users(weights: Weights, adversarial: Adversarial) -> list[str]:
    """What looks at maps of the frozen network, in words."""
    users = {
        "texture term": weights.texture > 0,
        "term of features": weights.features > 0,
        "discriminator on frozen features": adversarial.active and "features" in adversarial.kinds,
    }
    return [user for user, present in users.items() if present]


def _no_maps(x: Tensor) -> Sequence[Tensor]:
    return ()


def _from(x: Tensor, offset: Tensor) -> Tensor:
    """The image from an offset (2,) on, always of one size.

    The strides of a feature network hide patterns of the same period; another offset at every step shows
    them.
    """
    rows, cols = (side - OFFSETS + 1 for side in x.shape[2:])
    down, across = (
        first + torch.arange(count, device=x.device)
        for first, count in zip(offset, (rows, cols), strict=True)
    )
    cut = x.index_select(2, down).index_select(3, across)
    return cut.contiguous(memory_format=torch.channels_last)
