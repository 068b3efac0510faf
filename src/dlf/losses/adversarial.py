"""Adversarial term: PatchGAN with hinge losses, adaptive weight and feature matching (DLF, section 3.5).

The discriminator is that of pix2pix (Isola et al. 2017, https://arxiv.org/abs/1611.07004) as taming
transformers train it.  It sees what a frozen feature network is blind to, such as fine regular grids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Average = Callable[[Sequence[nn.Parameter]], None]
"""Averages gradients over the processes of a run."""

BETAS = (0.5, 0.9)
RATIO_LIMIT = 1e4


@dataclass(frozen=True)
class Adversarial:
    """How a discriminator takes part in training; both weights 0: not at all.

    weight: of the hinge term, times the ratio of gradient norms at the picture decoder's last layer.
    matching: of the difference of the discriminator's features (Wang et al. 2018).  start: fraction of the
    run from which the hinge term counts; the discriminator trains from the beginning.  width, layers: its
    size (published: 64, 3).  lr: its learning rate.
    """

    weight: float = 0.0
    matching: float = 0.0
    start: float = 0.0
    width: int = 64
    layers: int = 3
    lr: float = 2e-4

    @property
    def wanted(self) -> bool:
        """Whether there is a discriminator at all."""
        return self.weight > 0 or self.matching > 0


def keep(parameters: Sequence[nn.Parameter]) -> None:
    """Leave gradients as they are: the `Average` of one process."""


class PatchDiscriminator(nn.Module):
    """RGB (B, 3, H, W) in [-1, 1] to logits of overlapping patches (B, 1, ~H/8, ~W/8)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        widths = [3, *(width * min(2**i, 8) for i in range(layers + 1))]
        self.blocks = nn.ModuleList()
        for i in range(layers + 1):
            stride = 2 if i < layers else 1
            conv = nn.Conv2d(widths[i], widths[i + 1], 4, stride, 1, bias=i == 0)
            norm = nn.BatchNorm2d(widths[i + 1]) if i else nn.Identity()
            self.blocks.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
        self.head = nn.Conv2d(widths[-1], 1, 4, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and the feature maps on the way."""
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return self.head(x), features


class Adversary:
    """A discriminator with its optimiser, beside the network that it judges."""

    def __init__(self, config: Adversarial, *, bf16: bool) -> None:
        self.config, self.bf16 = config, bf16
        network = PatchDiscriminator(config.width, config.layers)
        self.network: PatchDiscriminator = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.lr, betas=BETAS, fused=True)

    def terms(self, picture: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Unweighted terms `adversarial` and `matching` of RGB batches in [-1, 1]."""
        self.network.requires_grad_(False)
        logits, made = self.judge(picture)
        terms = {"adversarial": -logits.mean()}
        if self.config.matching:
            with torch.no_grad():
                _, wanted = self.judge(target)
            terms["matching"] = matching(made, wanted)
        self.network.requires_grad_(True)
        return terms

    def weigh(
        self, terms: Mapping[str, Tensor], others: Tensor, picture: Tensor, last: Tensor, progress: float
    ) -> Tensor:
        """Return a scalar with the gradient of the weighted sum of these terms and all `others`.

        picture: all of them are functions of it.  last: weights of the layer that made it; the hinge term
        counts as much, by its gradient there, as the others do.  The scalar is the product of picture and
        gradient, so that the way behind the picture is walked once.
        """
        if self.config.matching:
            others = others + self.config.matching * terms["matching"]
        counts = self.config.weight > 0 and progress >= self.config.start
        (pull,) = torch.autograd.grad(others, picture, retain_graph=counts)
        if counts:
            (own,) = torch.autograd.grad(terms["adversarial"], picture)
            (theirs_last,) = torch.autograd.grad(picture, last, pull, retain_graph=True)
            (own_last,) = torch.autograd.grad(picture, last, own, retain_graph=True)
            ratio = (theirs_last.norm() / own_last.norm().clamp(min=1e-6)).clamp(max=RATIO_LIMIT)
            pull = pull + self.config.weight * ratio * own
        return (picture * pull).sum()

    def update(self, pairs: Collection[tuple[Tensor, Tensor]], average: Average = keep) -> Tensor:
        """One step of the discriminator on batches of (picture, target); returns its mean hinge loss.

        Without finite gradients it stays as it is, which the optimiser decides on the device.
        """
        self.optimiser.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        for picture, target in pairs:
            loss = hinge(self.judge(target)[0], self.judge(picture.detach())[0]) / len(pairs)
            loss.backward()
            losses.append(loss.detach())
        average(list(self.network.parameters()))
        norms = torch._foreach_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        self.optimiser.found_inf = (~torch.isfinite(torch.stack(norms)).all()).float()  # type: ignore[attr-defined]
        self.optimiser.step()
        return torch.stack(losses).sum()

    def judge(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and features of RGB (B, 3, H, W) in [-1, 1]."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            logits, features = self.network(x)
        return logits.float(), features

    def state(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a `state`."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """Hinge loss of the discriminator's logits."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())


def matching(made: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Mean over layers of the relative absolute difference of features."""
    parts = [
        (a.float() - b.float()).abs().mean() / b.float().abs().mean()
        for a, b in zip(made, wanted, strict=True)
    ]
    return torch.stack(parts).mean()
