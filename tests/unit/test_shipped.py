"""The model inside the package: real pictures, real files, exact symbols."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf.bitstream import container
from dlf.codec import bundle
from dlf.codec.codec import StreamCodec
from dlf.codec.detail import Sender, walk
from dlf.codec.onnx_backend import OnnxBackend
from dlf.codec.tiling import analyse, prior
from dlf.entropy.coder import SymbolWriter
from dlf.geometry import Plan
from shipped_models import DEFAULT, needs_models

ROOT = Path(__file__).parents[2]
ASTRONAUT = ROOT / "tests" / "data" / "astronaut.jpg"
KODAK = ROOT.parent / "shared" / "data" / "kodak"
GOLDEN = ROOT / "tests" / "golden"
MOST_BYTES = 40e6  # of all shipped models together, as a wheel holds them

pytestmark = needs_models


@pytest.fixture(scope="module")
def codec() -> dlf.Codec:
    return dlf.Codec(threads=2)


def astronaut(width: int, height: int) -> Image.Image:
    with Image.open(ASTRONAUT) as image:
        return image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def shipped() -> list[bundle.ModelBundle]:
    return [found for found in bundle.installed() if found.folder.parent == bundle.ASSETS]


def test_every_shipped_model_has_a_role_and_fits_the_others() -> None:
    folders = {path.name for path in bundle.ASSETS.iterdir() if path.is_dir()}
    assert folders == {found.folder.name for found in shipped()}
    assert folders <= set(bundle.ROLES.values())
    numerics: dict[int, str] = {}
    for found in shipped():
        for name in found.manifest.files:
            found.check(name)
        assert numerics.setdefault(found.manifest.id, found.manifest.numerics) == found.manifest.numerics


def test_the_shipped_models_are_small_together() -> None:
    size = sum(len(zlib.compress(path.read_bytes())) for path in bundle.ASSETS.rglob("*") if path.is_file())
    assert 1e6 < size < MOST_BYTES


def test_a_wheel_holds_every_shipped_model() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    packed = {Path(file.distribution_path) for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    for found in shipped():
        inside = Path("dlf", "assets", found.folder.name)
        assert {inside / name for name in (*found.manifest.files, bundle.MANIFEST)} <= packed


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (16, 16), (33, 31), (257, 255), (300, 200), (768, 512)])
def test_round_trip(codec: dlf.Codec, size: tuple[int, int]) -> None:
    data = codec.encode(astronaut(*size))
    assert codec.decode(data).size == size
    assert dlf.info(data).file_bytes == len(data)


def test_the_picture_comes_back(codec: dlf.Codec) -> None:
    """Blurred to 32 pixels a side the decoded picture is the original, in colour."""
    before = astronaut(512, 512)
    after = codec.decode(codec.encode(before, quality=60))
    small = [np.asarray(p.resize((32, 32), Image.Resampling.BOX), np.float64) for p in (before, after)]
    error = np.abs(small[0] - small[1]).mean((0, 1))
    flat = np.abs(small[0] - small[0].mean((0, 1))).mean((0, 1))
    assert (error < 0.4 * flat).all(), (error, flat)


def test_size_grows_with_quality(codec: dlf.Codec) -> None:
    sizes = [len(codec.encode(astronaut(512, 512), quality=q)) for q in (0, 25, 50, 75, 100)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]


def check_symbols(rgb: np.ndarray, quality: int, role: str | None = None) -> None:
    """What the sender walks through is what a receiver of its own reads from the file's bytes."""
    model = bundle.find(role)
    tables = model.tables()
    sending, receiving = (OnnxBackend(model, tables, threads) for threads in (2, 1))
    plan = Plan(*rgb.shape[:2])
    latents = analyse(sending, plan, plan.pad(rgb), quality)
    data = container.dump(StreamCodec(model.manifest, tables, sending).encode_rgb(rgb, quality))
    found = StreamCodec(model.manifest, tables, receiving).receive(container.load(data))
    told = prior(sending, tables, plan, found.tokens, quality)
    sent = walk(sending, tables, told, Sender(latents.y, SymbolWriter(), tables)).y_hat
    np.testing.assert_array_equal(found.y_hat, sent)
    counts = plan.token_counts(int(tables.token_count[quality]))
    for tokens, wanted, count in zip(found.tokens, latents.tokens, counts, strict=True):
        np.testing.assert_array_equal(tokens[:count], wanted[:count])
        assert (tokens[count:] == -1).all()
    info = dlf.info(data, symbols=True)
    assert info.file_bytes == len(data)
    assert info.token_bits == pytest.approx(found.token_bits)
    assert info.detail_bits == pytest.approx(found.detail_bits)


@pytest.mark.parametrize("quality", [0, 50, 100])
def test_symbols_survive(quality: int) -> None:
    check_symbols(np.asarray(astronaut(300, 420)), quality)


@pytest.mark.parametrize("role", [role for role in bundle.shipped_roles() if bundle.ROLES[role] != DEFAULT])
def test_symbols_of_other_models_survive(role: str) -> None:
    check_symbols(np.asarray(astronaut(300, 420)), 50, role)


@pytest.mark.parametrize("name", [path.name for path in sorted(GOLDEN.glob("*-v*.dlf"))])
def test_a_committed_file_stays_readable(
    name: str, codec: dlf.Codec, check_golden: Callable[[str, bytes], None], request: pytest.FixtureRequest
) -> None:
    """It gives the committed symbols, on every machine, whatever decoder has come since, and a picture."""
    if request.config.getoption("--regenerate-golden"):
        sender = dlf.Codec(model=name.removesuffix(".dlf"))
        check_golden(name, sender.encode(astronaut(320, 200), quality=70))
    data = (GOLDEN / name).read_bytes()
    stream = container.load(data)
    model = bundle.find(stream.header.model)
    tables = model.tables()
    found = StreamCodec(model.manifest, tables, OnnxBackend(model, tables)).receive(stream)
    symbols = found.tokens.astype("<i4").tobytes() + found.y_hat.astype("<f4").tobytes()
    check_golden(f"{name}.symbols", symbols)
    before, after = (np.asarray(image, float) for image in (astronaut(320, 200), codec.decode(data)))
    assert np.abs(before - after).mean() < 24  # another picture is at 60 or more


@pytest.mark.slow
@pytest.mark.parametrize("index", range(24))
def test_kodak(index: int) -> None:
    pictures = sorted(KODAK.glob("*.png"))
    if len(pictures) != 24:
        pytest.skip("the Kodak pictures are not at hand")
    with Image.open(pictures[index]) as image:
        check_symbols(np.asarray(image.convert("RGB")), 50)
