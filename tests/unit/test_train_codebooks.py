"""The keeper of code books: when it seeds, what it moves, what it leaves alone."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from dlf.nn.vq import VectorQuantizer
from dlf.train.codebooks import CodebookCare, CodebookKeeper

pytestmark = pytest.mark.torch

CARE = CodebookCare(wait=3, vectors=20, patience=1)
TAKEN = torch.tensor(True)


def book(trains: bool = True) -> VectorQuantizer:
    torch.manual_seed(1)
    quantizer = VectorQuantizer(4, 2, normalise=False)
    quantizer.embedding.weight.requires_grad_(trains)
    return quantizer


def step(keeper: CodebookKeeper, value: float, rows: int = 8) -> dict[str, torch.Tensor]:
    """One batch of vectors around a value, all of which have the code 0."""
    z = value + 0.01 * torch.randn(rows, 2)
    keeper.note([(z, torch.zeros(rows, dtype=torch.int64)) for _ in keeper.books])
    return keeper.after_step(TAKEN)


def test_codes_start_from_the_newest_vectors_once_there_are_enough() -> None:
    keeper = CodebookKeeper([book()], CARE, batches=1, seeded=False)
    for value in (100.0, 1.0, 1.0):  # the newest 20 of 24 at the third step: four of the first
        assert not keeper.seeded
        assert step(keeper, value) == {}
    assert keeper.seeded
    codes = keeper.books[0].embedding.weight
    assert ((codes - 1).abs().amax(1) < 0.1).sum() + ((codes - 100).abs().amax(1) < 0.1).sum() == 4
    early = CodebookKeeper([book()], CodebookCare(1, 20, 1), batches=1, seeded=False)
    assert [step(early, 1.0, rows=4) and early.seeded for _ in range(4)] == [{}] * 4
    assert not early.seeded  # the wait is over, but 16 are too few
    step(early, 1.0, rows=4)
    assert early.seeded


def test_idle_codes_are_moved_and_frozen_books_are_left_alone() -> None:
    keeper = CodebookKeeper([book(), book(trains=False)], CARE, batches=1, seeded=True)
    frozen = keeper.books[1].embedding.weight.clone()
    assert int(step(keeper, 5.0)["moved"]) == 0
    logged = step(keeper, 5.0)
    assert (int(logged["codes"]), int(logged["moved"])) == (1, 3)
    assert ((keeper.books[0].embedding.weight - 5).abs().amax(1) < 0.1).sum() == 3
    assert torch.equal(keeper.books[1].embedding.weight, frozen)
    assert step(CodebookKeeper([book(trains=False)], CARE, batches=1, seeded=False), 1.0) == {}


def test_a_resumed_keeper_goes_on_where_it_was() -> None:
    first = CodebookKeeper([book()], CARE, batches=1, seeded=False)
    step(first, 1.0)
    step(first, 1.0)
    second = CodebookKeeper([book()], CARE, batches=1, seeded=False)
    second.load_state(first.state())
    step(second, 1.0)
    assert second.seeded
    assert "collected" not in second.state()
    # a checkpoint without a word of it is of a trained codebook
    third = CodebookKeeper([book()], CARE, batches=1, seeded=False)
    third.load_state({})
    assert third.seeded
