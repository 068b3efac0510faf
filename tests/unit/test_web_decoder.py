"""The decoder in JavaScript, run by Node: symbols and pictures are those of Python."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf.bitstream import container
from dlf.bitstream.container import Stream
from dlf.codec import bundle, tiling
from dlf.codec.bundle import ModelBundle
from dlf.codec.detail import Receiver
from dlf.entropy.coder import Exchanged, SymbolReader, SymbolWriter
from dlf.errors import FormatError
from dlf.geometry import WINDOW_PIXELS, Plan, tile_spans, window_plan
from dlf.records import WHOLE, Float32, Int32, Place, UInt8
from shipped_models import NAMES
from web_decoder import Driver, make_site, receiver_of, sha

ROOT = Path(__file__).parents[2]
ASTRONAUT = ROOT / "tests" / "data" / "astronaut.jpg"
KODAK = ROOT.parent / "shared" / "data" / "kodak"
GOLDEN = ROOT / "tests" / "golden"
NEAR = 2  # grey levels between the pictures of two machines


@lru_cache
def codec_of(folder: Path) -> dlf.Codec:
    return dlf.Codec(folder, threads=2)


def symbols(stream: Stream, model: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What Python reads from a stream: tokens, details as int32 in the order of the walk, and the latent."""
    details: list[Int32] = []

    def exchange(self: Receiver, *given: Any) -> Exchanged:
        exchanged = original(self, *given)
        details.append(exchanged.symbols)
        return exchanged

    original = Receiver.exchange
    with monkeypatch.context() as patch:
        patch.setattr(Receiver, "exchange", exchange)
        found = receiver_of(model.folder).receive(stream)
    assert {array.dtype.str for array in (found.tokens, *details)} == {"<i4"}
    return {"tokens": sha(found.tokens), "details": sha(*details), "yHat": sha(found.y_hat)}


def check_symbols(driver: Driver, data: bytes, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    stream = container.load(data)
    model = next(
        found for found in bundle.installed()
        if found.manifest.id == stream.header.model and container.fits(stream, found.manifest.numerics)
    )  # fmt: skip
    wanted = symbols(stream, model, monkeypatch)
    answer = driver.ask("receive", bytes=data)
    assert "error" not in answer, answer
    assert {name: answer[name] for name in wanted} == wanted
    return answer


def astronaut(width: int, height: int) -> Image.Image:
    with Image.open(ASTRONAUT) as image:
        return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("name", [path.name for path in sorted(GOLDEN.glob("*-v*.dlf"))])
def test_golden_streams(name: str, driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = (GOLDEN / name).read_bytes()
    answer = check_symbols(driver, data, monkeypatch)
    info = dlf.info(data, symbols=True)
    assert answer["info"]["tokenBits"] == pytest.approx(info.token_bits)
    assert answer["info"]["detailBits"] == pytest.approx(info.detail_bits)
    assert answer["info"]["modelName"] == info.model_name
    painted = driver.decode(data, tmp_path)
    assert (painted.rgba[..., 3] == 255).all()
    assert painted.tiles == []
    wanted = np.asarray(codec_of(bundle.find(info.model).folder).decode(data), int)
    assert np.abs(painted.rgb - wanted).max() <= NEAR


@pytest.mark.parametrize("quality", [0, 50, 100])
@pytest.mark.parametrize("model", NAMES)
def test_photo(model: str, quality: int, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    data = codec_of(bundle.ASSETS / model).encode(astronaut(300, 420), quality)
    check_symbols(driver, data, monkeypatch)


@pytest.mark.parametrize("size", [(1, 1), (5, 33), (33, 257)])
def test_odd_sizes(
    size: tuple[int, int], driver: Driver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    codec = codec_of(bundle.find().folder)
    data = codec.encode(astronaut(*size), 60)
    check_symbols(driver, data, monkeypatch)
    wanted = np.asarray(codec.decode(data), int)
    assert np.abs(driver.decode(data, tmp_path).rgb - wanted).max() <= NEAR


@pytest.mark.slow
@pytest.mark.parametrize("model", NAMES)
def test_photo_in_tiles(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Longer than one tile, so that prior and synthesis run in parts; here in the same as the browser's.

    On a site of its own, for of models for the same streams only one is on a site.
    """
    monkeypatch.setattr(tiling, "HALO", WINDOW_PIXELS)
    codec = codec_of(bundle.ASSETS / model)
    data = codec.encode(astronaut(1700, 200), 40)
    make_site(tmp_path / "site", [ModelBundle.open(bundle.ASSETS / model)])
    driver = Driver(tmp_path / "site")
    check_symbols(driver, data, monkeypatch)
    wanted = np.asarray(codec.decode(data), int)
    painted = driver.decode(data, tmp_path)
    driver.close()
    assert np.abs(painted.rgb - wanted).max() <= NEAR
    assert painted.tiles == [(0, 0, 200, 1024, 4 * 200 * 1024), (0, 512, 200, 1188, 4 * 200 * 1188)]


@pytest.mark.slow
@pytest.mark.parametrize("model", NAMES)
def test_kodak(model: str, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pictures at three rates; each is analysed once, for the symbols are the same to a decoder."""
    pictures = sorted(KODAK.glob("*.png"))
    if len(pictures) != 24:
        pytest.skip("the Kodak pictures are not at hand")
    codec = receiver_of(bundle.ASSETS / model)
    for picture in pictures:
        with Image.open(picture) as image:
            rgb = np.asarray(image.convert("RGB"))
        latents = codec.analyse(rgb, 50)
        for quality in (0, 50, 100):
            stream = codec.write(latents, codec.header(rgb, quality))
            check_symbols(driver, container.dump(stream), monkeypatch)


@pytest.mark.parametrize("model", NAMES)
def test_packets(model: str, driver: Driver) -> None:
    """Files for lossy links: the parts put together, and what is refused of them."""
    resilient = pytest.importorskip("dlf.codec.resilient")
    packets = pytest.importorskip("dlf.bitstream.packets")
    codec = receiver_of(bundle.ASSETS / model)
    data = resilient.encode(codec, np.asarray(astronaut(600, 800)), 40, 200)
    found = packets.load(data)
    assert len(found) > 4
    wanted = resilient.receive(codec, resilient.check(codec, found)).received
    answer = driver.ask("receive", bytes=data)
    assert (answer["tokens"], answer["yHat"]) == (sha(wanted.tokens), sha(wanted.y_hat))
    assert answer["info"]["detailBits"] == pytest.approx(wanted.detail_bits)
    assert answer["info"]["tokenBits"] == pytest.approx(wanted.token_bits)
    each = [packet.data for packet in found]
    damaged = bytearray(data)
    damaged[-6] ^= 1
    for refused, name in [
        (bytes(damaged), "checksum"),
        (data[:-1], "format"),
        (data + b"D", "format"),
        (b"".join(each[1:]), "format"),
        (b"".join(each[:-1]), "format"),
        (b"".join([each[1], each[0], *each[2:]]), "format"),
        (b"".join([*each[:2], *each[1:]]), "format"),
        (b"".join([each[0].replace(b"DLF\x12", b"DLF\x13")]), "version"),
    ]:
        assert driver.ask("receive", bytes=refused).get("error") == name


# ---- parts


@pytest.mark.parametrize("seed", range(6))
def test_range_decoder(seed: int, driver: Driver) -> None:
    """Symbols, and what is canonical: Python and JavaScript accept and refuse the same payloads."""
    random = np.random.default_rng(seed)
    writer, parts, written = SymbolWriter(), [], []
    for _ in range(int(random.integers(1, 12))):
        size = int(random.integers(2, 300))
        weights = random.exponential(size=size) ** 6
        frequency = 1 + np.floor(weights / weights.sum() * (2**16 - size)).astype(np.uint32)
        frequency[-1] += 2**16 - frequency.sum()
        chosen = random.choice(size, int(random.integers(1, 9)), p=frequency / 2**16).astype(np.int32)
        parts.append((frequency, len(chosen)))
        written.append(writer.exchange(chosen, frequency).tolist())
    payload = writer.finish()
    sent = [(frequency.tolist(), count) for frequency, count in parts]
    answer = driver.ask("range", payload=payload, parts=sent)
    assert answer["symbols"] == written
    assert answer["bits"] == pytest.approx(writer.bits)
    number = int.from_bytes(payload, "big")
    near = [(number + step) % 256 ** len(payload) for step in (-300, -2, -1, 1, 2, 300)]
    others = [value.to_bytes(len(payload), "big") for value in near if value >= 0]
    others += [
        payload + b"\0",
        payload + b"\1",
        payload + bytes(9),
        payload[:-1],
        payload[1:],
        b"",
        b"\xff" * 9,
    ]
    for other in others:
        reader = SymbolReader(other)
        try:
            wanted = [
                reader.exchange(np.zeros(count, np.int32), frequency).tolist() for frequency, count in parts
            ]
            reader.finish()
        except FormatError:
            wanted = None
        assert driver.ask("range", payload=other, parts=sent).get("symbols") == wanted


@pytest.mark.parametrize(
    ("rows", "cols", "window", "shift"),
    [
        (2, 2, 16, 0),
        (16, 16, 16, 0),
        (20, 34, 16, 0),
        (20, 34, 8, 4),
        (6, 34, 8, 4),
        (8, 8, 8, 4),
        (7, 9, 8, 4),
    ],
)  # fmt: skip
def test_index_maps(rows: int, cols: int, window: int, shift: int, driver: Driver) -> None:
    wanted = window_plan(rows, cols, window, shift)
    answer = driver.ask("plan", rows=rows, cols=cols, window=window, shift=shift)
    for name in ("gather", "region", "slot", "scatter"):
        found = np.array(answer[name]["data"]).reshape(answer[name]["dims"])
        np.testing.assert_array_equal(found, getattr(wanted, name))


@pytest.mark.parametrize(
    ("height", "width", "unit"), [(1, 1, 32), (300, 700, 32), (513, 100, 64), (256, 512, 512)]
)
def test_counts_of_tokens(height: int, width: int, unit: int, driver: Driver) -> None:
    plan = Plan(height, width, unit)
    answer = driver.ask("counts", height=height, width=width, unit=unit, tokens=23)
    assert answer == {"cells": list(plan.cells), "counts": plan.token_counts(23).tolist()}


class Painter:
    """The stand-in of tests/web/driver.mjs for a synthesis network."""

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        assert place.corner == (0, 0)
        rows, cols = y_hat.shape[1:]
        y, x = np.mgrid[: 32 * rows, : 32 * cols]
        token = tokens[(y >> 8) * -(-cols // 8) + (x >> 8), 0]
        cell = y_hat[:, y >> 5, x >> 5].transpose(1, 2, 0).astype(int)
        return (cell + (7 * token + 3 * y + x)[..., None]).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(100, 1536), (1600, 1700), (64, 3100)])
def test_tiles(height: int, width: int, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser's tiles see whole windows around them, so that each starts at a window."""
    monkeypatch.setattr(tiling, "HALO", WINDOW_PIXELS)
    plan = Plan(height, width)
    windows, cells = plan.windows[0] * plan.windows[1], plan.cells[0] * plan.cells[1]
    tokens = (np.arange(2 * windows, dtype=np.int32) ** 2 % 11).reshape(windows, 2)
    y_hat = (np.arange(3 * cells) * 37 % 251).astype(np.float32).reshape(3, *plan.cells)
    wanted = tiling.synthesise(Painter(), plan, tokens, y_hat, 50)  # type: ignore[arg-type]
    answer = driver.ask("tiles", height=height, width=width, channels=3)
    assert answer["dims"] == list(plan.padded)
    assert answer["sha"] == sha(wanted)
    seen = [[span.seen for span in tile_spans(size, tiling.CORE, tiling.HALO)] for size in plan.padded]
    assert answer["places"] == [[y, x, y2 - y, x2 - x] for y, y2 in seen[0] for x, x2 in seen[1]]


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 1000])
def test_hash(size: int, driver: Driver) -> None:
    data = bytes(i * 7 % 251 for i in range(size))
    wanted = hashlib.sha256(data).hexdigest()
    assert driver.ask("sha256", bytes=data) == {"own": wanted, "browser": wanted}
