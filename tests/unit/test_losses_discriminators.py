"""Discriminators: what trains, what is frozen, the feature network against plain torch operations."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from dlf.losses.adversarial import Adversarial, Adversary
from dlf.losses.discriminators import LiteFeatures, View
from dlf.losses.image import ImageLoss
from dlf.losses.objective import Weights
from tiny_runs import lite_weights

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return lite_weights()


@pytest.fixture(scope="module")
def file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "lite.safetensors"
    save_file({k: v.half() for k, v in weights.items()}, path)
    return path


def picture(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_maps_have_the_strides_and_widths_of_their_taps(file: Path) -> None:
    maps = LiteFeatures(file)(picture())
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4)]


def test_a_block_is_expand_depthwise_project_and_identity(weights: dict[str, Tensor], file: Path) -> None:
    network = LiteFeatures(file)
    x = torch.randn(1, 24, 8, 8, generator=torch.Generator().manual_seed(1))
    w = {
        k.removeprefix("blocks.2."): v.half().float() for k, v in weights.items() if k.startswith("blocks.2.")
    }
    h = F.relu6(F.conv2d(x, w["expand.weight"], w["expand.bias"]))
    h = F.relu6(F.conv2d(h, w["depthwise.weight"], w["depthwise.bias"], padding=1, groups=144))
    torch.testing.assert_close(network.blocks[2](x), x + F.conv2d(h, w["project.weight"], w["project.bias"]))


def test_frozen_parts_neither_train_nor_travel(file: Path) -> None:
    """A checkpoint holds heads and mixing; only the heads and the pixel network are trained."""
    loss = ImageLoss(
        Weights(l1=1.0),
        Adversarial(weight=1.0, kinds=("features", "pixels"), width=8),
        None,
        bf16=False,
        features=file,
    )
    assert loss.features is not None
    assert not loss.features.state_dict()
    assert not list(loss.features.parameters())
    adversary = loss.adversary
    assert adversary is not None
    names = set(adversary.network.state_dict())
    assert any(name.startswith("features.mixing") for name in names)
    assert not any("blocks" in name for name in names)
    trained = {n for n, p in adversary.network.named_parameters() if p.requires_grad}
    assert all("heads" in name or name.startswith("pixels") for name in trained)
    before = {n: p.detach().clone() for n, p in adversary.network.named_parameters()}
    features = LiteFeatures(file)
    adversary.terms(*(View(x, features(x)) for x in (picture().requires_grad_(), picture(1))))
    adversary.update()
    moved = {n for n, p in adversary.network.named_parameters() if not torch.equal(p, before[n])}
    # while all logits are within the hinge's margin, the last biases get nothing
    assert trained - moved <= {name for name in trained if name.endswith(("4.bias", "8.bias"))}
    assert moved <= trained


def test_every_kind_gives_a_gradient_to_the_picture_and_learns_to_tell(file: Path) -> None:
    torch.manual_seed(0)
    features = LiteFeatures(file)
    for kinds in (("features",), ("pixels",), ("features", "pixels"), ("patch",)):
        config = Adversarial(weight=1.0, adaptive=False, kinds=kinds, width=16, layers=2, lr=4e-3)
        adversary = Adversary(config, bf16=False)
        x = (0.2 * picture()).requires_grad_()
        losses = []
        for _ in range(12):
            terms = adversary.terms(*(View(image, features(image)) for image in (x, picture(1))))
            (gradient,) = torch.autograd.grad(terms["adversarial"], x)
            losses.append(adversary.update())
        assert gradient.abs().sum() > 0
        assert losses[-1] < 0.8 * losses[0]


def test_features_need_a_file_that_holds_them(tmp_path: Path) -> None:
    config = Adversarial(weight=1.0, kinds=("features",))
    with pytest.raises(
        ValueError, match="discriminator on frozen features: name the weights of its network with --features"
    ):
        ImageLoss(Weights(l1=1.0), config, None, bf16=False)
    wrong = tmp_path / "wrong.safetensors"
    save_file({"stem.weight": torch.zeros(32, 3, 3, 3), "stem.bias": torch.zeros(32)}, wrong)
    with pytest.raises(ValueError, match="does not hold the layers of EfficientNet-lite0"):
        ImageLoss(Weights(l1=1.0), config, None, bf16=False, features=wrong)


def test_texture_and_discriminators_look_at_the_same_maps(file: Path) -> None:
    """The frozen network runs once for each picture of a step, and only for terms that look at its maps."""
    both = ("features", "pixels")
    for texture, kinds, calls in (
        (1.0, both, 2),
        (0.0, both, 2),
        (1.0, ("pixels",), 2),
        (0.0, ("pixels",), 0),
    ):
        config = Adversarial(weight=1.0, adaptive=False, kinds=kinds, width=8)
        loss = ImageLoss(
            Weights(l1=1.0, texture=texture, features=texture), config, None, bf16=False, features=file
        )
        seen: list[torch.Size] = []
        if loss.features is not None:
            loss.features.register_forward_hook(
                lambda network, args, maps, seen=seen: seen.append(args[0].shape)
            )
        inputs = {n: torch.from_numpy(v) for n, v in loss.draw(np.random.default_rng(0), 1.0).items()}
        x = picture().requires_grad_()
        total, terms = loss(x, picture(1), x, inputs)
        total.backward()
        loss.after_step()
        assert len(seen) == calls
        assert ("texture" in terms) == ("features" in terms) == bool(texture)
