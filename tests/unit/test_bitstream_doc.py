"""The decoder printed in docs/bitstream.md is a second one: it must read what the package writes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import dlf
from dlf.bitstream import container
from dlf.bitstream.header import Header
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.onnx_backend import OnnxBackend
from dlf.entropy.coder import SymbolWriter
from dlf.geometry import window_plan
from dlf.records import UInt8

DOC = Path(__file__).parents[2] / "docs" / "bitstream.md"


@lru_cache
def documented() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL):
        exec(block, names)  # our own page
    return names


@pytest.mark.parametrize("seed", range(8))
def test_documented_range_decoder(seed: int) -> None:
    random = np.random.default_rng(seed)
    writer, written = SymbolWriter(), []
    for _ in range(40):
        size = int(random.integers(2, 300))
        weights = random.exponential(size=size) ** 6
        frequency = 1 + np.floor(weights / weights.sum() * (2**16 - size)).astype(np.uint32)
        frequency[-1] += 2**16 - frequency.sum()
        # likely and unlikely symbols alike
        symbols = random.choice(size, 60, p=frequency / 2**16).astype(np.int32)
        symbols[::7] = random.integers(0, size, len(symbols[::7]))
        writer.exchange(symbols, frequency)
        written.append((frequency.tolist(), symbols.tolist()))
    decoder = documented()["RangeDecoder"](writer.finish())
    for frequency, symbols in written:
        assert [decoder.symbol(frequency) for _ in symbols] == symbols
    assert documented()["is_canonical"](decoder)


def test_documented_test_of_payloads() -> None:
    """All payloads of up to two bytes, and some longer ones, read as a few symbols."""
    frequency = np.array([2**16 - 700, 500, 199, 1], np.uint32)
    found = set()
    for symbols in product(range(4), repeat=3):
        writer = SymbolWriter()
        writer.exchange(np.array(symbols, np.int32), frequency)
        found.add(writer.finish())
    assert 0 < max(map(len, found)) <= 7
    tried = {bytes(part) for size in range(3) for part in product(range(256), repeat=size)}
    tried |= found | {payload + b"\1" for payload in found} | {payload[:-1] for payload in found}
    accepted = set()
    for payload in tried:
        decoder = documented()["RangeDecoder"](payload)
        with suppress(ValueError):
            for _ in range(3):
                decoder.symbol(frequency.tolist())
            if documented()["is_canonical"](decoder):
                accepted.add(payload)
    assert accepted == found


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize(("rows", "cols"), [(2, 2), (8, 8), (20, 34), (6, 34)])
def test_documented_index_maps(rows: int, cols: int, shift: int) -> None:
    maps, wanted = documented()["window_maps"](rows, cols, 8, shift), window_plan(rows, cols, 8, shift)
    for name, found in maps.items():
        np.testing.assert_array_equal(found, getattr(wanted, name))


def test_documented_checksum() -> None:
    numerics = "8b" * 32
    data = container.dump(container.seal(Header(4, 50, 30, 40), b"payload", numerics))
    assert documented()["checksum"](data, numerics) == data[-4:]


def graph(bundle: ModelBundle, name: str) -> Callable[..., list[NDArray[np.int64]]]:
    """A graph as the page says."""
    session = onnxruntime.InferenceSession(bundle.read(name), providers=["CPUExecutionProvider"])

    def run(**inputs: NDArray[Any]) -> list[NDArray[np.int64]]:
        found = session.run([node.name for node in session.get_outputs()], inputs)
        assert all(np.array_equal(array, np.rint(array)) for array in found)
        return [array[0].astype(np.int64) for array in found]

    return run


@pytest.mark.torch
@pytest.mark.parametrize("quality", [0, 60])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (90, 300), (288, 272)])
@pytest.mark.parametrize("kind", ["tiny", "tiny-v2"])
def test_documented_walk(
    kind: str,
    height: int,
    width: int,
    quality: int,
    picture: Callable[[int, int], UInt8],
    request: pytest.FixtureRequest,
) -> None:
    bundle = ModelBundle.open(request.getfixturevalue(f"{kind.replace('-', '_')}_bundle"))
    stream = container.load(dlf.Codec(bundle.folder, threads=1).encode(picture(height, width), quality))
    known = bundle.tables()
    wanted = StreamCodec(bundle.manifest, known, OnnxBackend(bundle, known, 1)).receive(stream)

    names = documented()
    with np.load(io.BytesIO(bundle.read("tables.npz"))) as file:
        tables = dict(file)
    assert bool(tables.get("token_prior", 0)) == (kind == "tiny-v2")
    cells = -(-height // 32), -(-width // 32)
    decoder = names["RangeDecoder"](stream.payload)
    tokens = names["read_tokens"](decoder, *cells, quality, tables)
    np.testing.assert_array_equal(tokens.reshape(wanted.tokens.shape), wanted.tokens)
    y_hat = names["read_details"](
        decoder, *cells, quality, tokens, tables,
        graph(bundle, "prior.onnx"), graph(bundle, "context.onnx"),
    )  # fmt: skip
    np.testing.assert_allclose(y_hat, wanted.y_hat, rtol=1e-6)
    assert y_hat.any()


def test_documented_escapes() -> None:
    """Symbols beyond the tables, which tiny models hardly make."""
    from dlf.entropy.gaussian import exchange_symbols
    from dlf.entropy.tables import Tables, gaussian_frequencies

    arrays = {"gaussian_frequency": gaussian_frequencies(np.array([0.5, 1.0, 3.0]), 4)}
    arrays["scale_bounds"] = np.array([1, 2], np.int32)
    tables = Tables(
        **arrays, token_frequency=np.full((1, 2), 2**15, np.uint32), token_count=np.ones(101, np.uint8),
        prior=np.zeros((101, 1), np.int16),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    scale, turn = rng.integers(0, 3, (4, 6, 5)), rng.random((4, 6, 5)) < 0.5
    symbols = np.rint(rng.standard_cauchy(scale.shape) * 5).clip(-(2**15), 2**15).astype(np.int32)
    writer = SymbolWriter()
    sent = exchange_symbols(writer, symbols[turn], scale[turn].astype(np.int16), tables).symbols
    assert (np.abs(sent) > 4).any()
    found = documented()["read_step"](documented()["RangeDecoder"](writer.finish()), scale, turn, arrays)
    np.testing.assert_array_equal(found[turn], sent)
    assert not found[~turn].any()


@pytest.mark.torch
def test_documented_packets(tiny_v2_bundle: Path, picture: Callable[[int, int], UInt8]) -> None:
    from dlf.bitstream import packets
    from dlf.codec import resilient

    bundle = ModelBundle.open(tiny_v2_bundle)
    data = dlf.Codec(bundle.folder, threads=1).encode(picture(400, 600), 60, packet_bytes=120)
    known = bundle.tables()
    codec = StreamCodec(bundle.manifest, known, OnnxBackend(bundle, known, 1))
    held = resilient.check(codec, packets.load(data))
    wanted = resilient.receive(codec, held).received
    names = documented()
    with np.load(io.BytesIO(bundle.read("tables.npz"))) as file:
        tables = dict(file)
    graphs = graph(bundle, "prior.onnx"), graph(bundle, "context.onnx")
    tokens, y_hat = np.zeros((2, 3, known.tokens), int), np.zeros(wanted.y_hat.shape)
    found = list(names["read_packets"](b"lost" + data[:-9] + bytes(9), 416, 608, bundle.manifest.numerics))
    assert len(found) == len(held) - 1 > 1
    found = list(names["read_packets"](data, 416, 608, bundle.manifest.numerics))
    for windows, cells, payload in found:
        decoder, size = names["RangeDecoder"](payload), tuple(map(len, cells))
        part = names["read_tokens"](decoder, *size, 60, tables)
        tokens[np.ix_(*windows)] = part
        y_hat[np.ix_(range(len(y_hat)), *cells)] = names["read_details"](
            decoder, *size, 60, part, tables, *graphs
        )
    np.testing.assert_array_equal(tokens.reshape(wanted.tokens.shape), wanted.tokens)
    np.testing.assert_allclose(y_hat, wanted.y_hat, rtol=1e-6)
