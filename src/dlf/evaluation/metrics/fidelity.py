"""Distances and likenesses of two images of one size, in numpy: PSNR and MS-SSIM."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlf.evaluation.metrics.metric import Metric, Score
from dlf.records import UInt8

_Map = NDArray[np.float64]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weight of each scale of MS-SSIM, finest first (Wang, Simoncelli, Bovik 2003)."""

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(a: UInt8, b: UInt8) -> float:
    """Peak signal-to-noise ratio in dB over all channels of two uint8 (H, W, 3); inf if they are equal."""
    error = float(np.square(a.astype(np.float64) - b.astype(np.float64)).mean())
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def ms_ssim(a: UInt8, b: UInt8) -> float:
    """Multi-scale structural similarity of two uint8 (H, W, 3), -1..1, mean over the channels.

    Five scales, each half the one before (2x2 means, an odd last line is left out), Gaussian window of 11
    pixels and sigma 1.5 without borders.  Where the smallest scale is smaller than that window (a side
    under 176 pixels) there are as many scales as fit, their weights divided by their sum; a side under
    11 pixels shrinks the window to it.
    """
    return _against_ms_ssim(a)(b)


def _against_ms_ssim(original: UInt8) -> Score:
    """Do what depends on the original alone: its scales, means and variances."""
    count = scales(original.shape[0], original.shape[1])
    weights = np.array(WEIGHTS[:count]) / sum(WEIGHTS[:count])
    statistics = []
    for x in _pyramid(original, count):
        mean = _blur(x)
        statistics.append((x, mean, _blur(x * x) - mean * mean))

    def score(image: UInt8) -> float:
        if image.shape != original.shape:
            msg = f"images of shape {original.shape} and {image.shape} cannot be compared"
            raise ValueError(msg)
        product = np.ones(3)
        for scale, y in enumerate(_pyramid(image, count)):
            x, mean_x, var_x = statistics[scale]
            mean_y = _blur(y)
            var_y = _blur(y * y) - mean_y * mean_y
            structure = (2 * (_blur(x * y) - mean_x * mean_y) + C2) / (var_x + var_y + C2)
            if scale == count - 1:
                structure *= (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
            # a fractional power of a negative likeness does not exist; other implementations take 0 too
            product *= np.maximum(structure.mean((1, 2)), 0) ** weights[scale]
        return float(product.mean())

    return score


def scales(height: int, width: int) -> int:
    """Return how many scales of MS-SSIM an image has room for, 1..5."""
    side = min(height, width)
    return max(1, sum(side >> scale >= WINDOW for scale in range(len(WEIGHTS))))


def _pyramid(image: UInt8, count: int) -> list[_Map]:
    """Return the image at each scale, float64 (3, H >> i, W >> i)."""
    levels = [np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float64)]
    while len(levels) < count:
        x = levels[-1]
        x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
        levels.append((x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4)
    return levels


def _blur(x: _Map) -> _Map:
    """Apply the Gaussian window along both sides of (3, H, W), only where it fits wholly."""
    for axis in (1, 2):
        size = min(WINDOW, x.shape[axis])
        place = np.arange(size) - (size - 1) / 2
        taps = np.exp(-(place**2) / (2 * SIGMA**2))
        taps /= taps.sum()
        length = x.shape[axis] - size + 1
        total = np.zeros(())
        for i, tap in enumerate(taps):
            total = total + tap * (x[:, i : i + length] if axis == 1 else x[:, :, i : i + length])
        x = total
    return x


PSNR = Metric("psnr", "PSNR dB", 2, lambda original: lambda image: psnr(original, image), identity="psnr")
MS_SSIM = Metric("ms_ssim", "MS-SSIM", 4, _against_ms_ssim, identity="ms_ssim")
