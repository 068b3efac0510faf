"""Vector quantiser, rate of scalar symbols, detail quantiser."""

# ruff: noqa: E402
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F

from dlf.entropy.quadtree import step_masks
from dlf.nn.build import TINY
from dlf.nn.context import SCALE_HIGH, SCALE_LOW, SCALES, ContextModel, interpolate_anchors
from dlf.nn.detail_branch import (
    DetailQuantizer,
    gaussian_bits,
    place_masks,
    round_ste,
    step_places,
    training_bits,
)
from dlf.nn.vq import VectorQuantizer, lattice

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(11)


@pytest.mark.parametrize("normalise", [False, True])
def test_nearest_code_is_the_nearest(normalise: bool) -> None:
    vq = VectorQuantizer(20, 5, normalise=normalise)
    z = torch.randn(3, 50, 5)
    place = F.normalize(z, dim=-1) if normalise else z
    distance = (place[..., None, :] - vq.codebook()).square().sum(-1)
    assert torch.equal(vq.nearest(z), distance.argmin(-1))


@pytest.mark.parametrize("normalise", [False, True])
def test_gradient_is_straight_through(normalise: bool) -> None:
    vq = VectorQuantizer(20, 5, normalise=normalise)
    z = F.normalize(torch.randn(50, 5), dim=-1).requires_grad_()
    result = vq(z)
    torch.testing.assert_close(result.quantised, vq.codebook()[result.indices])
    weight = torch.randn(50, 5)
    (result.quantised * weight).sum().backward()
    # through the normalisation, a vector of length 1 keeps the part of the gradient across it
    across = weight - (weight * z).sum(-1, keepdim=True) * z if normalise else weight
    torch.testing.assert_close(z.grad, across.detach(), atol=1e-5, rtol=1e-4)
    assert vq.embedding.weight.grad is None


def test_loss_pulls_codes_to_vectors_and_vectors_to_codes() -> None:
    vq = VectorQuantizer(4, 3, normalise=False, commitment=0.25)
    z = torch.randn(10, 3, requires_grad=True)
    result = vq(z)
    result.loss.backward()
    gap = z.detach() - vq.codebook().detach()[result.indices]
    torch.testing.assert_close(z.grad, 0.25 * 2 * gap / gap.numel())
    wanted = torch.zeros(4, 3).index_add_(0, result.indices, -2 * gap / gap.numel())
    torch.testing.assert_close(vq.embedding.weight.grad, wanted)


def test_revive_moves_idle_codes_only() -> None:
    vq = VectorQuantizer(8, 3, normalise=True)
    before = vq.embedding.weight.detach().clone()
    z, used = torch.randn(40, 3), torch.tensor([1, 1, 5])
    for _ in range(4):
        assert vq.revive(z, used, patience=4) == 0
    assert torch.equal(vq.embedding.weight, before)
    assert vq.revive(z, used, patience=4) == 6
    after = vq.embedding.weight.detach()
    kept = torch.tensor([1, 5])
    assert torch.equal(after[kept], before[kept])
    moved = torch.tensor([0, 2, 3, 4, 6, 7])
    known = F.normalize(z, dim=-1)
    gaps = (after[moved][:, None] - known[None]).abs().amax(-1).amin(-1)
    assert gaps.max() < 1e-6
    assert len(set(map(tuple, after[moved].tolist()))) == 6
    assert not vq.idle.any()


def test_revive_with_fewer_vectors_than_dead_codes() -> None:
    vq = VectorQuantizer(8, 3, normalise=False)
    assert vq.revive(torch.randn(2, 3), torch.tensor([0]), patience=0) == 2
    assert (vq.idle == 0).sum() == 3


def test_revived_codes_come_into_use() -> None:
    vq = VectorQuantizer(32, 4, normalise=False)
    with torch.no_grad():
        vq.embedding.weight.copy_(torch.randn(32, 4) * 0.01 + 50)  # far from everything
    z = torch.randn(500, 4)
    start = len(vq.nearest(z).unique())
    for _ in range(10):
        vq.revive(z, vq.nearest(z), patience=2)
    assert len(vq.nearest(z).unique()) > max(20, start)


@pytest.mark.parametrize("normalise", [False, True])
def test_seeded_codes_are_all_in_use_and_near(normalise: bool) -> None:
    vq = VectorQuantizer(16, 4, normalise=normalise)
    z = torch.randn(600, 4)
    place = F.normalize(z, dim=-1) if normalise else z
    before = (place - vq.codebook()[vq.nearest(z)]).square().mean()
    vq.seed(z)
    after = (place - vq.codebook()[vq.nearest(z)]).square().mean()
    assert len(vq.nearest(z).unique()) == 16
    assert after < before
    assert after < 0.6 * place.var()


def test_idle_counts_are_no_part_of_the_model() -> None:
    assert set(VectorQuantizer(4, 2, normalise=True).state_dict()) == {"embedding.weight"}


def reference_bits(v: float, sigma: float) -> float:
    """In float64 and from the tail: erfc keeps its precision there."""
    near, far = (abs(v) - 0.5) / sigma, (abs(v) + 0.5) / sigma
    return -math.log2(0.5 * (math.erfc(near / math.sqrt(2)) - math.erfc(far / math.sqrt(2))) or 1e-300)


@pytest.mark.parametrize("sigma", [0.11, 0.3, 1.0, 2.7, 9.0, 32.0])
def test_bits_agree_with_erf(sigma: float) -> None:
    symbols = torch.arange(-60.0, 60.5, 0.5)
    bits = gaussian_bits(symbols, torch.full_like(symbols, sigma))
    wanted = torch.tensor([reference_bits(v, sigma) for v in symbols.tolist()])
    near, middle = wanted < 17, (wanted >= 17) & (wanted < 23)
    assert near.sum() > 2
    torch.testing.assert_close(bits[near], wanted[near], atol=0.01, rtol=0)
    torch.testing.assert_close(bits[middle], wanted[middle], atol=0.5, rtol=0)
    assert (bits[wanted >= 24] > 22.5).all()
    assert bits.max() <= 34
    assert torch.equal(bits, bits.flip(0))


@pytest.mark.parametrize("sigma", [0.11, 0.5, 1.0, 4.0, 32.0])
def test_probabilities_sum_to_one(sigma: float) -> None:
    symbols = torch.arange(-400.0, 401.0)
    total = torch.exp2(-gaussian_bits(symbols, torch.tensor(sigma)).double()).sum()
    assert total.item() == pytest.approx(1, abs=1e-3)


def test_gradients_are_finite_however_far_out() -> None:
    far = [0.0, 0.5, 1.0, 5.0, 30.0, 1e3, 2**15, 1e10, 1e30]
    v = torch.tensor([*far, *(-x for x in far)])[:, None].repeat(1, 5).requires_grad_()
    sigma = torch.tensor([0.11, 1.0, 32.0, 1e4, 1e-2]).repeat(len(v), 1).requires_grad_()
    bits = gaussian_bits(v, sigma)
    bits.sum().backward()
    for tensor in (bits, v.grad, sigma.grad):
        assert tensor.isfinite().all()


def test_gradient_pulls_moderate_outliers_in() -> None:
    v = torch.tensor([1.0, 3.0, 6.0, 9.0], requires_grad=True)
    gaussian_bits(v, torch.ones(4)).sum().backward()
    assert (v.grad > 0.1).all()


def test_rounding_is_straight_through() -> None:
    x = torch.tensor([-2.6, -0.4, 0.2, 7.7], requires_grad=True)
    rounded = round_ste(x)
    assert rounded.tolist() == [-3, 0, 0, 8]
    rounded.sum().backward()
    assert x.grad.tolist() == [1] * 4


def test_scale_table_spans_the_stated_deviations() -> None:
    sigma = ContextModel(TINY.quant).sigma(torch.tensor([0.0, SCALES - 1]))
    torch.testing.assert_close(sigma, torch.tensor([SCALE_LOW, SCALE_HIGH]))


def test_anchors_are_interpolated() -> None:
    table = torch.tensor([[0.0, 1.0], [10.0, 2.0], [30.0, 3.0]])
    found = interpolate_anchors(table, torch.tensor([0.0, 25.0, 50.0, 75.0, 100.0]))
    assert found[:, 0].tolist() == [0, 5, 10, 20, 30]
    assert interpolate_anchors(table[:1], torch.tensor([3.0, 90.0])).tolist() == [[0, 1], [0, 1]]


def test_detail_quantizer() -> None:
    """In training the gradient reaches y and everything that predicts it; evaluation is repeatable."""
    details = DetailQuantizer(TINY.quant)
    y = (2 * torch.randn(2, 8, 5, 6)).requires_grad_()
    quality = torch.tensor([0.0, 100.0])
    found = details.quantise(y, quality)
    assert found.bits.shape == (2,)
    (found.bits.sum() + found.y_hat.square().sum()).backward()
    assert y.grad.isfinite().all()
    assert y.grad.abs().max() > 0
    assert details.context.factorized_prior_vec.grad.abs().max() > 0
    details.eval()
    with torch.no_grad():
        first, second = details.quantise(y, quality), details.quantise(y, quality)
    assert torch.equal(first.bits, second.bits)
    assert torch.equal(first.y_hat, second.y_hat)
    assert 0 < first.active <= 1
    # the rate with noise estimates the rate of whole symbols
    assert found.bits.sum().item() == pytest.approx(first.bits.sum().item(), rel=0.25)


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (3, 5)])
def test_masks_of_the_trainer_are_those_of_the_codec(size: tuple[int, int]) -> None:
    masks = place_masks(step_places(12), *size)
    np.testing.assert_array_equal(masks.numpy(), step_masks(12, *size))


def test_the_nearest_point_of_a_lattice_is_found_number_by_number() -> None:
    """Finite scalar quantisation: every number goes to the nearest of its levels, on its own."""
    vq = VectorQuantizer(64, 3, normalise=False, commitment=0.0, levels=4)
    z = 2 * torch.randn(200, 3)
    found = vq(z)
    torch.testing.assert_close(found.quantised, (z - 0.5).round().add(0.5).clamp(-1.5, 1.5))
    assert len(lattice(4, 3).unique(dim=0)) == 64
    assert not any(p.requires_grad for p in vq.parameters())


def test_a_lattice_of_another_size_is_refused() -> None:
    tokens = TINY.tokens
    for change in ({"levels": 3}, {"levels": 2, "spread": False}):
        with pytest.raises(ValueError, match="levels of 4 numbers are not 16 codes"):
            replace(tokens, **change)


def test_deviations_learn_from_symbols_and_residuals_from_noise() -> None:
    """The value is what is paid; a deviation is fitted to whole symbols, of which nearly all are 0."""
    generator = torch.Generator().manual_seed(5)
    residual = 0.22 * torch.randn(40_000, generator=generator)
    symbol = residual.round()
    log_sigma = torch.tensor(0.0, requires_grad=True)
    optimiser = torch.optim.Adam([log_sigma], 0.05)
    for _ in range(120):
        optimiser.zero_grad()
        spent = training_bits(residual, symbol, log_sigma.exp().expand_as(residual))
        torch.testing.assert_close(spent, gaussian_bits(symbol, log_sigma.exp().expand_as(residual)))
        spent.mean().backward()
        optimiser.step()
    zeros = float((symbol == 0).float().mean())
    said = torch.exp2(-gaussian_bits(torch.zeros(1), log_sigma.detach().exp())).item()
    assert said == pytest.approx(zeros, abs=0.003)
    moved = residual.clone().requires_grad_()
    torch.manual_seed(6)
    training_bits(moved, round_ste(moved), torch.full_like(moved, 0.3)).sum().backward()
    torch.manual_seed(6)
    plain = residual.clone().requires_grad_()
    noise = torch.rand_like(plain) - 0.5
    gaussian_bits(plain + noise, torch.full_like(plain, 0.3)).sum().backward()
    assert moved.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(moved.grad, plain.grad)
