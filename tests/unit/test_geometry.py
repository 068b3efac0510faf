"""Grids, padding, attention windows, tiles."""

from __future__ import annotations

import numpy as np
import pytest

from dlf.geometry import Plan, WindowPlan, tile_spans, window_plan

SIZES = [(1, 1), (1, 5), (16, 16), (31, 33), (255, 257), (512, 768), (1100, 1700)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_padding_is_least_and_comes_off_again(height: int, width: int) -> None:
    plan = Plan(height, width)
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    padded = plan.pad(rgb)
    assert padded.shape == (*plan.padded, 3)
    assert all(0 <= p - n < 32 and p % 32 == 0 for p, n in zip(plan.padded, (height, width), strict=True))
    np.testing.assert_array_equal(plan.crop(padded), rgb)
    np.testing.assert_array_equal(padded[-1, -1], rgb[-1, -1])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_windows_hold_all_patches_and_send_their_share(height: int, width: int) -> None:
    plan = Plan(height, width)
    rows, cols = plan.patches
    inside = plan.window_patches()
    assert inside.sum() == rows * cols
    assert len(inside) == plan.windows[0] * plan.windows[1]
    assert inside.min() >= 4
    counts = plan.token_counts(32)
    assert counts.min() >= 1
    assert (counts == np.ceil(inside * 32 / 256)).all()


@pytest.mark.parametrize("shift", [0, 1, 4])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (2, 7), (8, 8), (9, 8), (16, 24), (13, 30), (40, 3)])
def test_window_plans_take_every_place_once(rows: int, cols: int, shift: int) -> None:
    plan = window_plan(rows, cols, 8, shift)
    grid = np.arange(rows * cols).reshape(rows, cols)
    windows = grid.reshape(-1)[plan.gather]
    np.testing.assert_array_equal(windows.reshape(-1)[plan.scatter], grid)
    assert (plan.region >= 0).sum() == rows * cols
    assert (plan.gather[plan.region < 0] == 0).all()
    assert len(plan.slot) == plan.gather.shape[1] == min(rows, 8) * min(cols, 8)
    assert len(set(plan.slot.tolist())) == len(plan.slot)
    assert plan.slot.max() < 64


@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (16, 24), (32, 8), (13, 30), (9, 17)])
@pytest.mark.parametrize("shift", [0, 4])
def test_shifted_windows_equal_cyclic_shift_with_masks(rows: int, cols: int, shift: int) -> None:
    """As in Swin: pad, roll by -shift, cut, and let only places of the same of nine regions attend."""
    size = 8
    down, across = -(-rows // size) * size, -(-cols // size) * size
    grid = np.full((down, across), -1)
    grid[:rows, :cols] = np.arange(rows * cols).reshape(rows, cols)
    region = np.zeros((down, across), int)
    if shift:
        bands = (slice(0, -size), slice(-size, -shift), slice(-shift, None))
        for number, (i, j) in enumerate((i, j) for i in bands for j in bands):
            region[i, j] = number

    def cut(values: np.ndarray) -> np.ndarray:
        parts = values.reshape(down // size, size, across // size, size)
        return parts.swapaxes(1, 2).reshape(-1, size * size)

    place = cut(np.roll(grid, (-shift, -shift), (0, 1)))
    region = cut(region)
    plan = window_plan(rows, cols, size, shift)
    inside = place >= 0
    np.testing.assert_array_equal(plan.region >= 0, inside)
    np.testing.assert_array_equal(plan.gather[inside], place[inside])
    both = inside[:, :, None] & inside[:, None]
    may = (region[:, :, None] == region[:, None]) & both
    np.testing.assert_array_equal((plan.region[:, :, None] == plan.region[:, None]) & both, may)
    np.testing.assert_array_equal(plan.slot, np.arange(size * size))


def test_origin_places_a_small_grid_in_its_window() -> None:
    assert window_plan(2, 2, 8, origin=(3, 5)).slot.tolist() == [29, 30, 37, 38]


@pytest.mark.parametrize("halo", [64, 256])
@pytest.mark.parametrize("size", [32, 1152, 1184, 1536, 1568, 1700 // 32 * 32, 4096, 4128, 8192])
def test_tiles_cover_and_overlap(size: int, halo: int) -> None:
    spans = tile_spans(size, 1024, halo)
    assert [a for span in spans for a in span.core[:1]] == [0, *(span.core[1] for span in spans[:-1])]
    assert spans[-1].core[1] == size
    assert (len(spans) == 1) == (size <= 1024 + 2 * halo)
    for span in spans:
        assert span.core[0] % 256 == 0
        assert span.core[1] - span.core[0] <= 1024 or len(spans) == 1
        assert span.seen == (max(0, span.core[0] - halo), min(size, span.core[1] + halo))
    sizes = [span.core[1] - span.core[0] for span in spans]
    assert max(sizes) - min(sizes) <= 512


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("start", [0, 2, 6, 8, 12])
def test_a_part_of_a_grid_has_the_windows_of_the_whole(start: int, shift: int) -> None:
    """Wherever it starts, places that may see each other in the part do so in the whole, and the reverse."""
    rows, cols, window = 40, 8, 8
    whole, part = (
        window_plan(rows, cols, window, shift),
        window_plan(20, cols, window, shift, first=(start, 0)),
    )

    def names(plan: WindowPlan, moved: int) -> list[set[int]]:
        groups = []
        for gather, region in zip(plan.gather, plan.region, strict=True):
            groups += [set((gather[region == of] + moved * cols).tolist()) for of in set(region[region >= 0])]
        return [group for group in groups if group]

    inside = set(range((start + shift) * cols, (start + 20 - shift) * cols))
    theirs, ours = ([group & inside for group in names(*of)] for of in ((whole, 0), (part, start)))
    assert sorted(map(sorted, filter(None, ours))) == sorted(map(sorted, filter(None, theirs)))
    slots = part.slot[np.isin(part.gather, [0]).nonzero()[1]]
    assert part.scatter.shape == (20, cols)
    assert set(part.scatter.reshape(-1)) == set(np.flatnonzero(part.region.reshape(-1) >= 0))
    assert (slots // window == (start - shift) % window).any()


def test_padding_to_whole_windows() -> None:
    plan = Plan(257, 100, unit=256)
    assert plan.padded == (512, 256)
    assert plan.cells == (16, 8)
    assert plan.windows == (2, 1)
    assert plan.token_counts(32).tolist() == [32, 32]
