"""An encoder that searches: the search with judges made up, then with the gradients of small models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dlf
from cli_run import Done, runner
from conftest import CHANNELS, SKIPPED, write_bundle
from dlf.bitstream import container
from dlf.codec.budget import encode_set
from dlf.codec.codec import StreamCodec
from dlf.codec.effort import (
    BIT_WEIGHT,
    EFFORTS,
    STEPS,
    Effort,
    Judge,
    Judged,
    Search,
    bit_slopes,
    check_effort,
)
from dlf.codec.quality_shift import ShiftedLatents
from dlf.codec.rate_search import LEAST, Target, encode_to_size
from dlf.codec.resilient import encode as encode_packets
from dlf.entropy.tables import Tables
from dlf.errors import EngineError, InvalidArgument, MissingExtra, TimeExceeded
from dlf.geometry import Plan
from dlf.records import Float32, Int32, Latents, UInt8

Picture = Callable[[int, int], UInt8]


@dataclass(frozen=True)
class Wish:
    """A judge that wants every value of the latent a little larger."""

    wanted: Float32
    weight: float = 100.0

    def __call__(self, y_hat: Float32) -> Judged:
        lack = y_hat - self.wanted
        scale = self.weight / lack.size
        return Judged(scale * float(np.square(lack).sum()), (2 * scale * lack).astype(np.float32))


class Wishes:
    """Makes such judges; counts them."""

    def __init__(self, codec: StreamCodec) -> None:
        self._codec, self.made = codec, 0

    def of(self, plan: Plan, rgb: UInt8, sent: Int32, quality: int, check: object = None) -> Judge:
        self.made += 1
        return Wish(self._codec.analyse(rgb, quality).y + np.float32(0.8))


@pytest.fixture
def searching(codec: StreamCodec) -> StreamCodec:
    return codec.searching(Effort(Search(8, path=0.8), Wishes(codec)))


def test_judges_are_told_of_a_limit_of_time(codec: StreamCodec, picture: Picture) -> None:
    checks: list[object] = []

    class Asked(Wishes):
        def of(self, *arguments: Any) -> Judge:
            checks.append(arguments[-1])
            return super().of(*arguments)

    searching = codec.searching(Effort(Search(1), Asked(codec)))
    searching.encode_rgb(picture(64, 64), 50)
    searching.within(60).encode_rgb(picture(64, 64), 50)
    assert checks[0] is None
    assert callable(checks[1])


def test_slopes_are_means_of_both_neighbours(tables: Tables) -> None:
    limit = tables.limit
    bits = 16 - np.log2(tables.gaussian_frequency.astype(float))
    symbols = np.array([0, 1, -1, limit, 10 * limit], np.int32)
    index = np.array([3, 3, 3, 3, 0], np.int16)
    zero, one, minus, last, unsent = bit_slopes(symbols, index, tables)
    assert unsent == 0
    assert one == pytest.approx((bits[3, limit + 2] - bits[3, limit]) / 2)
    assert one > 0 > minus
    assert abs(zero) < abs(one)
    assert last == pytest.approx(bits[3, 2 * limit] - bits[3, 2 * limit - 1])


def test_rounding_is_what_is_written(codec: StreamCodec, picture: Picture) -> None:
    rgb = picture(300, 500)
    header, latents = codec.header(rgb, 60), codec.analyse(rgb, 60)
    sent = codec.sent_tokens(latents.tokens, header)
    rounded = codec.rounding(sent, header)(latents.y)
    received = codec.receive(codec.write(latents, header))
    np.testing.assert_array_equal(sent, received.tokens)
    np.testing.assert_array_equal(rounded.y_hat, received.y_hat)
    assert rounded.bits == pytest.approx(received.detail_bits)
    assert rounded.step.shape == rounded.sent.shape == rounded.bit_slope.shape == latents.y.shape
    assert not rounded.sent[SKIPPED].any()
    assert rounded.sent[:SKIPPED].any()
    assert not rounded.bit_slope[~rounded.sent].any()


def test_search_lowers_distance_and_bits_together(codec: StreamCodec, picture: Picture) -> None:
    rgb = picture(256, 256)
    header, latents = codec.header(rgb, 60), codec.analyse(rgb, 60)
    rounded = codec.rounding(codec.sent_tokens(latents.tokens, header), header)
    judge = Wish(latents.y + np.float32(0.8))
    plain = rounded(latents.y)

    def cost(y: Float32) -> float:
        now = rounded(y)
        return judge(now.y_hat).distance + BIT_WEIGHT * now.bits / plain.bits

    found = Search(12, path=1.2)(latents.y, rounded, judge)
    assert found.dtype == np.float32
    assert cost(found) < 0.9 * cost(latents.y)
    assert not np.array_equal(found, latents.y)
    np.testing.assert_array_equal(found[SKIPPED], latents.y[SKIPPED])  # what is not sent is left alone


def test_search_keeps_what_nothing_beats(codec: StreamCodec, picture: Picture) -> None:
    rgb = picture(64, 96)
    header, latents = codec.header(rgb, 60), codec.analyse(rgb, 60)
    rounded = codec.rounding(codec.sent_tokens(latents.tokens, header), header)
    judge = Wish(rounded(latents.y).y_hat, weight=1e6)
    found = Search(3, path=1.5)(latents.y, rounded, judge)
    np.testing.assert_allclose(found, latents.y, rtol=1e-6)


def test_files_are_ordinary(codec: StreamCodec, searching: StreamCodec, picture: Picture) -> None:
    rgb = picture(300, 400)
    stream, again = (searching.encode_rgb(rgb, 60) for _ in range(2))
    assert stream == again
    assert stream != codec.encode_rgb(rgb, 60)
    wish = codec.analyse(rgb, 60).y + np.float32(0.8)
    near, plain = (codec.receive(each).y_hat - wish for each in (stream, codec.encode_rgb(rgb, 60)))
    assert np.square(near).mean() < np.square(plain).mean()


def test_region_of_interest(codec: StreamCodec, searching: StreamCodec, picture: Picture) -> None:
    rgb = picture(256, 256)
    mask = np.zeros((256, 256), np.uint8)
    mask[:64, :64] = 255
    spared, whole = searching.encode_rgb(rgb, 60, importance=mask), searching.encode_rgb(rgb, 60)
    assert len(container.dump(spared)) < len(container.dump(whole))
    assert codec.receive(spared).y_hat.shape == (CHANNELS, 8, 8)


@pytest.mark.parametrize("side", [100, 400])  # smaller and larger than what is analysed in little
@pytest.mark.parametrize("share", [0.7, 1.1])
def test_size(side: int, share: float, codec: StreamCodec, searching: StreamCodec, picture: Picture) -> None:
    rgb = picture(side, side)
    target = round(share * len(container.dump(codec.encode_rgb(rgb, 50))))
    size = len(container.dump(encode_to_size(searching, rgb, Target(target), best=True)))
    assert LEAST * target - 2 <= size <= target
    assert searching.effort is not None
    assert isinstance(searching.effort.judges, Wishes)
    assert searching.effort.judges.made == 1


def test_moved_latents_move_at_all_qualities(codec: StreamCodec, picture: Picture) -> None:
    rgb = picture(400, 400)
    plain, shifted = ShiftedLatents(codec, rgb), ShiftedLatents(codec, rgb)
    latents = shifted.at(50)
    shifted.move(50, Latents(latents.tokens, latents.y + 1))
    plain.at(50)
    for quality in (50, 53, 90):
        np.testing.assert_allclose(shifted.at(quality).y, plain.at(quality).y + 1, atol=1e-5)


def test_set(codec: StreamCodec, searching: StreamCodec, picture: Picture) -> None:
    images = [picture(200 + 40 * place, 300) for place in range(5)]
    total = sum(len(container.dump(codec.encode_rgb(rgb, 55))) for rgb in images)
    files = encode_set(searching, [lambda rgb=rgb: (rgb, b"") for rgb in images], total)
    assert LEAST * total <= sum(map(len, files)) <= total


def test_packets(codec: StreamCodec, searching: StreamCodec, picture: Picture) -> None:
    rgb = picture(300, 600)
    assert encode_packets(searching, rgb, 50) != encode_packets(codec, rgb, 50)


@pytest.mark.parametrize("effort", [-1, 1, 10, 90])
def test_no_such_effort(effort: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"the effort is {effort}, but must be one of 0, 3, 9"):
        check_effort(effort)


def test_more_effort_is_more_steps() -> None:
    assert list(STEPS) == sorted(STEPS)
    assert list(STEPS.values()) == sorted(set(STEPS.values()))
    assert STEPS[0] == 0


@pytest.fixture(name="command")
def command_fixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Done]:
    model = write_bundle(tmp_path / "mock-model")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    return runner(monkeypatch, capfdbinary, tmp_path, model)


class TestCommand:
    def test_says_which_extra_it_needs(
        self, command: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        done = command("encode", "a.png", "--effort", 3)
        assert done.code != 0
        assert done.err.count("\n") == 1
        assert "torch is not installed; run: pip install 'dlf-codec[torch]'" in done.err
        assert not (tmp_path / "a.dlf").exists()
        with pytest.raises(MissingExtra, match=r"dlf-codec\[torch\]"):
            dlf.Codec(tmp_path / "mock-model").encode(tmp_path / "a.png", effort=3)

    def test_zero_needs_nothing(self, command: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        assert command("encode", "a.png", "--effort", 0).code == 0

    def test_unknown_level(self, command: Callable[..., Done]) -> None:
        done = command("encode", "a.png", "--effort", 4)
        assert done.code == 2
        assert "--effort" in done.err

    def test_names_are_those_of_the_codec(self) -> None:
        from dlf.cli import options

        assert tuple(map(str, EFFORTS)) == options.EFFORTS


@pytest.mark.torch
class TestGradients:
    @pytest.fixture(params=["tiny_bundle", "tiny_v2_bundle"])
    def folder(self, request: pytest.FixtureRequest) -> Path:
        folder: Path = request.getfixturevalue(request.param)
        return folder

    @pytest.mark.parametrize(("height", "width"), [(32, 64), (288, 320)])
    def test_graphs_say_what_onnx_runtime_says(
        self, height: int, width: int, folder: Path, picture: Picture
    ) -> None:
        import torch

        from dlf.codec.bundle import ModelBundle
        from dlf.codec.onnx_backend import OnnxBackend
        from dlf.refine.graph import TorchGraph

        bundle = ModelBundle.open(folder)
        backend = OnnxBackend(bundle, bundle.tables(), threads=1)
        given: dict[str, dict[str, torch.Tensor]] = {}
        backend.watch = lambda name, feeds: given.update(
            {name: {key: torch.from_numpy(feed.copy()) for key, feed in feeds.items()}}
        )
        rgb = picture(height, width)
        latents = backend.analyse(rgb, 70)
        painted = backend.synthesise(latents.tokens, latents.y, 70)
        pixels = given["analysis"].pop("rgb").float()
        analysis = TorchGraph(bundle.read("analysis.onnx")).bind(("y",), **given["analysis"])
        (y,) = analysis(rgb=pixels)
        np.testing.assert_allclose(y.reshape(latents.y.shape), latents.y, atol=1e-4 * np.abs(latents.y).max())
        y_hat = given["synthesis"].pop("y_hat").requires_grad_(True)
        (image,) = TorchGraph(bundle.read("synthesis.onnx")).bind(("rgb",), **given["synthesis"])(y_hat=y_hat)
        assert np.abs(image.detach().numpy() - painted).max() <= 1
        image.mean().backward()
        assert y_hat.grad is not None
        assert y_hat.grad.abs().mean() > 0

    def test_the_time_is_looked_at_before_each_tile(self, folder: Path, picture: Picture) -> None:
        from dlf.codec.bundle import ModelBundle
        from dlf.codec.engine import EngineOptions, make_codec
        from dlf.refine.judge import Judging

        bundle = ModelBundle.open(folder)
        codec = make_codec(bundle, bundle.tables(), EngineOptions(threads=1))
        rgb, looks = picture(64, 700), 0

        def look() -> None:
            nonlocal looks
            looks += 1
            if looks > 3:
                raise TimeExceeded

        header, latents = codec.header(rgb, 50), codec.analyse(rgb, 50)
        sent = codec.sent_tokens(latents.tokens, header)
        judge = Judging(bundle, 1).of(codec.plan(header), rgb, sent, 50, look)
        assert looks == 2
        with pytest.raises(TimeExceeded):
            judge(latents.y)

    def test_slopes_lead_down(self, folder: Path, picture: Picture) -> None:
        from dlf.codec.bundle import ModelBundle
        from dlf.codec.engine import EngineOptions, make_codec
        from dlf.refine.judge import Judging

        bundle = ModelBundle.open(folder)
        codec = make_codec(bundle, bundle.tables(), EngineOptions(threads=1))
        rgb = picture(96, 128)
        latents, header = codec.analyse(rgb, 50), codec.header(rgb, 50)
        sent = codec.sent_tokens(latents.tokens, header)
        judge = Judging(bundle, 1).of(codec.plan(header), rgb, sent, 50)
        before = judge(latents.y)
        ahead = before.slope / np.abs(before.slope).max()
        distances = [judge(latents.y - np.float32(step) * ahead).distance for step in (-0.3, 0.3)]
        assert distances[0] > before.distance > distances[1]

    def test_tiles_join(self, folder: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
        from dlf.codec.bundle import ModelBundle
        from dlf.codec.engine import EngineOptions, make_codec
        from dlf.refine import judge as judging

        bundle = ModelBundle.open(folder)
        codec = make_codec(bundle, bundle.tables(), EngineOptions(threads=1))
        rgb = picture(280, 700)
        latents, header = codec.analyse(rgb, 50), codec.header(rgb, 50)
        sent = codec.sent_tokens(latents.tokens, header)
        found = []
        for core in (1024, 256):
            monkeypatch.setattr(judging, "CORE", core)
            found.append(judging.Judging(bundle, 1).of(codec.plan(header), rgb, sent, 50)(latents.y))
        whole, tiled = found
        assert tiled.distance == pytest.approx(whole.distance, rel=0.2)
        assert np.corrcoef(tiled.slope.ravel(), whole.slope.ravel())[0, 1] > 0.8

    def test_encode(self, folder: Path, picture: Picture) -> None:
        codec, rgb = dlf.Codec(folder, threads=1), picture(100, 130)
        plain, first, second = (codec.encode(rgb, 60, effort=effort) for effort in (0, 3, 3))
        assert first == second != plain
        assert codec.decode(first).size == (130, 100)
        assert list(codec.encode_many([rgb], 60, effort=3)) == [first]
        assert len(codec.encode(rgb, max_bytes=len(plain), best=True, effort=3)) <= len(plain)

    def test_model_of_torch_alone(self, tmp_path: Path) -> None:
        from dlf.codec.bundle import ModelBundle
        from dlf.refine.judge import Judging

        bundle = ModelBundle.open(write_bundle(tmp_path / "model"))
        object.__setattr__(bundle.manifest, "engine", "torch")
        with pytest.raises(EngineError, match="the model 'mock' cannot be searched with"):
            Judging(bundle, None)
