"""The whole way with real, if untrained, networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dlf
from dlf.codec import tiling
from dlf.codec.bundle import ModelBundle
from dlf.codec.detail import Receiver, Sender, walk
from dlf.codec.onnx_backend import OnnxBackend
from dlf.entropy.coder import SymbolReader, SymbolWriter
from dlf.geometry import Plan
from dlf.records import Int32, Prior, UInt8

pytestmark = pytest.mark.torch

SIZES = [(1, 1), (1, 5), (31, 33), (255, 257), (300, 500), (40, 1700)]


@pytest.fixture(scope="module", params=["tiny", "tiny-v2"])
def codecs(request: pytest.FixtureRequest) -> tuple[dlf.Codec, dlf.Codec]:
    """A sender and a receiver that do not compute in the same way."""
    bundle = request.getfixturevalue(f"{request.param.replace('-', '_')}_bundle")
    return dlf.Codec(bundle, threads=1), dlf.Codec(bundle, threads=2)


@pytest.mark.parametrize("quality", [0, 50, 100])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_round_trip(
    height: int,
    width: int,
    quality: int,
    codecs: tuple[dlf.Codec, dlf.Codec],
    picture: Callable[[int, int], UInt8],
) -> None:
    sender, receiver = codecs
    data = sender.encode(picture(height, width), quality)
    image = receiver.decode(data)
    assert image.size == (width, height)
    # the symbols are the same for both, or decoding would have failed; the pixels are so but for rounding
    other = np.asarray(sender.decode(data), int)
    assert np.abs(np.asarray(image, int) - other).max() <= 1
    info = receiver.info(data, symbols=True)
    assert info.model_name in ("tiny", "tiny-v2")
    assert info.token_bits is not None
    assert info.token_bits > 0
    assert info.detail_bits is not None
    assert info.detail_bits > 0


def test_size_grows_with_quality(
    codecs: tuple[dlf.Codec, dlf.Codec], picture: Callable[[int, int], UInt8]
) -> None:
    sizes = [len(codecs[0].encode(picture(255, 257), quality)) for quality in (0, 25, 50, 75, 100)]
    assert sizes == sorted(set(sizes))


def make_backend(folder: Path, threads: int = 1) -> OnnxBackend:
    bundle = ModelBundle.open(folder)
    return OnnxBackend(bundle, bundle.tables(), threads)


def random_tokens(plan: Plan, seed: int = 0) -> Int32:
    """Tokens of which some are not sent."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 16, (plan.windows[0] * plan.windows[1], 4))
    return np.where(np.arange(4) < rng.integers(1, 5, (len(tokens), 1)), tokens, -1).astype(np.int32)


def same(a: Prior, b: Prior) -> bool:
    pairs = ((a.first.scale, b.first.scale), (a.first.mean, b.first.mean), (a.step, b.step))
    return all(np.array_equal(*pair) for pair in (*pairs, (a.common, b.common)))


def test_the_prior_reads_the_tokens_only_where_the_tables_say_so(
    tiny_bundle: Path, tiny_v2_bundle: Path
) -> None:
    plan = Plan(300, 500)
    first, second = random_tokens(plan), random_tokens(plan, 1)
    for folder, reads in ((tiny_bundle, 0), (tiny_v2_bundle, 1)):
        assert ModelBundle.open(folder).tables().token_prior == reads
        backend = make_backend(folder)
        one, other = (backend.prior(*plan.cells, 50, tokens) for tokens in (first, second))
        assert same(one, other) == (not reads)
    # in the middle of a window without tokens all cells are alike; what the tokens tell differs
    assert len(np.unique(one.step[:, 2:6, 2:6].reshape(len(one.step), -1), axis=1).T) > 1


@pytest.mark.parametrize("seed", range(3))
def test_both_sides_have_the_same_symbols(seed: int, tiny_v2_bundle: Path) -> None:
    rng = np.random.default_rng(seed)
    plan = Plan(*(32 * rng.integers(1, 20, 2)).tolist())
    tables = ModelBundle.open(tiny_v2_bundle).tables()
    sender, receiver = make_backend(tiny_v2_bundle, 1), make_backend(tiny_v2_bundle, 2)
    tokens = random_tokens(plan, seed)
    y = (rng.standard_t(2, (8, *plan.cells)) * 4).astype(np.float32)
    writer = SymbolWriter()
    sent = walk(
        sender, tables, tiling.prior(sender, tables, plan, tokens, 70), Sender(y, writer, tables)
    ).y_hat
    reader = SymbolReader(writer.finish())
    found = walk(
        receiver, tables, tiling.prior(receiver, tables, plan, tokens, 70), Receiver(reader, tables)
    ).y_hat
    reader.finish()
    np.testing.assert_array_equal(sent, found)
    assert len(np.unique(found)) > 10


@pytest.mark.parametrize(("height", "width", "core"), [(1700, 1800, 1024), (900, 1300, 256), (40, 1000, 256)])
def test_tiles_of_the_prior_change_nothing(
    height: int, width: int, core: int, tiny_v2_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(height, width)
    tokens, backend = random_tokens(plan), make_backend(tiny_v2_bundle)
    seen: list[tuple[int, ...]] = []
    backend.watch = lambda _, inputs: seen.append(inputs["prior"].shape[2:])
    monkeypatch.setattr(tiling, "CORE", core)
    tables = ModelBundle.open(tiny_v2_bundle).tables()
    tiled = tiling.prior(backend, tables, plan, tokens, 30)
    assert len(seen) > 1
    assert max(max(size) for size in seen) <= core // 32 + 16
    assert same(tiled, backend.prior(*plan.cells, 30, tokens))
