"""The four-step schedule."""

from __future__ import annotations

import numpy as np
import pytest

from dlf.entropy.quadtree import step_masks


@pytest.mark.parametrize("shape", [(4, 1, 1), (8, 2, 2), (8, 5, 3), (64, 16, 24)])
def test_steps_are_a_partition(shape: tuple[int, int, int]) -> None:
    assert (step_masks(*shape).sum(0) == 1).all()


def test_every_step_codes_a_quarter_of_each_group_and_each_position() -> None:
    masks = step_masks(8, 4, 6).reshape(4, 4, 2, 4, 6)
    assert (masks.sum((2, 3, 4)) == 2 * 4 * 6 // 4).all()
    assert (masks.sum((1, 2)) == 2).all()


def test_the_drawing_in_the_docstring_is_true() -> None:
    masks = step_masks(4, 2, 2)
    group = np.argmax(masks, axis=0)
    assert group.tolist() == [[[0, 3], [2, 1]], [[3, 0], [1, 2]], [[2, 1], [0, 3]], [[1, 2], [3, 0]]]


def test_masks_are_shared_and_read_only() -> None:
    assert step_masks(4, 2, 2) is step_masks(4, 2, 2)
    assert not step_masks(4, 2, 2).flags.writeable
