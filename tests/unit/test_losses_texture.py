"""The texture term sees how much varies, not where."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F
from safetensors.torch import save_file

from dlf.losses.adversarial import Adversarial
from dlf.losses.discriminators import LiteFeatures
from dlf.losses.image import ImageLoss
from dlf.losses.objective import Weights
from dlf.losses.texture import contrast_distance
from tiny_runs import lite_weights

pytestmark = pytest.mark.torch


def test_other_texture_is_nearer_than_none() -> None:
    generator = torch.Generator().manual_seed(3)
    texture, other = (torch.randn(1, 5, 64, 64, generator=generator) for _ in range(2))
    same, moved, flat = (
        contrast_distance([x], [texture]).item() for x in (texture, other, F.avg_pool2d(texture, 5, 1, 2))
    )
    assert same == pytest.approx(0, abs=1e-6)
    assert moved < 0.01
    assert 0.2 < flat < 1
    # what a pixel by pixel distance says is the other way round
    assert F.mse_loss(other, texture) > F.mse_loss(F.avg_pool2d(texture, 5, 1, 2), texture)


def test_each_picture_has_its_own_distance_and_gradients_are_finite(tmp_path: Path) -> None:
    save_file(lite_weights(), tmp_path / "lite.safetensors")
    features = LiteFeatures(tmp_path / "lite.safetensors")
    target = torch.rand(2, 3, 57, 57, generator=torch.Generator().manual_seed(4)) * 2 - 1
    made = torch.stack([target[0], target[1].mean((1, 2), keepdim=True).expand(3, 57, 57)])
    made.requires_grad_(True)
    found = contrast_distance(features(made), features(target))
    assert found.shape == (2,)
    same, flat = found.tolist()
    assert same == pytest.approx(0, abs=1e-5)
    assert flat > 0.1
    found.sum().backward()
    assert made.grad is not None
    assert torch.isfinite(made.grad).all()


def test_the_term_needs_its_network() -> None:
    with pytest.raises(ValueError, match="texture term: name the weights of its network with --features"):
        ImageLoss(Weights(texture=1.0), Adversarial(), None, bf16=False)
