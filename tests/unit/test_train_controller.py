"""Lambda climbs its ladder until the rate fits the window."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from dlf.nn.config import from_dict, to_dict
from dlf.train.controller import Ladder, next_rung

pytestmark = pytest.mark.torch

LADDER = Ladder((0.001, 1.0, 3.0, 9.0), 0.010, 0.015)


@pytest.mark.parametrize(
    ("rung", "bpp", "after"),
    [
        (0, 0.5, 1), (1, 0.0151, 2), (3, 0.9, 3),  # too many bits: they cost more, up to the last
        (0, 0.002, 0), (1, 0.0099, 0), (3, 0.0, 2),  # too few: they cost less, down to the first
        (0, 0.010, 0), (2, 0.012, 2), (3, 0.015, 3),  # within, borders included
    ],
)  # fmt: skip
def test_one_step_towards_the_window(rung: int, bpp: float, after: int) -> None:
    assert next_rung(rung, bpp, LADDER) == after


def test_a_model_whose_rate_falls_with_lambda_ends_in_the_window() -> None:
    lambdas = tuple(float(2**i) for i in range(10))
    ladder = Ladder(lambdas, 0.010, 0.015)
    rung = 0
    for _ in range(12):
        rung = next_rung(rung, 0.4 / lambdas[rung], ladder)
    assert 0.010 <= 0.4 / lambdas[rung] <= 0.015
    assert next_rung(rung, 0.4 / lambdas[rung], ladder) == rung


def test_a_ladder_without_steps_stays() -> None:
    assert next_rung(0, 1.0, Ladder((5.8,), 0.0, 0.0)) == 0


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="ascend"):
        Ladder((1.0, 0.5))
    with pytest.raises(ValueError, match="ascend"):
        Ladder((1.0, 1.0))
    with pytest.raises(ValueError, match="no rate"):
        Ladder((1.0,), 0.2, 0.1)


def test_it_survives_a_plain_dict() -> None:
    assert from_dict(Ladder, to_dict(LADDER)) == LADDER
