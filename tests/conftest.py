"""Shared fixtures: a deterministic stand-in for the networks, tables that fit it, bundles of it on disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from dlf.codec.bundle import FILES, GRAPHS, MANIFEST, NUMERICS, TABLES, Manifest, numerics_id
from dlf.codec.codec import StreamCodec
from dlf.entropy.tables import Tables, gaussian_frequencies
from dlf.geometry import CELL, WINDOW_PIXELS, Plan
from dlf.records import WHOLE, Float32, Int32, Latents, Place, Prior, StepParams, UInt8

if TYPE_CHECKING:  # both need this module
    from cli_run import Done
    from web_decoder import Driver

CHANNELS, TOKENS, CODES = 8, 6, 16
SKIPPED = 7  # a channel whose symbols are never sent
MODEL = 1
GOLDEN = Path(__file__).parent / "golden"

# before torch is there: each of several workers has a core, and two threads each only wait for one another
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# as a shell leaves it to what it runs in the background; programs that tests start inherit it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class MockBackend:
    """Integer arithmetic in the place of networks; every part depends on all that it is given."""

    def analyse(self, rgb: UInt8, quality: int, place: Place = WHOLE) -> Latents:
        corner = place.corner
        plan = Plan(*rgb.shape[:2], corner=corner)
        rows, cols = plan.cells
        cells = rgb.reshape(rows, CELL, cols, CELL, 3).astype(np.int64)
        mean = cells.sum((1, 3)) // CELL**2 - 128
        half = cells[:, : CELL // 2].sum((1, 3)) // (CELL**2 // 2) - 128
        features = np.concatenate([mean, half, half[..., :2] - mean[..., :2]], axis=2)
        y = (features * (quality + 10)).transpose(2, 0, 1) / 512
        down, across = plan.windows
        tokens = np.empty((down, across, TOKENS), np.int32)
        for i, j in np.ndindex(down, across):
            top, left = i * WINDOW_PIXELS - corner[0], j * WINDOW_PIXELS - corner[1]
            window = rgb[max(0, top) : top + WINDOW_PIXELS, max(0, left) : left + WINDOW_PIXELS]
            tokens[i, j] = (int(window.sum()) // 97 + np.arange(TOKENS) ** 2) % CODES
        return Latents(tokens.reshape(-1, TOKENS), y.astype(np.float32))

    def prior(self, rows: int, cols: int, quality: int, tokens: Int32) -> Prior:
        ramp = np.arange(CHANNELS)[:, None, None] * np.ones((1, rows, cols), np.int64)
        scale = np.where(ramp == SKIPPED, -1, ramp * 20 + quality)
        first = StepParams(scale.astype(np.int32), (ramp - 3).astype(np.int32))
        common = np.where(ramp == SKIPPED, -1000, ramp * 5 + quality // 4)
        return Prior(first, common.astype(np.float32), (48 + 2 * ramp).astype(np.int32))

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        assert y_hat.dtype == np.int32
        padded = np.pad(y_hat, ((0, 0), (1, 1), (1, 1)))
        around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
        scale = np.clip(np.abs(around) // 2 + common.astype(np.int32) + 20 * step, -50, 400)
        return StepParams(scale.astype(np.int32), (around // 8).astype(np.int32))

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        rows, cols = y_hat.shape[1:]
        corner = place.corner
        plan = Plan(rows * CELL, cols * CELL, corner=corner)
        colour = y_hat[:3].transpose(1, 2, 0) * (512 / (quality + 10)) + 128
        image = colour.repeat(CELL, 0).repeat(CELL, 1)
        shade = (tokens + 1).sum(1).reshape(plan.windows)
        shades = shade.repeat(WINDOW_PIXELS, 0).repeat(WINDOW_PIXELS, 1)[corner[0] :, corner[1] :]
        image += shades[: rows * CELL, : cols * CELL, None] % 3
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def picture(height: int, width: int) -> UInt8:
    """A picture that is the same everywhere and everywhere different."""
    y, x = np.mgrid[:height, :width]
    waves = [(x * x // 40 + y * 3) % 256, (y * y // 30 + x) % 256, (x * 5 // 4 + y * x // 50) % 256]
    return np.stack(waves, axis=2).astype(np.uint8)


def make_arrays() -> dict[str, NDArray[np.generic]]:
    """Arrays of tables.npz for the mock."""
    frequency = np.full((TOKENS, CODES), 2**16 // CODES, np.uint32)
    frequency[:, 0] += 1000
    frequency[:, 1] -= 1000
    quality = np.arange(101)
    return {
        "gaussian_frequency": gaussian_frequencies(np.geomspace(0.1, 20, 24), 15),
        "scale_bounds": np.arange(23, dtype=np.int32) * 12,
        "token_frequency": frequency,
        "token_count": (1 + quality * (TOKENS - 1) // 100).astype(np.uint8),
        "prior": np.stack([quality, quality // 2], axis=1).astype(np.int16),
    }


def to_npz(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def write_bundle(folder: Path, files: dict[str, bytes] | None = None, /, **changes: object) -> Path:
    """Write a bundle of the mock's sizes; `files` and `changes` replace contents and manifest values."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {name: name.encode() for name in GRAPHS} | {TABLES: to_npz(make_arrays())} | (files or {})
    hashes = {name: hashlib.sha256(contents[name]).hexdigest() for name in FILES}
    manifest = {
        "format": 1,
        "name": "mock",
        "id": MODEL,
        "numerics": hashlib.sha256("".join(hashes[name] for name in NUMERICS).encode()).hexdigest(),
        "files": hashes,
        "tokens": TOKENS,
        "codes": CODES,
        "channels": CHANNELS,
        "swin_window": 8,
        "default_quality": 50,
        "card": {"about": "nothing"},
    } | changes
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate-golden", action="store_true", help="rewrite the files in tests/golden")
    parser.addoption("--large", action="store_true", help="also test the model of 1.27 G parameters")


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    """Compare bytes with a file in tests/golden, or rewrite that file."""

    def check(name: str, data: bytes) -> None:
        if request.config.getoption("--regenerate-golden"):
            (GOLDEN / name).write_bytes(data)
        assert data == (GOLDEN / name).read_bytes()

    return check


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the smallest preset with random weights, exported from torch; skips without torch."""
    return _export("tiny", 100, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_v2_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of the preset whose tokens tell the details' prior what they know."""
    return _export("tiny-v2", 101, tmp_path_factory)


def _export(preset: str, number: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    from dlf.bundles.bundle_writer import BundleSpec
    from dlf.bundles.onnx_bundle import TokenUse, write_onnx_bundle
    from dlf.nn.build import PRESETS
    from dlf.nn.model import Dlf

    folder, config = tmp_path_factory.mktemp(preset), PRESETS[preset]
    counts = np.zeros((config.tokens.count, config.tokens.codes), np.int64)
    spec = BundleSpec(preset, number)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_onnx_bundle(Dlf(config).eval(), folder, spec, TokenUse(counts))
    return folder


@pytest.fixture
def arrays() -> dict[str, NDArray[np.generic]]:
    return make_arrays()


@pytest.fixture(scope="session")
def tables() -> Tables:
    return Tables.load(to_npz(make_arrays()))


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """Of a mock without files, so that its numerics are the same whatever numpy writes the tables."""
    files = {name: hashlib.sha256(name.encode()).hexdigest() for name in FILES}
    return Manifest(
        format=1, name="mock", id=MODEL, numerics=numerics_id(files), files=files, tokens=TOKENS, codes=CODES,
        channels=CHANNELS, swin_window=8, default_quality=50,
    )  # fmt: skip


@pytest.fixture
def backend() -> MockBackend:
    return MockBackend()


@pytest.fixture
def codec(manifest: Manifest, tables: Tables, backend: MockBackend) -> StreamCodec:
    return StreamCodec(manifest, tables, backend)


@pytest.fixture(name="picture")
def picture_fixture() -> Callable[[int, int], UInt8]:
    return picture


@pytest.fixture(name="write_bundle")
def write_bundle_fixture() -> Callable[..., Path]:
    return write_bundle


@pytest.fixture(name="to_npz")
def to_npz_fixture() -> Callable[[dict[str, NDArray[np.generic]]], bytes]:
    return to_npz


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, handlers put back, and code books that are seeded and revived within a few steps."""
    torch = pytest.importorskip("torch")
    from dlf.train import codec_stage, tokenizer_stage
    from dlf.train.codebooks import CodebookCare

    monkeypatch.setattr(tokenizer_stage, "CARE", CodebookCare(wait=2, vectors=45, patience=1))
    monkeypatch.setattr(codec_stage, "CARE", CodebookCare(wait=1, vectors=30, patience=1))
    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def mock_models(tmp_path: Path, backend: MockBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package has one model, in tmp_path/assets, and the user none; networks are the stand-in's."""
    from dlf import api
    from dlf.codec import bundle, onnx_backend

    write_bundle(tmp_path / "assets" / bundle.ROLES[bundle.DEFAULT])
    monkeypatch.setattr(bundle, "ASSETS", tmp_path / "assets")
    monkeypatch.setenv("DLF_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(onnx_backend, "OnnxBackend", lambda *_: backend)
    api._default_codec.cache_clear()
    yield
    api._default_codec.cache_clear()  # the next test's default is not this stand-in


@pytest.fixture
def package_model() -> None:
    """The codec of the package's functions is that of the package, whatever tests put in its place before."""
    from dlf import api

    api._default_codec.cache_clear()


@pytest.fixture
def dlf_beside(
    tmp_path: Path,
    write_bundle: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> Callable[..., Done]:
    """The command with a stand-in model, run in tmp_path, beside the model."""
    from cli_run import runner

    return runner(monkeypatch, capsysbinary, tmp_path, write_bundle(tmp_path / "model"))


@pytest.fixture
def dlf(
    tmp_path: Path, dlf_beside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """The command with a stand-in model, run in tmp_path/here, which holds nothing."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return dlf_beside


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """The browser's decoder in Node, with the models of the package."""
    from web_decoder import Driver, make_site

    folder = tmp_path_factory.mktemp("site")
    make_site(folder)
    running = Driver(folder)
    yield running
    running.close()
