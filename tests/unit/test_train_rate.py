"""Lambda climbs its schedule until the rate fits the window."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from dlf.nn.model_config import from_dict, to_dict
from dlf.train.rate import LambdaSchedule

pytestmark = pytest.mark.torch

SCHEDULE = LambdaSchedule((0.001, 1.0, 3.0, 9.0), 0.010, 0.015)


@pytest.mark.parametrize(
    ("step", "bpp", "after"),
    [
        (0, 0.5, 1), (1, 0.0151, 2), (3, 0.9, 3),  # too many bits: they cost more, up to the last
        (0, 0.002, 0), (1, 0.0099, 0), (3, 0.0, 2),  # too few: they cost less, down to the first
        (0, 0.010, 0), (2, 0.012, 2), (3, 0.015, 3),  # within, borders included
    ],
)  # fmt: skip
def test_one_step_towards_the_window(step: int, bpp: float, after: int) -> None:
    assert SCHEDULE.next_step(step, bpp) == after


def test_a_model_whose_rate_falls_with_lambda_ends_in_the_window() -> None:
    lambdas = tuple(float(2**i) for i in range(10))
    schedule = LambdaSchedule(lambdas, 0.010, 0.015)
    step = 0
    for _ in range(12):
        step = schedule.next_step(step, 0.4 / lambdas[step])
    assert 0.010 <= 0.4 / lambdas[step] <= 0.015
    assert schedule.next_step(step, 0.4 / lambdas[step]) == step


def test_a_schedule_without_steps_stays() -> None:
    assert LambdaSchedule((5.8,), 0.0, 0.0).next_step(0, 1.0) == 0


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="ascend"):
        LambdaSchedule((1.0, 0.5))
    with pytest.raises(ValueError, match="ascend"):
        LambdaSchedule((1.0, 1.0))
    with pytest.raises(ValueError, match="no rate"):
        LambdaSchedule((1.0,), 0.2, 0.1)


def test_it_survives_a_plain_dict() -> None:
    assert from_dict(LambdaSchedule, to_dict(SCHEDULE)) == SCHEDULE
