"""The codec core with a stand-in for the networks: round trips, tiles, damage, golden bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dlf.bitstream import container
from dlf.bitstream.header import Header
from dlf.codec import tiling
from dlf.codec.backend import Backend
from dlf.codec.bundle import Manifest
from dlf.codec.codec import StreamCodec
from dlf.codec.deadline import TimedBackend
from dlf.codec.detail import Receiver, Sender, walk
from dlf.codec.semantic import NOT_SENT
from dlf.entropy.coder import SymbolReader, SymbolWriter
from dlf.entropy.tables import Tables
from dlf.errors import BundleError, ChecksumError, DlfError, FormatError
from dlf.geometry import Plan
from dlf.records import WHOLE, Float32, Int32, Latents, Place, UInt8

Picture = Callable[[int, int], UInt8]
SIZES = [(1, 1), (1, 5), (16, 16), (31, 33), (255, 257), (512, 768), (1100, 1700)]


@pytest.mark.parametrize("quality", [0, 50, 100])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_round_trip(
    height: int,
    width: int,
    quality: int,
    codec: StreamCodec,
    backend: Backend,
    tables: Tables,
    picture: Picture,
) -> None:
    rgb = picture(height, width)
    stream = codec.encode_rgb(rgb, quality)
    again = container.load(container.dump(stream))
    assert again == stream
    decoded = codec.decode_stream(again)
    assert decoded.shape == rgb.shape
    assert decoded.dtype == np.uint8

    plan = Plan(height, width)
    latents = tiling.analyse(backend, plan, plan.pad(rgb), quality)
    received = codec.receive(again)
    counts = plan.token_counts(int(tables.token_count[quality]))
    sent = np.arange(tables.tokens) < counts[:, None]
    np.testing.assert_array_equal(received.tokens, np.where(sent, latents.tokens, NOT_SENT))
    step = backend.prior(*plan.cells, quality, received.tokens).step / tables.step_unit
    error = np.abs(received.y_hat - latents.y) / step
    assert error[:7].max() <= 0.5 + 1e-4
    assert np.abs(received.y_hat[7]).max() <= 8  # the channel that is not sent keeps its means
    bits = received.token_bits + received.detail_bits
    assert len(stream.payload) <= bits / 8 + 2


def test_size_grows_with_quality(codec: StreamCodec, picture: Picture) -> None:
    sizes = [len(codec.encode_rgb(picture(255, 257), quality).payload) for quality in range(0, 101, 20)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]


@pytest.mark.parametrize("seed", range(5))
def test_both_sides_know_the_same(seed: int, backend: Backend, tables: Tables) -> None:
    rng = np.random.default_rng(seed)
    grid = tuple(rng.integers(1, 9, 2).tolist())
    y = (rng.standard_t(2, (8, *grid)) * 4).astype(np.float32)
    writer = SymbolWriter()
    prior = backend.prior(*grid, 70, np.zeros((4, tables.tokens), np.int32))
    sent = walk(backend, tables, prior, Sender(y, writer, tables))
    assert sent.bits.sum() == pytest.approx(writer.bits)
    reader = SymbolReader(writer.finish())
    found = walk(backend, tables, prior, Receiver(reader, tables))
    reader.finish()
    np.testing.assert_array_equal(sent.y_hat, found.y_hat)
    np.testing.assert_array_equal(sent.bits, found.bits)
    units = sent.y_hat.astype(np.float64) / prior.step * tables.step_unit * tables.mean_unit
    np.testing.assert_allclose(units, np.rint(units), atol=1e-2)


def test_an_analysis_that_is_not_finite_is_refused(tables: Tables) -> None:
    with pytest.raises(BundleError, match="finite"):
        Sender(np.full((8, 1, 1), np.nan, np.float32), SymbolWriter(), tables)


@pytest.mark.parametrize(
    ("height", "width", "unit"),
    [
        (32, 1184, 32),
        (1200, 1300, 32),
        (2592, 64, 32),
        (3000, 40, 32),
        (1153, 33, 32),
        (1281, 70, 64),
        (2049, 5, 512),
    ],
)
def test_tiles_change_nothing_where_the_networks_are_local(
    height: int, width: int, unit: int, backend: Backend, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(height, width, unit)
    rgb = picture(height, width)
    tiled = tiling.analyse(backend, plan, rgb, 60)
    painted = tiling.synthesise(backend, plan, tiled.tokens, tiled.y, 60)
    monkeypatch.setattr(tiling, "CORE", 1 << 20)
    whole = tiling.analyse(backend, plan, rgb, 60)
    np.testing.assert_array_equal(tiled.tokens, whole.tokens)
    np.testing.assert_array_equal(tiled.y, whole.y)
    np.testing.assert_array_equal(painted, tiling.synthesise(backend, plan, whole.tokens, whole.y, 60))


class Shades(Backend):
    """Paints every tile in one grey, each lighter than the last."""

    shade = -50

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        self.shade += 50
        return np.full((y_hat.shape[1] * 32, y_hat.shape[2] * 32, 3), self.shade, np.uint8)


def test_tiles_fade_into_each_other() -> None:
    plan = Plan(32, 2080)  # cores of 768 pixels, and 544
    tokens = np.zeros((plan.windows[1], 6), np.int32)
    painted = tiling.synthesise(Shades(), plan, tokens, np.zeros((8, *plan.cells), np.float32), 50)
    line = painted[0, :, 0].astype(int)
    assert painted.shape == (32, 2080, 3)
    assert (painted == painted[:1, :, :1]).all()
    assert set(np.diff(line)) == {0, 1}
    assert [line[at] for at in (0, 735, 800, 1503, 1568, 2079)] == [0, 0, 50, 50, 100, 100]
    assert line[767] <= 25 <= line[768]


def test_memory_of_tiles_is_bounded(picture: Picture) -> None:
    seen: list[tuple[int, int]] = []

    class Witness(Backend):
        def analyse(self, rgb: UInt8, quality: int, place: Place = WHOLE) -> Latents:
            plan = Plan(*rgb.shape[:2], corner=place.corner)
            seen.append(plan.padded)
            windows = plan.windows[0] * plan.windows[1]
            return Latents(np.zeros((windows, 6), np.int32), np.zeros((8, *plan.cells), np.float32))

    plan = Plan(2100, 4200)
    tiling.analyse(Witness(), plan, np.zeros((*plan.padded, 3), np.uint8), 50)
    assert max(max(size) for size in seen) <= 1024 + 2 * 64


def test_memory_is_given_back_after_the_last_tile(backend: Backend) -> None:
    class Witness(TimedBackend):
        analysed: tuple[bool | None, ...] = ()
        painted: tuple[bool | None, ...] = ()

        def analyse(self, *arguments: Any) -> Latents:
            self.analysed += (arguments[-1].more,)
            return super().analyse(*arguments)

        def synthesise(self, *arguments: Any) -> UInt8:
            self.painted += (arguments[-1].more,)
            return super().synthesise(*arguments)

    plan = Plan(1200, 1200)
    witness = Witness(backend, 60)
    latents = tiling.analyse(witness, plan, np.zeros((*plan.padded, 3), np.uint8), 50)
    tiling.synthesise(witness, plan, latents.tokens, latents.y, 50)
    assert witness.analysed == witness.painted == (True, True, True, False)


def test_golden_stream(
    codec: StreamCodec, picture: Picture, check_golden: Callable[[str, bytes], None]
) -> None:
    for quality in (0, 50, 100):
        data = container.dump(codec.encode_rgb(picture(270, 300), quality))
        check_golden(f"mock-q{quality}.dlf", data)


@pytest.fixture
def small(codec: StreamCodec, picture: Picture) -> bytes:
    return container.dump(codec.encode_rgb(picture(31, 33), 50))


def test_every_truncation_is_refused(small: bytes, codec: StreamCodec) -> None:
    for length in range(len(small)):
        with pytest.raises(FormatError):
            codec.receive(container.load(small[:length]))


def test_every_flipped_bit_is_refused(small: bytes, codec: StreamCodec) -> None:
    for bit in range(8 * len(small)):
        damaged = bytearray(small)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DlfError):
            codec.receive(container.load(bytes(damaged)))


@pytest.fixture
def survives(codec: StreamCodec, manifest: Manifest) -> Callable[[Header, bytes], bool]:
    """Whether a payload with a good checksum decodes; any other end than a FormatError fails the test."""

    def check(header: Header, payload: bytes) -> bool:
        try:
            decoded = codec.decode_stream(container.seal(header, payload, manifest.numerics))
        except ChecksumError:
            raise AssertionError from None
        except FormatError:
            return False
        assert decoded.shape == (header.height, header.width, 3)
        return True

    return check


def test_damage_behind_a_good_checksum_does_no_harm(
    small: bytes, survives: Callable[[Header, bytes], bool]
) -> None:
    stream = container.load(small)
    header, whole = stream.header, stream.payload
    assert survives(header, whole)
    for end in range(len(whole)):  # what is left may be a payload of its own
        survives(header, whole[:end])
    for extra in (b"\0", b"\xff", bytes(1000), b"\xff" * 1000):
        assert not survives(header, whole + extra)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        survives(header, bytes(damaged))


@pytest.mark.parametrize("change", [{"width": 2000}, {"height": 1}, {"quality": 100}, {"quality": 0}])
def test_a_wrong_header_behind_a_good_checksum_does_no_harm(
    change: dict[str, int], small: bytes, survives: Callable[[Header, bytes], bool]
) -> None:
    stream = container.load(small)
    survives(replace(stream.header, **change), stream.payload)


def test_a_stream_of_another_model_is_refused(
    small: bytes, manifest: Manifest, tables: Tables, backend: Backend
) -> None:
    stream = container.load(small)
    for other in (replace(stream, checksum=stream.checksum ^ 1), replace(stream, payload=b"")):
        with pytest.raises(ChecksumError, match="another model of the same number"):
            StreamCodec(manifest, tables, backend).receive(other)
    header = replace(stream.header, model=manifest.id + 1)
    with pytest.raises(ChecksumError):
        StreamCodec(manifest, tables, backend).receive(
            container.seal(header, stream.payload, manifest.numerics)
        )


@pytest.mark.parametrize("quality", [-1, 101])
def test_quality_has_a_range(quality: int, codec: StreamCodec, picture: Picture) -> None:
    with pytest.raises(FormatError, match="quality"):
        codec.encode_rgb(picture(8, 8), quality)
