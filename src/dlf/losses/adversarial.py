"""Adversarial term: discriminators with hinge losses, their weight, and feature matching.

The published form (DLF, section 3.5) is the PatchGAN of pix2pix with the adaptive weight of taming
transformers.  Ours are discriminators on frozen features and on pixels with a constant weight: the adaptive
one is unstable in bfloat16.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.losses.discriminators import Kind, View, make_discriminators

Average = Callable[[Sequence[nn.Parameter]], None]
"""Averages gradients over the processes of a run."""

RATIO_LIMIT = 1e4


@dataclass(frozen=True)
class Adversarial:
    """How discriminators take part in training; both weights 0: not at all.

    weight: of the hinge term, the mean over the discriminators of the mean over their maps of logits.
    adaptive: times the ratio of gradient norms at the image decoder's last layer, as published; else it
    is constant.  matching: weight of the difference of the discriminators' features (Wang et al. 2018).
    start: fraction of the run from which the hinge term counts, growing to its weight over the fraction
    `ramp`; the discriminators train from the beginning.  kinds: see `dlf.losses.discriminators`.  width,
    layers: size of "patch" (published: 64, 3).
    lr, betas: of their Adam.
    """

    weight: float = 0.0
    adaptive: bool = True
    matching: float = 0.0
    start: float = 0.0
    ramp: float = 0.0
    kinds: tuple[Kind, ...] = ("patch",)
    width: int = 64
    layers: int = 3
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.9)

    @property
    def active(self) -> bool:
        """Whether there is a discriminator at all."""
        return self.weight > 0 or self.matching > 0

    def strength(self, progress: float) -> float:
        """Weight of the hinge term at `progress` in [0, 1] of the run."""
        if progress < self.start:
            return 0.0
        return self.weight * min(1.0, (progress - self.start) / self.ramp if self.ramp else 1.0)


def no_averaging(parameters: Sequence[nn.Parameter]) -> None:
    """Leave gradients as they are: the `Average` of one process."""


Embedded = dict[str, list[Tensor]]
"""What each discriminator's frozen part makes of an image."""


class Adversary:
    """Discriminators with their optimiser, beside the network that they judge.

    batches: of a step, each judged once before `update`.
    """

    def __init__(self, config: Adversarial, *, bf16: bool, batches: int = 1) -> None:
        self.config, self.bf16 = config, bf16
        self.parts = make_discriminators(config.kinds, config.width, config.layers)
        self.network: nn.ModuleDict = nn.ModuleDict(self.parts).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(
            self.parameters,
            lr=config.lr,
            betas=config.betas,
            fused=True,
            capturable=torch.cuda.is_available(),
        )
        # embedded images and the originals of the step's batches
        self.seen: deque[tuple[Embedded, View]] = deque(maxlen=batches)

    def terms(self, image: View, target: View) -> dict[str, Tensor]:
        """Unweighted terms `adversarial` and `matching`."""
        embedded = self.embed(image)
        self.seen.append(({k: [m.detach() for m in maps] for k, maps in embedded.items()}, target))
        self._train(False)
        logits, features = self.judge(embedded)
        terms = {"adversarial": -_balanced({k: [x.mean() for x in maps] for k, maps in logits.items()})}
        if self.config.matching:
            with torch.no_grad():
                _, originals = self.judge(self.embed(target))
            terms["matching"] = matching(features, originals)
        self._train(True)
        return terms

    def _train(self, on: bool) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(on)

    def weigh(
        self,
        terms: Mapping[str, Tensor],
        others: Tensor,
        image: Tensor,
        last: Tensor,
        strength: float | Tensor,
        *,
        pulls: bool = True,
    ) -> Tensor:
        """Return a scalar with the gradient of the weighted sum of these terms and all `others`.

        image: all of them are functions of it.  strength: see `Adversarial.strength`; pulls: whether it
        is above 0, which the host must know for the adaptive weight.  last: weights of the layer that made
        the image; with an adaptive weight the hinge term counts as much, by its gradient there, as the
        others do.  The scalar is then the product of image and gradient, so that the way behind the
        image is walked once.
        """
        if self.config.matching:
            others = others + self.config.matching * terms["matching"]
        if not self.config.adaptive:
            return others + strength * terms["adversarial"]
        (pull,) = torch.autograd.grad(others, image, retain_graph=pulls)
        if pulls:
            (own,) = torch.autograd.grad(terms["adversarial"], image)
            (theirs_last,) = torch.autograd.grad(image, last, pull, retain_graph=True)
            (own_last,) = torch.autograd.grad(image, last, own, retain_graph=True)
            ratio = (theirs_last.norm() / own_last.norm().clamp(min=1e-6)).clamp(max=RATIO_LIMIT)
            pull = pull + strength * ratio * own
        return (image * pull).sum()

    def update(self, average: Average = no_averaging) -> Tensor:
        """One step of the discriminators on what they judged in this step; returns the mean hinge loss.

        Without finite gradients they stay as they are, which the optimiser decides on the device.
        """
        self.optimiser.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        for decoded, target in self.seen:
            with torch.no_grad():
                original = self.embed(target)
            real, fake = self.judge(original)[0], self.judge(decoded)[0]
            hinges = {k: [hinge(*pair) for pair in zip(real[k], fake[k], strict=True)] for k in real}
            loss = _balanced(hinges) / len(self.seen)
            loss.backward()
            losses.append(loss.detach())
        average(self.parameters)
        norms = torch._foreach_norm([p.grad for p in self.parameters if p.grad is not None])
        self.optimiser.found_inf = (~torch.isfinite(torch.stack(norms)).all()).float()  # type: ignore[attr-defined]
        self.optimiser.step()
        return torch.stack(losses).sum()

    def embed(self, view: View) -> Embedded:
        """What the frozen parts make of an image."""
        with torch.autocast(view.pixels.device.type, torch.bfloat16, enabled=self.bf16):
            return {name: part.embed(view) for name, part in self.parts.items()}

    def judge(self, embedded: Embedded) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
        """The maps of logits of each discriminator, and all features."""
        logits: dict[str, list[Tensor]] = {}
        features: list[Tensor] = []
        for name, part in self.parts.items():
            maps = embedded[name]
            with torch.autocast(maps[0].device.type, torch.bfloat16, enabled=self.bf16):
                part_logits, part_features = part(maps)
            logits[name] = [x.float() for x in part_logits]
            features += part_features
        return logits, features

    def state(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a `state`."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])


def _balanced(values: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """Mean over discriminators of the means over their maps: one with many maps counts no more."""
    return torch.stack([torch.stack(list(maps)).mean() for maps in values.values()]).mean()


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of a discriminator's logits."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def matching(decoded: list[Tensor], originals: list[Tensor]) -> Tensor:
    """Mean over layers of the relative absolute difference of features."""
    parts = [
        (a.float() - b.float()).abs().mean() / b.float().abs().mean()
        for a, b in zip(decoded, originals, strict=True)
    ]
    return torch.stack(parts).mean()
