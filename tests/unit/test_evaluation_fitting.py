"""Other formats at a number of bytes: with a format whose sizes are known, then with the real ones."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from dlf.errors import MissingExtra
from dlf.evaluation.codecs import formats
from dlf.evaluation.codecs.fitting import SCALES, FitError, ScaleSearch, climb
from dlf.evaluation.codecs.protocols import Codec
from dlf.evaluation.metrics.fidelity import MS_SSIM
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.imageio import plugins
from dlf.records import UInt8

Picture = Callable[[int, int], UInt8]


class Ruler:
    """A format whose file has 10 + pixels * (quality + 1) / 8 bytes; it keeps the size and the mean."""

    identity, qualities = "ruler 1", range(101)

    def __init__(self, refuses: Callable[[Image.Image], bool] = lambda image: False) -> None:
        self.made: list[tuple[tuple[int, int], int]] = []
        self._refuses = refuses

    def encode(self, image: Image.Image, quality: int) -> bytes:
        if self._refuses(image):
            msg = "no"
            raise RuntimeError(msg)
        self.made.append((image.size, quality))
        return f"{image.width:5}{image.height:5}".encode() + bytes(
            image.width * image.height * (quality + 1) // 8
        )

    def decode(self, data: bytes) -> Image.Image:
        return Image.new("RGB", (int(data[:5]), int(data[5:10])), (len(data) % 256, 0, 0))


def fitter(codec: Codec, original: UInt8, *scales: Fraction) -> ScaleSearch:
    return ScaleSearch("ruler", codec, original, scales or SCALES)


def listed(*values: float) -> tuple[Metric, Score, list[UInt8]]:
    """A metric that gives these values, one after the other, and the pictures it was asked about."""
    seen: list[UInt8] = []

    def score(rgb: UInt8) -> float:
        seen.append(rgb)
        return values[len(seen) - 1]

    return Metric("m", "m", 2, lambda original: score), score, seen


@pytest.mark.parametrize("count", range(1, 9))
def test_climbing_finds_the_top(count: int) -> None:
    for top in range(count):
        heights = [-abs(place - top) for place in range(count)]
        asked: set[int] = set()

        def better(one: int, other: int, heights: list[int] = heights, asked: set[int] = asked) -> bool:
            asked.update((one, other))
            return heights[one] > heights[other]

        assert climb(count, better) == top
        assert len(asked) <= 6


def test_the_best_scale_wins_at_its_best_quality(picture: Picture) -> None:
    metric, score, seen = listed(4.0, 3.0)  # of 1/4 and 1/2, so there is no need to look at 1
    scales = [Fraction(1, n) for n in (1, 2, 4)]
    point = fitter(Ruler(), picture(64, 64), *scales).fit(10 + 64 * 64 * 20 // 8, metric, score)
    assert all(rgb.shape == (64, 64, 3) for rgb in seen)
    assert (point.scale, point.quality, point.size) == (Fraction(1, 4), 100, 10 + 16 * 16 * 101 // 8)
    metric, score, seen = listed(3.0, 3.0, 5.0)
    point = fitter(Ruler(), picture(64, 64), *scales).fit(10 + 64 * 64 * 20 // 8, metric, score)
    # 1/2 and 1/4 are equal, so the less scaled of them meets 1, which is better
    assert (point.scale, point.quality, len(seen)) == (Fraction(1), 19, 3)
    assert point.data is not None
    assert point.size == len(point.data)


def test_scales_whose_smallest_file_is_too_large_are_left_out(picture: Picture) -> None:
    metric, score, seen = listed(1.0, 2.0, 3.0)
    point = fitter(Ruler(), picture(64, 64)).fit(40, metric, score)
    assert len(seen) == 2  # 1/8 and 3/16; 1/4 is left
    assert point.scale == Fraction(3, 16)
    assert point.size <= 40


def test_where_nothing_fits_the_smallest_is_taken(picture: Picture) -> None:
    metric, score, seen = listed()
    point = fitter(Ruler(), picture(64, 64)).fit(9, metric, score)
    assert seen == []
    assert (point.scale, point.quality, point.size) == (Fraction(1, 8), 0, 18)


def test_files_are_made_once(picture: Picture) -> None:
    ruler = Ruler()
    search = fitter(ruler, picture(64, 64))
    for budget in (300, 300, 500):
        metric, score, _ = listed(*[1.0] * 7)
        search.fit(budget, metric, score)
    assert len(ruler.made) == len(set(ruler.made))


def test_scales_that_the_format_refuses_are_left_out(picture: Picture) -> None:
    ruler = Ruler(refuses=lambda image: image.width < 16)
    metric, score, _ = listed()
    assert fitter(ruler, picture(64, 64)).fit(20, metric, score).scale == Fraction(1, 4)
    metric, score, _ = listed()
    with pytest.raises(FitError, match=r"ruler cannot hold the picture.*RuntimeError: no"):
        fitter(Ruler(refuses=lambda image: True), picture(8, 8)).fit(20, metric, score)


@pytest.mark.parametrize("name", sorted(formats.OPENERS))
@pytest.mark.parametrize("size", [(96, 72), (5, 5)])
def test_real_formats(picture: Picture, name: str, size: tuple[int, int]) -> None:
    try:
        codec = formats.open_format(name)
    except MissingExtra as error:
        pytest.skip(str(error))
    rgb = picture(*size)
    search = ScaleSearch(name, codec, rgb, SCALES)
    small, large = (search.fit(budget, MS_SSIM, MS_SSIM.against(rgb)) for budget in (1000, 3000))
    assert large.rgb.shape == rgb.shape
    assert large.size <= 3000
    again = search.code(small.scale, small.quality)
    assert small.data is not None
    assert np.array_equal(search.decode(small.data), small.rgb)
    assert (again.size, again.scale) == (small.size, small.scale)
    assert np.array_equal(again.rgb, small.rgb)


@pytest.mark.parametrize("name", ["webp", "avif", "jxl", "heic"])
def test_a_missing_plugin_says_what_to_type(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(formats.features, "check", lambda feature: False)
    for need in (plugins.need_heic, plugins.need_jxl):
        need.cache_clear()
    with pytest.raises(MissingExtra, match=rf"the codec {name}: .*dlf-codec\[formats\]"):
        formats.open_format(name)


def test_files_hold_nothing_but_the_picture(picture: Picture) -> None:
    webp = formats.open_format("webp")
    with Image.open(io.BytesIO(webp.encode(Image.fromarray(picture(32, 32)), 10))) as image:
        assert not {"exif", "icc_profile", "xmp"} & set(image.info)
