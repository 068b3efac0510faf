"""Changes of size that start as shortcuts: the same numbers as shortcuts beside the convolutions."""

# ruff: noqa: E402
from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F
from torch import nn

from dlf.nn.vqgan import Downsample, Upsample, start_shortcuts

pytestmark = pytest.mark.torch


def started(layer: nn.Module) -> nn.Module:
    nn.init.zeros_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    start_shortcuts(layer)
    return layer


@pytest.mark.parametrize(("c_in", "c_out"), [(4, 8), (4, 4), (4, 16)])
def test_down_is_the_mean_of_groups_of_unshuffled_channels(c_in: int, c_out: int) -> None:
    """Up to the factor that keeps the variance of independent numbers."""
    x = torch.randn(2, c_in, 6, 8, generator=torch.Generator().manual_seed(0))
    group = 4 * c_in // c_out
    wanted = F.pixel_unshuffle(x, 2).unflatten(1, (c_out, group)).mean(2) * group**0.5
    torch.testing.assert_close(started(Downsample(c_in, c_out, "shuffle"))(x), wanted)


@pytest.mark.parametrize(("c_in", "c_out"), [(8, 4), (4, 4), (16, 4)])
def test_up_is_repeated_channels(c_in: int, c_out: int) -> None:
    x = torch.randn(2, c_in, 3, 5, generator=torch.Generator().manual_seed(0))
    wanted = F.pixel_shuffle(x.repeat_interleave(4 * c_out // c_in, 1), 2)
    torch.testing.assert_close(started(Upsample(c_in, c_out, "shuffle"))(x), wanted)
