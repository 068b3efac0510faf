"""Files of a given size: the search by byte functions of all kinds, then real files, then the front doors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
import dlf.pillow_plugin
from cli_run import Done
from conftest import MockBackend, picture
from dlf.bitstream import container
from dlf.bitstream.container import Stream
from dlf.bitstream.header import Header
from dlf.bitstream.spec import MIN_FILE_BYTES
from dlf.codec import rate_search
from dlf.codec.codec import StreamCodec
from dlf.codec.quality_shift import FARTHEST, ShiftedLatents
from dlf.codec.rate_search import LEAST, Setting, Size, Target, encode_to_size, make_target, search
from dlf.codec.rounding import round_symbols
from dlf.entropy.tables import Tables
from dlf.errors import InvalidArgument, UnreachableSize
from dlf.records import Latents, UInt8
from shipped_models import needs_models

ASTRONAUT = Path(__file__).parents[1] / "data" / "astronaut.jpg"
MOST_TRIALS = 14


class Fake:
    """A codec that only counts bytes.

    growth: logarithm of what a quality adds.  saving: the same of what a unit of rate weight takes.
    noise: bytes that come and go from one quality to the next.
    """

    def __init__(self, least: int, growth: float, saving: float, noise: int = 0) -> None:
        self.least, self.growth, self.saving, self.noise = least, growth, saving, noise
        self.asked: list[Setting] = []

    def __call__(self, setting: Setting) -> int:
        self.asked.append(setting)
        grown = self.least * math.exp(self.growth * setting.quality - self.saving * setting.rate_weight)
        return 14 + round(grown) + (self.noise if setting.quality * 7 % 5 < 2 else 0)


def fits(size: int, target: int) -> bool:
    return LEAST * target <= size <= target


@pytest.mark.parametrize("target", [130, 300, 900, 2500, 6000])
@pytest.mark.parametrize("start", [0, 40, 100])
@pytest.mark.parametrize("noise", [0, 9])
@pytest.mark.parametrize(("growth", "saving"), [(0.02, 1.0), (0.04, 3.0), (0.056, 3.0), (0.07, 2.0)])
def test_search_lands(growth: float, saving: float, noise: int, start: int, target: int) -> None:
    size = Fake(100, growth, saving, noise)
    largest = Fake(100, growth, saving, noise)(Setting(100))
    setting = search(size, target, start, fixed=14)
    assert len(size.asked) <= MOST_TRIALS
    assert len(set(size.asked)) == len(size.asked)
    assert size(setting) <= target
    if largest > target:
        assert fits(size(setting), target)
    else:
        assert setting == Setting(100)


@pytest.mark.parametrize("start", [0, 50, 100])
def test_search_of_an_erratic_size_ends_with_the_most_bytes_that_were_seen(start: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(100, 1000, 101)
    seen: dict[Setting, int] = {}

    def size(setting: Setting) -> int:
        seen[setting] = int(table[setting.quality] * (1 - setting.rate_weight))
        return seen[setting]

    setting = search(size, 500, start)
    assert len(seen) <= MOST_TRIALS
    fitting = [each for each in seen.values() if each <= 500]
    assert seen[setting] == (max(fitting) if fitting else min(seen.values()))


@pytest.mark.parametrize(("target", "expected"), [(20, Setting(0, 0.1)), (10**9, Setting(100))])
def test_search_out_of_range_ends_at_the_end(target: int, expected: Setting) -> None:
    size: Size = Fake(100, 0.04, 3.0)
    assert search(size, target, 50, fixed=14) == expected


@pytest.mark.parametrize("target", [31, 33])
def test_a_small_image_whose_files_are_steps_apart(
    target: int, codec: StreamCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quality 100 was tried and is too large, and nothing comes within 3 %: the nearest is taken."""

    class Coarse(rate_search.Trials):
        def size(self, setting: Setting) -> int:
            self._streams[setting] = Stream(Header(1, setting.quality, 32, 32), b"", b"")
            return 14 + 2 * round(14 * setting.quality / 100)

    monkeypatch.setattr(rate_search, "Trials", Coarse)
    found = encode_to_size(codec, picture(32, 32), Target(max_bytes=target))
    assert 14 + 2 * round(14 * found.header.quality / 100) == target - 1


def test_a_good_start_is_the_only_trial() -> None:
    size = Fake(100, 0.04, 3.0)
    assert search(size, size(Setting(33)) + 1, 33) == Setting(33)
    assert size.asked == [Setting(33)] * 2


def test_symbols_go_towards_zero_where_that_is_cheaper(tables: Tables) -> None:
    exact = np.array([0.2, 0.55, -0.55, 1.45, 1.55, -2.6, 40.4, 0.0])
    index = np.full(len(exact), 6, np.int16)
    plain = round_symbols(exact, index, tables)
    assert plain.tolist() == [0, 1, -1, 1, 2, -3, 40, 0]
    cheaper = round_symbols(exact, index, tables, 0.05)
    assert cheaper.tolist()[:3] == [0, 0, 0]
    assert cheaper.tolist()[-2:] == [40, 0]  # beyond the tables' limit nothing is changed
    assert (np.abs(cheaper) <= np.abs(plain)).all()
    assert (cheaper * plain >= 0).all()
    nothing = round_symbols(exact, index, tables, 1e6)
    assert nothing.tolist() == [0, 0, 0, 0, 0, 0, 40, 0]


def test_target() -> None:
    assert make_target(None, None, None) is None
    assert make_target(50, None, None) is None
    assert make_target(None, 900, None) == Target(900)
    assert Target(bpp=0.015).bytes_of(768 * 512) == 737


@pytest.mark.parametrize(
    "given",
    [
        (50, 900, None), (50, None, 0.1), (None, 900, 0.1), (None, MIN_FILE_BYTES - 1, None),
        (None, -1, None), (None, None, 0.0), (None, None, -1.0), (None, None, math.nan),
        (None, None, math.inf), (None, None, 25.0),
    ],
)  # fmt: skip
def test_targets_that_cannot_be_are_refused(
    given: tuple[int | None, int | None, float | None],
) -> None:
    with pytest.raises(InvalidArgument):
        make_target(*given)


def test_file_of_the_stand_in_has_the_size_and_decodes(codec: StreamCodec) -> None:
    rgb = picture(512, 768)
    low, high = (len(container.dump(codec.encode_rgb(rgb, quality))) for quality in (0, 100))
    for target in (low + 5, (low + high) // 2, high - 5):
        stream = encode_to_size(codec, rgb, Target(target))
        assert fits(len(container.dump(stream)), target)
        assert codec.decode_stream(container.load(container.dump(stream))).shape == rgb.shape


@pytest.mark.parametrize(("share", "quality", "word"), [(0.5, 0, "smallest"), (1.5, 100, "largest")])
def test_a_size_out_of_range_names_the_nearest(
    share: float, quality: int, word: str, codec: StreamCodec
) -> None:
    rgb = picture(128, 160)
    plain = len(container.dump(codec.encode_rgb(rgb, quality)))
    target = Target(int(share * plain))
    nearest = encode_to_size(codec, rgb, target, best=True)
    size = len(container.dump(nearest))
    assert 0.6 * plain <= size <= 1.01 * plain
    assert nearest.header.quality >= quality - 10
    with pytest.raises(UnreachableSize, match=f"the {word} has {size}"):
        encode_to_size(codec, rgb, target)


def test_metadata_count(codec: StreamCodec) -> None:
    rgb, blob = picture(256, 256), bytes(300)
    least = len(container.dump(codec.encode_rgb(rgb, 0, blob)))
    stream = encode_to_size(codec, rgb, Target(least + 50), blob)
    assert fits(len(container.dump(stream)), least + 50)
    assert stream.blob == blob


def watch_analysis(backend: MockBackend, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that takes the height and width of everything that is analysed."""
    sizes: list[tuple[int, ...]] = []
    analyse = backend.analyse

    def watched(rgb: UInt8, quality: int) -> Latents:
        sizes.append(rgb.shape[:2])
        return analyse(rgb, quality)

    monkeypatch.setattr(backend, "analyse", watched)
    return sizes


def test_the_image_is_analysed_once_and_its_miniature_for_every_quality(
    codec: StreamCodec, backend: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = picture(512, 768)
    exact = codec.analyse(rgb, 45)
    sizes = watch_analysis(backend, monkeypatch)
    latents = ShiftedLatents(codec, rgb)
    latents.at(50)
    for _ in range(2):
        shifted = latents.at(45)
        assert np.array_equal(shifted.tokens, exact.tokens)
        assert np.allclose(shifted.y, exact.y, atol=1e-5)
    assert sizes == [(512, 768), (128, 128), (128, 128)]
    latents.at(50 - FARTHEST - 1)
    assert sizes[3:] == [(512, 768)]


def test_an_image_is_analysed_anew_where_its_miniature_fits_badly(
    codec: StreamCodec, backend: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyse = backend.analyse

    def bent(rgb: UInt8, quality: int) -> Latents:
        latents = analyse(rgb, quality)
        return Latents(latents.tokens, np.sin(latents.y * quality).astype(np.float32))

    monkeypatch.setattr(backend, "analyse", bent)
    rgb = picture(512, 768)
    latents = ShiftedLatents(codec, rgb)
    latents.at(50)
    assert np.array_equal(latents.at(45).y, codec.analyse(rgb, 45).y)


def test_a_small_image_is_its_own_miniature(
    codec: StreamCodec, backend: MockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = picture(64, 100)
    sizes = watch_analysis(backend, monkeypatch)
    latents = ShiftedLatents(codec, rgb)
    assert np.array_equal(latents.at(50).y, latents.at(50).y)
    assert np.array_equal(latents.at(45).y, codec.analyse(rgb, 45).y)
    assert sizes == [(64, 128)] * 3


Dlf = Callable[..., Done]


@pytest.fixture(name="dlf_command")
def dlf_command_fixture(dlf_beside: Dlf, tmp_path: Path) -> Dlf:
    Image.fromarray(picture(512, 768)).save(tmp_path / "a.png")
    return dlf_beside


def test_command_takes_a_size(dlf_command: Dlf, tmp_path: Path) -> None:
    for options, most in [(("--bytes", 1000), 1000), (("--kb", 1.5), 1500), (("--bpp", 0.03), 1474)]:
        done = dlf_command("encode", "a.png", "--overwrite", *options)
        assert done.code == 0, done.err
        assert fits((tmp_path / "a.dlf").stat().st_size, most)


def test_command_says_what_can_be_had(dlf_command: Dlf, tmp_path: Path) -> None:
    done = dlf_command("encode", "a.png", "--bytes", 20)
    assert done.code == 1
    assert "the smallest has" in done.err
    assert "--best" in done.err
    assert not (tmp_path / "a.dlf").exists()
    assert dlf_command("encode", "a.png", "--bytes", 20, "--best").code == 0
    size = (tmp_path / "a.dlf").stat().st_size
    assert f"has {size:,}" in done.err


@pytest.mark.parametrize(
    "options",
    [
        ("-q", 50, "--bytes", 900), ("--bytes", 900, "--kb", 0.9), ("--kb", 0.9, "--bpp", 0.1), ("--best",),
        ("-q", 50, "--best"), ("--bytes", 11), ("--bytes", -5), ("--bytes", "many"), ("--kb", 0.001),
        ("--kb", "nan"), ("--kb", "inf"), ("--bpp", 0), ("--bpp", "nan"), ("--bpp", 25),
    ],
)  # fmt: skip
def test_command_refuses_what_makes_no_sense(
    options: tuple[object, ...], dlf_command: Dlf, tmp_path: Path
) -> None:
    done = dlf_command("encode", "a.png", *options)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert not (tmp_path / "a.dlf").exists()


@needs_models
@pytest.mark.usefixtures("package_model")
@pytest.mark.parametrize("target", [300, 900, 2400])
def test_shipped_model_hits_a_size(target: int) -> None:
    data = dlf.encode(ASTRONAUT, max_bytes=target)
    assert fits(len(data), target)
    assert dlf.info(data).checked


@needs_models
@pytest.mark.usefixtures("package_model")
def test_pillow_saves_to_a_size(tmp_path: Path) -> None:
    with Image.open(ASTRONAUT) as image:
        image.save(tmp_path / "a.dlf", bytes=700)
        image.save(tmp_path / "b.dlf", bpp=0.02)
        with pytest.raises(ValueError, match="the smallest has"):
            image.save(tmp_path / "c.dlf", bytes=20)
        pixels = image.width * image.height
    assert fits((tmp_path / "a.dlf").stat().st_size, 700)
    assert fits((tmp_path / "b.dlf").stat().st_size, int(0.02 * pixels / 8))
    assert not (tmp_path / "c.dlf").exists()
