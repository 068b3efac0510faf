"""Attention windows: against a plain roll-and-mask reference, and deaf to what fills windows up."""

# ruff: noqa: E402
from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F
from torch import Tensor

from dlf.geometry import Plan
from dlf.nn.build import TINY
from dlf.nn.interact import InteractBlock
from dlf.nn.layers import SwinBlock, TransformerBlock
from dlf.nn.model import Dlf
from dlf.nn.schedule import QUALITIES, sent_mask, token_schedule
from dlf.nn.windows import Grid, Windows, cut, key_bias, make_grid, pair_bias, paste, windows

pytestmark = pytest.mark.torch

WINDOW, SHIFT = 8, 4
WHOLE = [(8, 8), (16, 24), (32, 8)]
PARTIAL = [(9, 8), (13, 18), (2, 6), (2, 20), (12, 12)]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(5)


def swin(*, absolute: bool) -> SwinBlock:
    block = SwinBlock(16, 8, WINDOW, absolute=absolute).requires_grad_(False)
    torch.nn.init.normal_(block.pos_embedding, std=0.5)
    return block


def reference(block: SwinBlock, x: Tensor, shift: int) -> Tensor:
    """The block on (B, rows, cols, width) with padding, torch.roll, and masks as in the Swin paper."""
    _, rows, cols, _ = x.shape
    down, across = (-n % WINDOW for n in (rows, cols))
    padded = F.pad(block.norm_attn(x), (0, 0, 0, across, 0, down), value=99.0)
    region = torch.zeros(rows + down, cols + across, dtype=torch.int64)
    if shift:
        bands = (slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None))
        for number, (i, j) in enumerate((i, j) for i in bands for j in bands):
            region[i, j] = number
        padded = padded.roll((-shift, -shift), (1, 2))
    inside = F.pad(torch.ones(rows, cols, dtype=torch.bool), (0, across, 0, down)).roll(
        (-shift, -shift), (0, 1)
    )
    out = torch.empty_like(padded)
    for top in range(0, rows + down, WINDOW):
        for left in range(0, cols + across, WINDOW):
            here = (slice(top, top + WINDOW), slice(left, left + WINDOW))
            may = region[here].flatten()[:, None] == region[here].flatten()[None]
            out[:, here[0], here[1]] = one_window(
                block, padded[:, here[0], here[1]], may & inside[here].flatten()[None]
            )
    out = out.roll((shift, shift), (1, 2))[:, :rows, :cols]
    x = x + block.to_out(out)
    return x + block.mlp(block.norm_mlp(x))


def one_window(block: SwinBlock, x: Tensor, may: Tensor) -> Tensor:
    """Attention of (B, 8, 8, width), head by head; may[query, key]."""
    batch, n, width = x.shape[0], WINDOW * WINDOW, x.shape[-1]
    places = [(i, j) for i in range(WINDOW) for j in range(WINDOW)]
    bias = torch.empty(n, n)
    for q, (i, j) in enumerate(places):
        for k, (a, b) in enumerate(places):
            offset = (a - i + WINDOW - 1, b - j + WINDOW - 1)
            bias[q, k] = block.pos_embedding[q, k] if block.absolute else block.pos_embedding[offset]
    q, k, v = block.to_qkv(x.reshape(batch, n, width)).split(width, -1)
    size = width // block.heads
    heads = []
    for h in range(block.heads):
        part = slice(h * size, (h + 1) * size)
        score = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size) + bias
        weight = score.masked_fill(~may, -1e30).softmax(-1)
        heads.append(weight @ v[..., part])
    return torch.cat(heads, -1).reshape(batch, WINDOW, WINDOW, width)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("shift", [0, SHIFT])
@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (16, 24), (9, 8), (13, 18), (12, 12)])
def test_swin_block_equals_roll_and_mask(rows: int, cols: int, shift: int, absolute: bool) -> None:
    block = swin(absolute=absolute)
    x = torch.randn(2, rows, cols, 16)
    torch.testing.assert_close(
        block(x, windows(rows, cols, WINDOW, shift)), reference(block, x, shift), atol=2e-5, rtol=1e-4
    )


def other_padding(win: Windows) -> Windows:
    """The same plan with other grid places where a window lies outside the grid."""
    count = win.scatter.numel()
    return win._replace(gather=torch.where(win.region < 0, (win.gather + count // 2) % count, win.gather))


@pytest.mark.parametrize("shift", [0, SHIFT])
@pytest.mark.parametrize(("rows", "cols"), PARTIAL)
def test_swin_block_does_not_see_padding(rows: int, cols: int, shift: int) -> None:
    block, win = swin(absolute=False), windows(rows, cols, WINDOW, shift)
    x = torch.randn(2, rows, cols, 16)
    torch.testing.assert_close(block(x, other_padding(win)), block(x, win), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("rows", "cols"), [(18, 16), (22, 40), (2, 18)])
def test_transformer_block_does_not_see_padding(rows: int, cols: int) -> None:
    """Nor is it disturbed: a partial window gives what its places alone would."""
    win = windows(rows, cols, 16)
    count, n = win.gather.shape
    block = TransformerBlock(16, 2, 2).requires_grad_(False)
    x = torch.randn(2 * count, 1 + n + 3, 16)
    out = block(x, key_bias(win, 1, 3, 2))
    assert out.isfinite().all()
    for window in range(2 * count):
        inside = win.region[window % count] >= 0
        kept = torch.cat([torch.tensor([True]), inside, torch.tensor([True] * 3)])
        alone = block(x[window : window + 1, kept], None)
        torch.testing.assert_close(out[window : window + 1, kept], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("rows", "cols"), [(18, 16), (22, 40)])
def test_interaction_does_not_see_padding(rows: int, cols: int) -> None:
    block = InteractBlock(TINY.interact, 4, 16, 16).requires_grad_(False)
    torch.nn.init.normal_(block.token_add.weight, std=0.3)
    win = windows(rows, cols, 16)
    bias = key_bias(win, 1, 4, 2)
    inside = F.pad(win.region >= 0, (1, 4), value=True).repeat(2, 1)
    x, detail = torch.randn(*inside.shape, 16), torch.randn(2, rows, cols, 16)
    disturbed = torch.where(inside[..., None], x, x + 3)
    tokens, details = block(x, detail, win, bias)
    other_tokens, other_details = block(disturbed, detail, other_padding(win), bias)
    torch.testing.assert_close(other_details, details, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other_tokens[inside], tokens[inside], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(288, 256), (32, 320), (96, 64)])
def test_model_does_not_see_padding(height: int, width: int) -> None:
    model = Dlf(TINY).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("token_add.weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    grid = model.grid(height, width)
    other = Grid(*map(other_padding, grid))
    pixels, quality = torch.rand(2, 3, height, width), torch.tensor([10.0, 90.0])
    for a, b in zip(model.encoder(pixels, grid), model.encoder(pixels, other), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    codes = torch.randn(2 * len(grid.token.gather), 4, 4)
    sent = torch.ones(codes.shape[:2], dtype=torch.bool)
    y_hat = torch.randn(2, 8, height // 32, width // 32)
    first, second = (model.fuse(codes, sent, y_hat, quality, g).logits for g in (grid, other))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("rows", "cols"), WHOLE)
def test_masks_that_hide_nothing_change_nothing(rows: int, cols: int) -> None:
    """Training leaves them out where it can; the exported graphs always compute them."""
    win = windows(rows, cols, WINDOW)
    assert win.whole
    assert pair_bias(win, 1) is None
    assert key_bias(win, 1, 2, 1) is None
    masked = win._replace(whole=False)
    assert not pair_bias(masked, 2).any()
    assert not key_bias(masked, 1, 2, 2).any()
    block, x = swin(absolute=False), torch.randn(1, rows, cols, 16)
    torch.testing.assert_close(block(x, masked), block(x, win), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("rows", "cols"), WHOLE + PARTIAL)
def test_cut_and_paste(rows: int, cols: int) -> None:
    x = torch.randn(3, rows, cols, 5)
    for win in make_grid(rows, cols, WINDOW):
        pieces = cut(x, win)
        assert pieces.shape == (3 * len(win.gather), win.gather.shape[1], 5)
        assert torch.equal(paste(pieces, win, 3), x)


@pytest.mark.parametrize("keep", [1, 3, 12, 24])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (256, 256), (288, 256), (512, 768), (320, 544)])
def test_sent_tokens_are_those_that_the_codec_counts(height: int, width: int, keep: int) -> None:
    win = windows(height // 16, width // 16, 16)
    mask = sent_mask(torch.tensor([keep, 24]), 24, win)
    wanted = np.concatenate([Plan(height, width).token_counts(n) for n in (keep, 24)])
    np.testing.assert_array_equal(mask.sum(1).numpy(), wanted)
    assert (mask[:, :-1] >= mask[:, 1:]).all()


@pytest.mark.parametrize("count", [1, 4, 24, 32])
def test_token_schedule(count: int) -> None:
    schedule = token_schedule(count, tail_drop=True)
    assert schedule.shape == (QUALITIES,)
    assert schedule.dtype == np.uint8
    assert (np.diff(schedule.astype(int)) >= 0).all()
    assert schedule[0] >= 1
    assert (schedule[50:] == count).all()
    assert (token_schedule(count, tail_drop=False) == count).all()


def test_missing_tokens_do_not_reach_the_picture() -> None:
    model = Dlf(TINY).eval().requires_grad_(False)
    grid = model.grid(64, 64)
    codes, sent = torch.randn(1, 4, 4), torch.tensor([[True, True, False, False]])
    y_hat, quality = torch.randn(1, 8, 2, 2), torch.tensor([40.0])
    other = torch.where(sent[..., None], codes, codes + 1)
    first, second = (model.fuse(c, sent, y_hat, quality, grid).logits for c in (codes, other))
    assert torch.equal(first, second)
    all_sent = model.fuse(codes, torch.ones_like(sent), y_hat, quality, grid).logits
    assert not torch.equal(first, all_sent)
