"""Where the bits of a file went: the same sums as `info` tells, whatever the model's tables ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlf
from dlf.codec import onnx_backend
from dlf.codec.backend import Backend
from dlf.codec.bundle import TABLES
from dlf.codec.codec import StreamCodec
from dlf.evaluation.bits import Spent, spent
from dlf.records import UInt8

Picture = Callable[[int, int], UInt8]


def check_sums(found: Spent, info: dlf.StreamInfo) -> None:
    assert info.detail_bits is not None
    assert found.cells.sum() == pytest.approx(info.detail_bits)
    assert found.windows.sum() == pytest.approx(info.token_bits)
    assert min(info.detail_bits, found.windows.min(), found.tokens.min()) > 0


@pytest.fixture
def mock(
    tmp_path: Path, write_bundle: Callable[..., Path], backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Writes a bundle that runs on the stand-in for the networks."""
    monkeypatch.setattr(onnx_backend, "OnnxBackend", lambda *_: backend)

    def write(tables: bytes | None = None) -> Path:
        return write_bundle(tmp_path / "model", {} if tables is None else {TABLES: tables})

    return write


def test_bits_lie_where_the_image_has_something_to_say(mock: Callable[..., Path], picture: Picture) -> None:
    rgb = np.full((300, 520, 3), 128, np.uint8)
    rgb[64:96, 96:128] = picture(32, 32)
    model = mock()
    codec = dlf.Codec(model)
    data = codec.encode(rgb, 60)
    found = spent(model, data)
    check_sums(found, codec.info(data, symbols=True))
    assert np.array_equal(codec.spent(data).cells, found.cells)
    assert found.cells.shape == (10, 17)
    assert found.windows.shape == found.tokens.shape == (2, 3)
    assert found.tokens.tolist() == [[4, 4, 1], [1, 1, 1]]
    assert np.unravel_index(found.cells.argmax(), found.cells.shape) == (2, 3)


def test_padding_a_sum_of_symbols_and_escapes(
    mock: Callable[..., Path], picture: Picture, to_npz: Callable[..., bytes], arrays: dict[str, Any]
) -> None:
    """Padding makes the grid larger, the sum belongs to no place, and nearly every symbol escapes."""
    options = {"padding": np.array(256), "symbol_sum": np.array(1), "mean_unit": np.array(32)}
    few = arrays["gaussian_frequency"][:, [14, 15, 16, 31]]  # -1, 0, 1 and the escape
    few[:, 3] += 2**16 - few.sum(1, dtype=np.uint32)
    model = mock(to_npz(arrays | options | {"gaussian_frequency": few}))
    codec = dlf.Codec(model)
    data = codec.encode(picture(100, 300), 100)
    info, found = codec.info(data, symbols=True), spent(model, data)
    check_sums(found, info)
    assert found.cells.shape == (8, 16)
    assert found.windows.shape == (1, 2)
    assert info.token_bits is not None
    assert info.detail_bits is not None
    assert -1 <= info.payload_bytes - (info.token_bits + info.detail_bits) / 8 - 4 <= 2
    assert info.detail_bits > 128 * 8 * 4  # escapes are dear


def test_a_file_of_another_model_is_refused(
    mock: Callable[..., Path], picture: Picture, to_npz: Callable[..., bytes], arrays: dict[str, Any]
) -> None:
    data = dlf.Codec(mock()).encode(picture(40, 40))
    with pytest.raises(dlf.ChecksumError):
        spent(mock(to_npz(arrays | {"padding": np.array(64)})), data)


@pytest.mark.torch
def test_a_model_that_torch_runs(tmp_path: Path, picture: Picture) -> None:
    """With padding to windows and a sum of the symbols, and symbols that are not zero."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from dlf.bundles.bundle_writer import BundleSpec
    from dlf.bundles.torch_bundle import write_torch_bundle
    from dlf.nn.build import TINY_L
    from dlf.nn.model import Dlf

    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = Dlf(TINY_L).state_dict()
    for name, tensor in weights.items():
        if name.startswith("details.enc_trans_1"):
            tensor.mul_(100)
    write_torch_bundle(TINY_L, weights.__getitem__, tmp_path, BundleSpec("tiny-l", 99))
    codec = dlf.Codec(tmp_path, threads=1)
    data = codec.encode(picture(100, 300), 50)
    found = spent(tmp_path, data, threads=1)
    check_sums(found, codec.info(data, symbols=True))
    assert found.cells.shape == (8, 16)
    assert found.windows.tolist() == [[16, 16]]


def test_every_symbol_has_its_cost(codec: StreamCodec, picture: Picture) -> None:
    received = codec.receive(codec.encode_rgb(picture(90, 300), 50))
    assert received.token_cost.shape == received.tokens.shape
    assert received.detail_cost.shape == received.y_hat.shape
    assert ((received.token_cost > 0) == (received.tokens >= 0)).all()
    assert not received.detail_cost[7].any()  # the channel that is never sent
