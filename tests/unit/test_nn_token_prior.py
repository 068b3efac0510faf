"""What the tokens tell the prior of the details."""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from dlf.geometry import WINDOW, WINDOW_CELLS, ceil_div, window_plan
from dlf.nn.build import COMPACT, TINY, TINY_V2
from dlf.nn.context import ContextModel
from dlf.nn.exact import ACTIVATION_LIMIT, ACTIVATION_UNIT, FAN_IN_LIMIT, WEIGHT_UNIT
from dlf.nn.model import Dlf
from dlf.nn.model_config import QuantConfig
from dlf.nn.schedule import sent_mask
from dlf.nn.token_prior import CODE_UNIT, TokenPrior, follow, whole_codes

pytestmark = pytest.mark.torch

TOKENS, CHANNELS = TINY_V2.tokens, TINY_V2.quant.token_channels


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(5)


def random_tokens(batch: int, down: int, across: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole codes, and which of them are sent."""
    shape = (batch, down, across, TOKENS.count)
    codes = whole_codes(F.normalize(torch.randn(*shape, TOKENS.code_dim), dim=-1))
    return codes, torch.rand(shape) < 0.6


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (8, 8), (9, 8), (3, 20), (17, 25)])
@torch.no_grad()
def test_cells_are_those_of_the_token_windows(rows: int, cols: int) -> None:
    """A plain sum for each place of a plan of windows gives the same."""
    prior = TokenPrior(TOKENS, CHANNELS)
    down, across = ceil_div(rows, WINDOW_CELLS), ceil_div(cols, WINDOW_CELLS)
    codes, sent = random_tokens(2, down, across)
    found = prior(codes, sent)[..., :rows, :cols].numpy()
    assert found.shape == (2, CHANNELS, rows, cols)

    plan = window_plan(rows, cols, WINDOW_CELLS)
    patches = window_plan(2 * rows, 2 * cols, WINDOW)
    # the window of a cell is the window of its patches
    window = plan.scatter // len(plan.slot)
    np.testing.assert_array_equal(patches.scatter[::2, ::2] // len(patches.slot), window)

    weight, bias = (t.double().numpy() for t in prior.cells.integers())
    weight, bias = weight.reshape(CHANNELS, WINDOW_CELLS**2, -1), bias.reshape(CHANNELS, -1)
    mask = sent[..., None].numpy()
    told = np.concatenate([codes.numpy() * mask, ACTIVATION_UNIT * mask], -1).reshape(2, down * across, -1)
    slot = plan.slot[plan.scatter % len(plan.slot)]
    sums = np.einsum("crsi,brsi->bcrs", weight[:, slot], told[:, window]) + bias[:, slot]
    wanted = np.clip(np.floor(sums / WEIGHT_UNIT + 0.5), -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
    np.testing.assert_array_equal(found, wanted)
    assert found.std() > 1


@torch.no_grad()
def test_tokens_that_are_not_sent_tell_nothing() -> None:
    prior = TokenPrior(TOKENS, CHANNELS)
    codes, sent = random_tokens(1, 2, 1)
    other = torch.where(sent[..., None], codes, random_tokens(1, 2, 1)[0])
    assert not torch.equal(codes, other)
    assert torch.equal(prior(codes, sent), prior(other, sent))
    assert not torch.equal(prior(codes, sent), prior(codes, ~sent))
    # that a token is sent is told even where its numbers are all zero
    nothing = torch.zeros_like(codes)
    assert not torch.equal(prior(nothing, sent), prior(nothing, ~sent))


def test_whole_codes_are_whole_and_near() -> None:
    codes = F.normalize(torch.randn(200, 12), dim=-1).requires_grad_()
    whole = whole_codes(codes)
    assert torch.equal(whole, whole.round())
    assert (whole / CODE_UNIT - codes).abs().max() <= 0.5 / CODE_UNIT
    assert whole.abs().max() <= CODE_UNIT
    followed = follow(whole, codes)
    assert torch.equal(followed, whole)
    followed.sum().backward()
    assert torch.equal(codes.grad, torch.full_like(codes, CODE_UNIT))


def test_more_tokens_than_a_sum_may_have_are_refused() -> None:
    fits = replace(TOKENS, count=FAN_IN_LIMIT // 5, code_dim=4, levels=0)
    TokenPrior(fits, 1)
    with pytest.raises(ValueError, match="not exact"):
        TokenPrior(replace(fits, count=fits.count + 1), 1)
    with pytest.raises(ValueError, match="how many"):
        ContextModel(TINY_V2.quant)
    with pytest.raises(ValueError, match="integer context network"):
        replace(TINY_V2.quant, integer=False)


def test_without_token_channels_nothing_changes() -> None:
    assert QuantConfig(8, 16, 1, 3, True, 1).token_channels == 0
    told = replace(TINY, quant=replace(TINY.quant, token_channels=4))
    old, new = Dlf(TINY).state_dict(), Dlf(told).state_dict()
    added = {name for name in new if name not in old}
    assert added == {f"details.context.token_prior.cells.{part}" for part in ("weight", "bias")}
    wider = {name for name in old if old[name].shape != new[name].shape}
    assert wider
    assert all(name.startswith("details.context.y_prior_fusion.0.0.") for name in wider)


@pytest.mark.parametrize("kind", ["vector", "none"])
def test_other_details_have_no_use_for_tokens(kind: str) -> None:
    quant = replace(TINY_V2.quant, kind=kind, codes=16, code_dim=3)
    apart = replace(TINY_V2.interact, encoder_layers=(), decoder_layers=())
    model = Dlf(replace(TINY_V2, quant=quant, interact=apart))
    assert model.token_prior is None
    sent = torch.ones(1, TOKENS.count, dtype=torch.bool)
    found = model.compress(torch.rand(1, 3, 64, 64), torch.tensor([50.0]), sent, model.grid(64, 64))
    assert found.details.bits.shape == (1,)


@torch.no_grad()
def test_steps_follow_the_tokens() -> None:
    """Each window has steps of its own; they differ from others' as far as the prior's network sees."""
    context = ContextModel(TINY_V2.quant, TOKENS)
    assert context.token_prior is not None
    vector = context.prior_vector(torch.tensor([50.0])).expand(-1, -1, 8, 24)
    codes, sent = random_tokens(1, 1, 3)
    sent[:] = True
    first = context.prior(vector, context.token_prior(codes, sent))
    codes[:, :, 2] = random_tokens(1, 1, 1)[0][:, :, 0]
    second = context.prior(vector, context.token_prior(codes, sent))
    for a, b in ((first.step, second.step), (first.first.scale, second.first.scale)):
        assert a[..., 2:6, 2:6].unique(dim=-1).shape[-1] > 1
        assert torch.equal(a[..., : 16 - 2], b[..., : 16 - 2])
        assert not torch.equal(a[..., 16:], b[..., 16:])


def test_bits_teach_the_tokens() -> None:
    model = Dlf(TINY_V2)
    pixels, quality = torch.rand(2, 3, 64, 288), torch.tensor([20.0, 90.0])
    grid = model.grid(64, 288)
    sent = sent_mask(torch.tensor([2, 4]), TOKENS.count, grid.token)
    found = model.compress(pixels, quality, sent, grid)
    found.details.bits.sum().backward()
    for name in ("encoder.conv_out.weight", "encoder.latent_tokens"):
        gradient = model.get_parameter(name).grad
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name
    assert model.get_parameter("details.context.token_prior.cells.weight").grad.abs().max() > 0
    # the codes themselves learn by the quantiser's own loss
    assert model.quantize.embedding.weight.grad is None


def macs(run: Callable[[], object]) -> float:
    """Multiply-adds a pixel of 768x512."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() / 2 / (512 * 768)


@pytest.mark.parametrize("channels", [0, 16, 32])
def test_cost_of_the_prior(channels: int, capsys: pytest.CaptureFixture[str]) -> None:
    """With the widths of `compact`; what docs/model.md says."""
    tokens = COMPACT.tokens
    context = ContextModel(replace(COMPACT.quant, token_channels=channels), tokens)
    vector = torch.zeros(1, COMPACT.quant.channels, 16, 24)
    codes = torch.zeros(1, 2, 3, tokens.count, tokens.code_dim)
    sent = torch.ones(codes.shape[:4], dtype=torch.bool)

    def told() -> torch.Tensor | None:
        return None if context.token_prior is None else context.token_prior(codes, sent)

    layer = macs(told)
    given = told()
    whole = macs(lambda: context.prior(vector, given))
    parameters = sum(p.numel() for p in context.parameters())
    with capsys.disabled():
        print(  # noqa: T201
            f"\n  token_channels {channels}: {parameters:,} parameters, "
            f"{layer:.0f} MAC/pixel for the tokens' layer, {whole:.0f} for the prior on the whole grid",
            end="",
        )
    places = 64 * channels * tokens.count * (tokens.code_dim + 1)  # products of a window of 256x256 pixels
    assert layer * 512 * 768 == 6 * places
    assert whole < 250
