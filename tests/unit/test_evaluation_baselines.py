"""Other formats at a number of bytes: with a format whose sizes are known, then with the real ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from dlf.errors import MissingExtra
from dlf.evaluation import baselines
from dlf.evaluation.baselines import BaselineError, Fitter
from dlf.evaluation.metrics import MS_SSIM, Metric, Score
from dlf.records import UInt8

Picture = Callable[[int, int], UInt8]


class Ruler:
    """A format whose file has 10 + pixels * (quality + 1) / 8 bytes; it keeps the size and the mean."""

    name, identity, qualities = "ruler", "ruler 1", range(101)

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


def listed() -> tuple[Metric, Score, list[UInt8]]:
    """A metric with a list of values to give, one after the other, and the pictures it was asked about."""
    seen: list[UInt8] = []
    values = iter([3.0, 2.0, 5.0, 4.0, 5.0, 1.0, 1.0])

    def score(rgb: UInt8) -> float:
        seen.append(rgb)
        return next(values)

    return Metric("m", "m", 2, lambda original: score), score, seen


def test_the_best_scale_wins_at_its_best_quality(picture: Picture) -> None:
    metric, score, seen = listed()
    fitted = Fitter(Ruler(), picture(64, 64)).fit(10 + 64 * 64 * 20 // 8, metric, score)
    assert len(seen) == 7
    assert all(rgb.shape == (64, 64, 3) for rgb in seen)
    # of two equal ones the first, the less scaled
    assert fitted.scale == Fraction(1, 2)
    assert fitted.quality == 79
    assert fitted.size == 10 + 32 * 32 * 80 // 8


def test_scales_whose_smallest_file_is_too_large_are_left_out(picture: Picture) -> None:
    metric, score, seen = listed()
    fitted = Fitter(Ruler(), picture(64, 64)).fit(10 + 16 * 16 * 2 // 8, metric, score)
    assert len(seen) == 3  # 1/4, 3/16, 1/8
    assert fitted.size <= 10 + 16 * 16 * 2 // 8


def test_where_nothing_fits_the_smallest_is_taken(picture: Picture) -> None:
    metric, score, seen = listed()
    fitted = Fitter(Ruler(), picture(64, 64)).fit(9, metric, score)
    assert seen == []
    assert (fitted.scale, fitted.quality, fitted.size) == (Fraction(1, 8), 0, 18)


def test_files_are_made_once(picture: Picture) -> None:
    ruler = Ruler()
    fitter = Fitter(ruler, picture(64, 64))
    for budget in (300, 300, 500):
        metric, score, _ = listed()
        fitter.fit(budget, metric, score)
    assert len(ruler.made) == len(set(ruler.made))


def test_scales_that_the_format_refuses_are_left_out(picture: Picture) -> None:
    ruler = Ruler(refuses=lambda image: image.width < 16)
    metric, score, _ = listed()
    assert Fitter(ruler, picture(64, 64)).fit(20, metric, score).scale == Fraction(1, 4)
    metric, score, _ = listed()
    with pytest.raises(BaselineError, match="ruler cannot hold the picture"):
        Fitter(Ruler(refuses=lambda image: True), picture(8, 8)).fit(20, metric, score)


@pytest.mark.parametrize("name", sorted(baselines.OPENERS))
@pytest.mark.parametrize("size", [(96, 72), (5, 5)])
def test_real_formats(picture: Picture, name: str, size: tuple[int, int]) -> None:
    try:
        baseline = baselines.open_baseline(name)
    except MissingExtra as error:
        pytest.skip(str(error))
    assert baseline.name == name
    rgb = picture(*size)
    fitter = Fitter(baseline, rgb)
    small, large = (fitter.fit(budget, MS_SSIM, MS_SSIM.against(rgb)) for budget in (900, 3000))
    assert large.rgb.shape == rgb.shape
    assert large.size <= 3000
    again = fitter.paint(small.scale, small.quality)
    assert (again.size, again.scale) == (small.size, small.scale)
    assert np.array_equal(again.rgb, small.rgb)


def test_a_missing_plugin_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> None:
        msg = f"pip install 'dlf-codec[{extra}]'"
        raise MissingExtra(msg)

    monkeypatch.setattr(baselines, "need", absent)
    monkeypatch.setattr(baselines.features, "check", lambda feature: False)
    for name in baselines.OPENERS:
        with pytest.raises(MissingExtra, match=r"dlf-codec\[eval\]"):
            baselines.open_baseline(name)


def test_a_broken_plugin_is_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> baselines.Baseline:
        msg = "lib.so: wrong ELF class"
        raise ImportError(msg)

    monkeypatch.setitem(baselines.OPENERS, "heic", broken)
    with pytest.raises(MissingExtra, match="does not work here"):
        baselines.open_baseline("heic")


def test_files_hold_nothing_but_the_picture(picture: Picture) -> None:
    webp = baselines.open_baseline("webp")
    with Image.open(io.BytesIO(webp.encode(Image.fromarray(picture(32, 32)), 10))) as image:
        assert not {"exif", "icc_profile", "xmp"} & set(image.info)
