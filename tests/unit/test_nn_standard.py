"""Standardisation of the token vectors: running statistics, and those of a large batch."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from dlf.nn.hybrid import LARGE_BATCH, RunningStandard

pytestmark = pytest.mark.torch


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(count, 3, 5, generator=torch.Generator().manual_seed(seed))
    return (7 + 0.02 * noise).requires_grad_()


def test_running_statistics_come_near_those_of_the_vectors() -> None:
    spread = RunningStandard(3, 5, momentum=0.1)
    for step in range(300):
        spread(vectors(LARGE_BATCH, step))
    z = spread.eval()(vectors(2000, 999))
    assert z.mean(0).abs().max() < 0.5
    torch.testing.assert_close(z.std(0), torch.ones(3, 5), rtol=0.3, atol=0.0)


def test_a_large_batch_has_deviation_one_and_no_gradient_can_shrink_it() -> None:
    """The gradient of whatever follows is at right angles to the batch and to its mean."""
    spread, x = RunningStandard(3, 5), vectors(LARGE_BATCH)
    z = spread(x)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3, 5), rtol=1e-3, atol=0.0)
    (z.square() * torch.randn(LARGE_BATCH, 3, 5)).sum().backward()
    gradient = x.grad
    assert gradient is not None
    size = gradient.norm(dim=0)
    assert (gradient.sum(0).abs() / size).max() < 1e-2
    assert (((x - x.mean(0)) * gradient).sum(0).abs() / (x - x.mean(0)).norm(dim=0) / size).max() < 1e-2


def test_a_small_batch_and_evaluation_use_the_running_statistics() -> None:
    spread = RunningStandard(3, 5)
    few = vectors(LARGE_BATCH - 1)
    assert spread(few).std(0).max() < 0.5  # they have hardly moved from deviation 1
    assert spread.eval()(vectors(LARGE_BATCH)).std(0).max() < 0.5


def test_a_mean_that_drifts_does_not_count_as_deviation() -> None:
    """Against a mean that lags behind, large batches would else be said to vary several times as much."""
    spread = RunningStandard(3, 5, momentum=0.05)
    for step in range(200):
        spread(2.5 * (vectors(LARGE_BATCH, step) - 7) + 0.01 * step)  # a deviation of 0.05
    deviation = (spread.square - spread.mean.square()).sqrt()
    torch.testing.assert_close(deviation, torch.full((3, 5), 0.05), rtol=0.3, atol=0)
