"""The front door, with the stand-in in the place of ONNX Runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf import api
from dlf.bitstream import container
from dlf.codec import bundle, onnx_backend
from dlf.codec.backend import Backend
from dlf.records import UInt8

Picture = Callable[[int, int], UInt8]


@pytest.fixture(autouse=True)
def _mock_models(
    tmp_path: Path, write_bundle: Callable[..., Path], backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "assets" / "default")
    write_bundle(tmp_path / "models" / "other", name="other", id=300)
    monkeypatch.setattr(bundle, "ASSETS", tmp_path / "assets")
    monkeypatch.setenv("DLF_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(onnx_backend, "OnnxBackend", lambda *_: backend)
    api._default_codec.cache_clear()


def test_pictures_of_every_kind_go_in_and_an_image_comes_out(tmp_path: Path, picture: Picture) -> None:
    rgb = picture(40, 50)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    data = dlf.encode(rgb)
    assert dlf.encode(Image.fromarray(rgb)) == data
    assert dlf.encode(tmp_path / "a.png") == data
    assert dlf.encode(str(tmp_path / "a.png"), 50) == data
    image = dlf.decode(data)
    assert (image.mode, image.size) == ("RGB", (50, 40))
    assert dlf.encode(rgb[:, :, 0]) == dlf.encode(rgb[:, :, :1].repeat(3, 2))


def test_quality(picture: Picture) -> None:
    rgb = picture(64, 64)
    assert len(dlf.encode(rgb, 0)) < len(dlf.encode(rgb)) < len(dlf.encode(rgb, quality=np.int64(100)))
    with pytest.raises(dlf.DlfError, match="quality"):
        dlf.encode(rgb, 101)
    with pytest.raises(TypeError):
        dlf.encode(rgb, 50.5)  # type: ignore[arg-type]


def test_info_adds_up(picture: Picture) -> None:
    data = dlf.encode(picture(300, 500), 80)
    info = dlf.info(data)
    assert (info.version, info.model, info.model_name) == (1, 1, "mock")
    assert (info.quality, info.width, info.height) == (80, 500, 300)
    parts = info.header_bytes + info.metadata_bytes + info.payload_bytes + info.checksum_bytes
    assert parts == info.file_bytes == len(data)
    assert (info.header_bytes, info.checksum_bytes, info.metadata_bytes) == (10, 4, 0)
    assert info.bpp == 8 * len(data) / 150_000
    assert info.token_bits is not None
    assert info.detail_bits is not None
    assert -1 <= info.payload_bytes - (info.token_bits + info.detail_bits) / 8 <= 2


def test_metadata_is_kept_on_request_only(picture: Picture) -> None:
    image = Image.fromarray(picture(20, 20))
    exif = Image.Exif()
    exif[0x010F] = "maker"
    image.info["exif"] = exif.tobytes()
    without, kept = dlf.encode(image), dlf.encode(image, metadata=True)
    assert dlf.info(kept).metadata_bytes == len(kept) - len(without) > 0
    assert dlf.decode(kept).getexif()[0x010F] == "maker"
    assert "exif" not in dlf.decode(without).info
    assert dlf.encode(picture(20, 20), metadata=True) == without


def test_decoding_takes_the_model_that_the_file_names(picture: Picture) -> None:
    rgb = picture(20, 20)
    data = dlf.Codec("other").encode(rgb)
    assert dlf.info(data).model_name == "other"
    assert np.array_equal(dlf.decode(data), dlf.Codec(300, threads=1).decode(data))
    assert dlf.Codec(300).info(dlf.encode(rgb)).model_name == "mock"


def test_files_of_unknown_models_have_sizes_but_no_picture(
    picture: Picture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = dlf.Codec("other").encode(picture(20, 20))
    monkeypatch.setenv("DLF_MODELS", str(tmp_path / "nowhere"))
    info = dlf.info(data)
    assert (info.model, info.model_name, info.token_bits, info.detail_bits) == (300, None, None, None)
    assert info.file_bytes == len(data)
    with pytest.raises(dlf.UnknownModel, match="300"):
        dlf.decode(data)
    with pytest.raises(dlf.UnknownModel):
        dlf.Codec("other")


def test_the_model_is_loaded_once(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = dlf.Codec()
    data = codec.encode(picture(20, 20))
    monkeypatch.setattr(bundle.ModelBundle, "read", None)
    codec.decode(data)
    codec.info(data)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_loads_networks_of_its_own(
    picture: Picture, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    """Those of its parent need threads that only the parent has."""
    loaded: list[int] = []
    monkeypatch.setattr(onnx_backend, "OnnxBackend", lambda *_: loaded.append(os.getpid()) or backend)
    data = dlf.encode(picture(20, 20))
    dlf.decode(data)
    assert loaded == [os.getpid()]
    if not (child := os.fork()):
        dlf.decode(data)
        dlf.decode(data)
        os._exit(loaded[1:] != [os.getpid()])
    assert os.waitpid(child, 0) == (child, 0)


def test_bad_data_is_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, picture: Picture
) -> None:
    data = dlf.encode(picture(20, 20))
    monkeypatch.setattr(bundle.ModelBundle, "read", None)
    api._default_codec.cache_clear()
    for bad in (b"", b"no", data[:-1], data + b"\0", bytes(100)):
        for use in (dlf.decode, dlf.info):
            with pytest.raises(dlf.FormatError):
                use(bad)
    damaged = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(dlf.ChecksumError):
        dlf.decode(damaged)


def test_pixel_limits_hold_both_ways(picture: Picture) -> None:
    small = dlf.Codec(max_pixels=399)
    with pytest.raises(dlf.LimitExceeded):
        small.encode(picture(20, 20))
    with pytest.raises(dlf.LimitExceeded):
        small.decode(dlf.encode(picture(20, 20)))


def test_a_damaged_payload_with_a_good_checksum_is_refused(picture: Picture) -> None:
    stream = container.load(dlf.encode(picture(20, 20)))
    data = container.dump(container.Stream(stream.header, stream.payload + b"\0"))
    for use in (dlf.decode, dlf.info):
        with pytest.raises(dlf.FormatError):
            use(data)


def test_the_package_tells_what_it_has() -> None:
    assert isinstance(dlf.__version__, str)
    assert {name for name in dlf.__all__ if hasattr(dlf, name)} == set(dlf.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        dlf.nothing  # noqa: B018


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, dlf; heavy = {'numpy', 'PIL', 'onnxruntime', 'constriction', 'torch'};"
        "assert not heavy & set(sys.modules); dlf.Codec;"
        "assert not {'onnxruntime', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
