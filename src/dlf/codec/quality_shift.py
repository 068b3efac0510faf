"""Latents of one image at several qualities for little more than the price of one.

The quality enters the analysis as gains near its end, so that y at one quality is, channel by channel, nearly
a multiple of y at another, plus a constant.  Both numbers are read off a miniature of the image, whose
analysis costs next to nothing::

    image  ----- analysis at 48 -----> y --- times a, plus b ---> y at 41
    miniature -- analysis at 48, 41 -> least squares: a, b of each channel

Whether they hold is seen on the miniature; where they do not, the image is analysed anew.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlf.codec.codec import StreamCodec
from dlf.records import Float32, Latents, UInt8

FARTHEST = 15
"""Qualities over which a latent is carried; over 6 it is off by 0.005 quantisation steps, over these 0.02."""

MISFIT = 0.06
"""Error on the miniature, as a share of its y, from which on the image is analysed anew."""

_SIDE = 128  # pixels of the miniature at most


class ShiftedLatents:
    """Latents of an image, uint8 (height, width, 3); runs the analysis as rarely as it can."""

    def __init__(self, codec: StreamCodec, rgb: UInt8) -> None:
        self._codec, self._rgb = codec, rgb
        self._small = _miniature(rgb)
        self._analysed: dict[int, Latents] = {}
        self._analysed_small: dict[int, Latents] = {}
        self._moved: Float32 | None = None

    def move(self, quality: int, latents: Latents) -> None:
        """Take these latents as those of a quality, and move those of all others as far."""
        self._moved = latents.y - self._plain(quality).y

    def at(self, quality: int) -> Latents:
        """Return the latents of a quality; those of the first that is asked for are exact."""
        latents = self._plain(quality)
        return latents if self._moved is None else Latents(latents.tokens, latents.y + self._moved)

    def _plain(self, quality: int) -> Latents:
        if quality not in self._analysed:
            base = min(self._analysed, key=lambda known: abs(known - quality), default=None)
            if base is not None and abs(base - quality) <= FARTHEST:
                shifted = self._shifted(base, quality)
                if shifted is not None:
                    return shifted
            self._analysed[quality] = self._codec.analyse(self._rgb, quality)
        return self._analysed[quality]

    def _shifted(self, base: int, quality: int) -> Latents | None:
        """Carry the latents of one quality to another; None where the miniature says that this fails."""
        if self._rgb.size <= 2 * self._small.size:
            return None  # the image itself is as quick
        before, after = self._small_at(base), self._small_at(quality)
        if not np.array_equal(before.tokens, after.tokens):
            return None
        factor, constant = _fit(before.y, after.y)
        error = factor * before.y + constant - after.y
        if not np.square(error).sum() <= MISFIT**2 * np.square(after.y).sum():
            return None
        latents = self._analysed[base]
        return Latents(latents.tokens, factor * latents.y + constant)

    def _small_at(self, quality: int) -> Latents:
        if quality not in self._analysed_small:
            self._analysed_small[quality] = self._codec.analyse(self._small, quality)
        return self._analysed_small[quality]


def _miniature(rgb: UInt8) -> UInt8:
    """Return a whole image in little; its sides may have another ratio."""
    height, width = (min(side, _SIDE) for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX))


def _fit(before: Float32, after: Float32) -> tuple[Float32, Float32]:
    """Return factor and constant of each channel, float32 (channels, 1, 1), by least squares.

    before, after: float32 (channels, rows, cols).
    """
    means: list[NDArray[np.float64]] = [
        y.mean((1, 2), dtype=np.float64, keepdims=True) for y in (before, after)
    ]
    spread = np.square(before - means[0]).sum((1, 2), keepdims=True)
    common = ((before - means[0]) * (after - means[1])).sum((1, 2), keepdims=True)
    flat = spread <= 0
    factor = np.where(flat, 1.0, common / np.where(flat, 1.0, spread))
    return factor.astype(np.float32), (means[1] - factor * means[0]).astype(np.float32)
