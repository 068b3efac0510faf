"""PSNR and MS-SSIM against independent libraries, and on pictures of awkward sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dlf.evaluation.metrics import fidelity
from dlf.records import UInt8

Picture = Callable[[int, int], UInt8]


def noisy(rgb: UInt8, amount: float) -> UInt8:
    noise = np.random.default_rng(0).normal(0, amount, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("amount", [2, 20, 90])
def test_psnr_is_that_of_skimage(picture: Picture, amount: float) -> None:
    library = pytest.importorskip("skimage.metrics")
    a = picture(50, 70)
    b = noisy(a, amount)
    assert fidelity.psnr(a, b) == pytest.approx(library.peak_signal_noise_ratio(a, b), abs=1e-9)


def test_psnr_of_equal_pictures_is_infinite(picture: Picture) -> None:
    assert fidelity.psnr(picture(9, 9), picture(9, 9)) == float("inf")


@pytest.mark.torch
@pytest.mark.parametrize("amount", [2, 20, 90])
@pytest.mark.parametrize("size", [(176, 192), (208, 320)])
def test_ms_ssim_is_that_of_a_library(picture: Picture, size: tuple[int, int], amount: float) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("pytorch_msssim")
    a = picture(*size)
    b = noisy(a, amount)
    x, y = (torch.tensor(rgb).permute(2, 0, 1)[None].double() for rgb in (a, b))
    wanted = float(library.ms_ssim(x, y, data_range=255))
    assert 0.01 < wanted < 0.9999
    assert fidelity.ms_ssim(a, b) == pytest.approx(wanted, abs=1e-4)  # its window is in single precision


@pytest.mark.parametrize("amount", [2, 20, 90])
def test_one_scale_is_the_ssim_of_skimage(picture: Picture, amount: float) -> None:
    library = pytest.importorskip("skimage.metrics")
    a = picture(21, 40)  # room for one scale
    b = noisy(a, amount)
    _, full = library.structural_similarity(
        a,
        b,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        truncate=3.4,
        use_sample_covariance=False,
        full=True,
    )
    inside = full[5:-5, 5:-5].mean((0, 1))  # the library also looks beyond the border
    assert fidelity.ms_ssim(a, b) == pytest.approx(np.maximum(inside, 0).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("side", "count"), [(1, 1), (10, 1), (21, 1), (22, 2), (44, 3), (88, 4), (175, 4), (176, 5), (4000, 5)]
)
def test_small_pictures_have_fewer_scales(side: int, count: int) -> None:
    assert fidelity.scales(side, 5000) == fidelity.scales(5000, side) == count


@pytest.mark.parametrize("size", [(1, 1), (5, 5), (10, 300), (87, 91), (177, 179)])
def test_ms_ssim_of_any_size(picture: Picture, size: tuple[int, int]) -> None:
    a = picture(*size)
    assert fidelity.ms_ssim(a, a) == pytest.approx(1)
    assert 0 <= fidelity.ms_ssim(a, 255 - a) < 1


def test_another_size_is_refused(picture: Picture) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        fidelity.ms_ssim(picture(20, 20), picture(20, 21))


def test_better() -> None:
    assert fidelity.PSNR.better(2, 1)
    distance = fidelity.Metric("d", "d", 2, fidelity.PSNR.against, lower_is_better=True)
    assert distance.better(1, 2)
    assert not distance.better(1, 1)
