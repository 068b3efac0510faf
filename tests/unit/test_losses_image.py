"""Structural similarity against scikit-image's, and the discriminator's part in a step."""

# ruff: noqa: E402
from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn

from dlf.losses.adversarial import Adversarial, Adversary, hinge, matching
from dlf.losses.discriminators import PatchDiscriminator, View
from dlf.losses.image import ImageLoss
from dlf.losses.objective import Weights, phase_pattern, pixel_terms, structural_similarity

pytestmark = pytest.mark.torch

SMALL = Adversarial(weight=0.5, matching=2.0, width=4, layers=2, lr=1e-2)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_structural_similarity_is_the_published_one() -> None:
    """scikit-image's mean over the places where the whole square lies inside."""
    metrics = pytest.importorskip("skimage.metrics")
    x = noise(1, 1, 3, 40, 56)
    y = (0.7 * x + 0.3 * noise(2, 1, 3, 40, 56)).clamp(-1, 1)
    a, b = (((t[0].permute(1, 2, 0) + 1) / 2).double().numpy() for t in (x, y))
    _, full = metrics.structural_similarity(
        a, b, win_size=7, channel_axis=2, data_range=1.0, use_sample_covariance=False, full=True
    )
    assert float(structural_similarity(x, y)) == pytest.approx(full[3:-3, 3:-3].mean(), abs=1e-5)
    assert float(structural_similarity(x, x)) == pytest.approx(1.0, abs=1e-6)


def test_structural_similarity_sees_a_fine_grid_in_a_smooth_picture() -> None:
    ramp = torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64)
    grid = 0.02 * torch.from_numpy(np.indices((64, 64)).sum(0) % 2 * 2.0 - 1).float()
    assert structural_similarity(ramp + grid, ramp) < structural_similarity(ramp + 0.02, ramp) - 0.05
    sky = ramp / 10
    faint = sky + 0.4 * grid  # a level of 255 up and down
    loss = pixel_terms(faint, sky, Weights(ssim=1.0), None)["ssim"]
    assert loss > 4 * (1 - structural_similarity(faint, sky))
    assert loss > 0.05


def test_discriminator_sizes_are_the_published_ones() -> None:
    """2.8 M parameters and a map of 30x30 for 256x256 pixels (Isola et al. 2017, section 6.1)."""
    network = PatchDiscriminator(64, 3)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(2.77e6, rel=0.01)
    logits, _ = network(network.embed(View(noise(0, 1, 3, 256, 256))))
    assert [x.shape for x in logits] == [(1, 1, 30, 30)]


def test_hinge_and_matching() -> None:
    assert float(hinge(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0]))) == 0.5 * (0.5 + 1.0)
    a, b = noise(1, 1, 4, 5, 5), noise(2, 1, 4, 5, 5)
    assert float(matching([a, b], [a, b])) == 0
    assert float(matching([a], [b])) == pytest.approx(float((a - b).abs().sum() / b.abs().sum()))


def test_gradient_is_that_of_the_weighted_sum() -> None:
    """The scalar stands for others + matching * m + weight * ratio * hinge, ratio of norms at `last`."""
    torch.manual_seed(0)
    adversary = Adversary(SMALL, bf16=False)
    last = nn.Conv2d(3, 3, 3, padding=1)
    source, target = noise(3, 2, 3, 32, 32), noise(4, 2, 3, 32, 32)

    def gradient(scalar: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(scalar, last.weight)
        return found

    def others(picture: Tensor) -> Tensor:
        return (picture - target).abs().mean()

    picture = last(source)
    shortcut = gradient(
        adversary.weigh(
            adversary.terms(View(picture), View(target)), others(picture), picture, last.weight, SMALL.weight
        )
    )
    parts = []
    for _ in range(2):
        picture = last(source)
        terms = adversary.terms(View(picture), View(target))
        parts.append((others(picture) + SMALL.matching * terms["matching"], terms["adversarial"]))
    plain, own = gradient(parts[0][0]), gradient(parts[1][1])
    torch.testing.assert_close(shortcut, plain + SMALL.weight * plain.norm() / own.norm() * own)
    assert all(p.grad is None for p in adversary.network.parameters())


def test_hinge_term_waits_for_its_start() -> None:
    torch.manual_seed(0)
    adversary = Adversary(Adversarial(weight=0.5, start=0.5, width=4, layers=2), bf16=False)
    last = nn.Conv2d(3, 3, 3, padding=1)
    found = []
    for progress in (0.0, 0.49, 0.5):
        picture = last(noise(3, 1, 3, 32, 32))
        terms = adversary.terms(View(picture), View(noise(4, 1, 3, 32, 32)))
        strength = adversary.config.strength(progress)
        total = adversary.weigh(
            terms, picture.square().mean(), picture, last.weight, strength, pulls=strength > 0
        )
        found.append(torch.autograd.grad(total, last.weight)[0])
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


def test_a_constant_weight_grows_over_its_ramp() -> None:
    """Without `adaptive` the scalar is the plain weighted sum."""
    config = Adversarial(weight=0.4, adaptive=False, start=0.5, ramp=0.2, kinds=("pixels",), width=8)
    adversary = Adversary(config, bf16=False)
    picture, others = noise(3, 1, 3, 32, 32), torch.tensor(2.0)
    terms = adversary.terms(View(picture), View(noise(4, 1, 3, 32, 32)))
    for progress, weight in ((0.4, 0.0), (0.5, 0.0), (0.6, 0.2), (0.7, 0.4), (1.0, 0.4)):
        total = adversary.weigh(terms, others, picture, picture, config.strength(progress))
        assert float(total) == pytest.approx(2.0 + weight * float(terms["adversarial"]))


def test_a_grid_in_the_error_is_seen_at_its_period() -> None:
    """A pattern of period 4 is seen at 4, 8 and 16, whatever its phase; noise and an offset are not."""
    pattern = 0.1 * (noise(7, 1, 1, 4, 4) > 0).float().tile(16, 16)
    shifted = pattern.roll((1, 2), (2, 3))
    here, there = (phase_pattern(x.expand(1, 3, 64, 64)) for x in (pattern, shifted))
    torch.testing.assert_close(here, there)
    assert here > 0.03
    assert phase_pattern(torch.full((1, 3, 64, 64), 0.3)) < 1e-6
    assert phase_pattern(0.1 * noise(8, 1, 3, 64, 64)) < here / 5


def test_discriminator_learns_to_tell_and_resumes() -> None:
    torch.manual_seed(0)
    loss = ImageLoss(Weights(l1=1.0), SMALL, None, bf16=False)
    last = nn.Conv2d(3, 3, 3, padding=1)
    rng = np.random.default_rng(0)
    hinges = []
    for _ in range(30):
        inputs = {name: torch.from_numpy(value) for name, value in loss.draw(rng, 1.0).items()}
        total, terms = loss(last(torch.zeros(2, 3, 32, 32)), noise(5, 2, 3, 32, 32), last.weight, inputs)
        assert {"l1", "adversarial", "matching"} <= terms.keys()
        total.backward()
        hinges.append(loss.after_step()["hinge"])
    assert hinges[-1] < 0.3 < hinges[0]
    other = ImageLoss(Weights(l1=1.0), SMALL, None, bf16=False)
    other.load_state(loss.state())
    assert other.adversary is not None
    assert loss.adversary is not None
    other.adversary.seen = loss.adversary.seen
    assert other.after_step() == loss.after_step()


def test_without_a_discriminator_nothing_is_added() -> None:
    loss = ImageLoss(Weights(l1=1.0), Adversarial(), None, bf16=False)
    x, y = noise(1, 1, 3, 32, 32), noise(2, 1, 3, 32, 32)
    drawn = loss.draw(np.random.default_rng(0), 0.0)
    total, terms = loss(x, y, x, {name: torch.from_numpy(value) for name, value in drawn.items()})
    assert terms.keys() == {"l1"}
    assert total == terms["l1"]
    assert loss.after_step() == {}
    assert loss.state() == {}
