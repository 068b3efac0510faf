"""The front door, with the stand-in in the place of ONNX Runtime."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf import api
from dlf.bitstream import container
from dlf.codec import bundle, onnx_backend
from dlf.codec.backend import Backend
from dlf.codec.bundle import TABLES
from dlf.records import UInt8
from shipped_models import DEFAULT

Picture = Callable[[int, int], UInt8]


@pytest.fixture(autouse=True)
def _mock_models(mock_models: None, tmp_path: Path, write_bundle: Callable[..., Path]) -> None:
    write_bundle(tmp_path / "models" / "other", name="other", id=300)


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
    assert dlf.info(dlf.encode(rgb)).quality == 50


def test_the_model_says_which_quality_is_taken_where_none_is_named(
    picture: Picture, tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    codec = dlf.Codec(write_bundle(tmp_path / "fine", default_quality=80))
    assert codec.info(codec.encode(picture(20, 20))).quality == 80
    assert codec.info(codec.encode(picture(20, 20), 0)).quality == 0


@pytest.mark.parametrize("quality", [-1, 101, 10**30])
def test_a_quality_out_of_range_is_a_value_error(quality: int, picture: Picture) -> None:
    with pytest.raises(ValueError, match=r"^the quality is -?\d+, but must be 0 to 100$"):
        dlf.encode(picture(8, 8), quality)


@pytest.mark.parametrize("quality", [50.0, "50", b"2", True])
def test_a_quality_that_is_no_number_is_a_type_error(quality: object, picture: Picture) -> None:
    with pytest.raises(TypeError, match=r"^the quality must be a whole number, not "):
        dlf.encode(picture(8, 8), quality)  # type: ignore[arg-type]


def every_form(folder: Path, content: bytes) -> list[object]:
    """The content of a file in every form that may be given; the last two can be read once."""
    path = folder / "file"
    path.write_bytes(content)
    copies: list[object] = [
        content,
        bytearray(content),
        memoryview(content),
        memoryview(content * 2)[: len(content)],
    ]
    return [*copies, np.frombuffer(content, np.uint8), path, str(path), io.BytesIO(content), path.open("rb")]


def test_files_are_taken_in_every_form(picture: Picture, tmp_path: Path) -> None:
    data, png = dlf.encode(picture(40, 50)), io.BytesIO()
    Image.fromarray(picture(40, 50)).save(png, "PNG")
    for use, expected in ((dlf.decode, dlf.decode(data)), (dlf.info, dlf.info(data))):
        forms = every_form(tmp_path, data)
        assert all(use(form) == expected for form in forms)  # type: ignore[operator]
        forms[-1].close()  # type: ignore[attr-defined]
    forms = every_form(tmp_path, png.getvalue())
    forms = [form for form in forms if not isinstance(form, np.ndarray)]  # pixels, here
    assert [dlf.encode(form) for form in forms] == [data] * len(forms)  # type: ignore[arg-type]
    forms[-1].close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", [None, 5, 2.5, [b"x"], object(), io.StringIO("text"), str])
def test_other_types_are_type_errors(wrong: object) -> None:
    for use in (dlf.encode, dlf.decode, dlf.info):
        with pytest.raises(TypeError, match=r"^expected bytes, a path or a file opened in binary mode, not "):
            use(wrong)  # type: ignore[operator]


def test_open_files_are_read_from_their_start(picture: Picture) -> None:
    """As by Pillow: who has just written into a buffer stands at its end."""
    file = io.BytesIO()
    Image.fromarray(picture(40, 50)).save(file, "PNG")
    stream = io.BytesIO(dlf.encode(file))
    for position in (0, 7, len(stream.getvalue())):
        stream.seek(position)
        assert dlf.decode(stream).size == (50, 40)
        stream.seek(position)
        assert dlf.info(stream).width == 50


def test_a_text_file_that_is_no_text_is_a_type_error_too(picture: Picture, tmp_path: Path) -> None:
    path = tmp_path / "a.dlf"
    path.write_bytes(dlf.encode(picture(8, 8)) + b"\xff")
    for use in (dlf.encode, dlf.decode, dlf.info):
        with path.open(encoding="utf-8") as file, pytest.raises(TypeError, match="not a file in text mode"):
            use(file)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_a_file_not_found_error(tmp_path: Path) -> None:
    for use in (dlf.encode, dlf.decode, dlf.info):
        for missing in (tmp_path / "none.dlf", str(tmp_path / "none.png")):
            with pytest.raises(FileNotFoundError):
                use(missing)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"threads": 0}, ValueError),
        ({"threads": -1}, ValueError),
        ({"threads": 10**9}, ValueError),
        ({"threads": 2.5}, TypeError),
        ({"threads": "2"}, TypeError),
        ({"max_pixels": 0}, ValueError),
        ({"max_pixels": None}, TypeError),
        ({"engine": "cuda"}, TypeError),
        ({"model": 2.5}, TypeError),
        ({"model": "x" * 5000}, dlf.UnknownModel),
        ({"model": b"default"}, TypeError),
        ({"model": True}, TypeError),
        ({"max_seconds": 0}, ValueError),
        ({"max_seconds": float("nan")}, ValueError),
        ({"max_seconds": 10**400}, ValueError),
        ({"max_seconds": "3"}, TypeError),
        ({"max_seconds": True}, TypeError),
    ],
)
def test_wrong_arguments_of_a_codec(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        dlf.Codec(**arguments)


@pytest.mark.parametrize("seconds", [60, 60.0, np.float32(60), np.int64(60), float("inf")])
def test_limits_of_time_are_numbers_of_any_kind(seconds: float, picture: Picture) -> None:
    assert dlf.decode(dlf.encode(picture(32, 32)), max_seconds=seconds).size == (32, 32)


@pytest.mark.parametrize("bpp", ["0.1", True, [0.1]])
def test_bits_of_a_pixel_that_are_no_number_are_a_type_error(bpp: object, picture: Picture) -> None:
    with pytest.raises(TypeError, match="bpp must be a number"):
        dlf.encode(picture(32, 32), bpp=bpp)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "one",
    [
        "photo.jpg",
        b"bytes",
        bytearray(3),
        memoryview(b"abc"),
        io.BytesIO(b"a\nb"),
        np.zeros((9, 8, 3), np.uint8),
    ],
)
def test_one_image_where_several_are_expected_is_a_type_error(one: Any) -> None:
    """The letters of a path, the lines of a file and the rows of an array are no images."""
    codec = dlf.Codec()
    for use in (codec.encode_many, codec.decode_many, lambda images: codec.encode_set(images, 1000)):
        with pytest.raises(TypeError, match="expected several"):
            use(one)


def test_an_array_of_several_images_is_taken(picture: Picture) -> None:
    images = np.stack([picture(32, 40), picture(32, 40)[::-1]])
    assert list(dlf.Codec().encode_many(images)) == [dlf.encode(image) for image in images]


def test_wrong_engine_options() -> None:
    with pytest.raises(ValueError, match="'float8' is unknown: choose one of float32, bfloat16"):
        dlf.EngineOptions(precision="float8")
    with pytest.raises(ValueError, match="'tensorrt' is unknown: choose one of auto, onnxruntime, openvino"):
        dlf.EngineOptions(engine="tensorrt")
    with pytest.raises(ValueError, match="threads is 0, but must be at least 1"):
        dlf.EngineOptions(threads=0)
    with pytest.raises(TypeError, match="device"):
        dlf.EngineOptions(device=0)  # type: ignore[arg-type]


def test_threads_come_from_either_place(
    picture: Picture, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    monkeypatch.setattr(
        onnx_backend,
        "OnnxBackend",
        lambda *args: asked.append(args[2]) or backend,  # type: ignore[func-returns-value]
    )
    for arguments in ({}, {"threads": 3}, {"engine": dlf.EngineOptions(threads=4)}):
        dlf.Codec(**arguments).encode(picture(8, 8))  # type: ignore[arg-type]
    dlf.Codec(threads=5, engine=dlf.EngineOptions(threads=4)).encode(picture(8, 8))
    assert asked == [None, 3, 4, 5]


def test_info_adds_up(picture: Picture) -> None:
    data = dlf.encode(picture(300, 500), 80)
    info = dlf.info(data, symbols=True)
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
    assert not info.checked
    assert not dlf.info(data[:-1] + b"?").checked
    assert info.file_bytes == len(data)
    with pytest.raises(dlf.UnknownModel, match="300"):
        dlf.decode(data)
    with pytest.raises(dlf.UnknownModel):
        dlf.Codec("other")


@pytest.fixture
def twins(
    tmp_path: Path, write_bundle: Callable[..., Path], to_npz: Callable[..., bytes], arrays: Any
) -> None:
    """Two more models of the number 300: one has other tables, the other differs in what it paints."""
    arrays["token_frequency"] = arrays["token_frequency"][:, ::-1].copy()
    write_bundle(tmp_path / "models" / "a-twin", {TABLES: to_npz(arrays)}, name="twin", id=300)
    write_bundle(tmp_path / "models" / "z-brush", {"synthesis.onnx": b"another"}, name="brush", id=300)


@pytest.mark.usefixtures("twins")
def test_of_models_with_one_number_the_one_whose_symbols_they_are_decodes(picture: Picture) -> None:
    rgb = picture(200, 300)
    other, twin = dlf.Codec("other").encode(rgb), dlf.Codec("twin").encode(rgb)
    assert other != twin
    for codec in (dlf.Codec(), dlf.Codec("other"), dlf.Codec("twin")):
        assert (codec.info(other).model_name, codec.info(twin).model_name) == ("other", "twin")
        assert codec.decode(other) == dlf.Codec("other").decode(other)
        assert codec.decode(twin) == dlf.Codec("twin").decode(twin) == codec.decode(other)
    brush = dlf.Codec("brush")
    assert brush.encode(rgb) == other
    assert (brush.info(other).model_name, brush.info(twin).model_name) == ("brush", "twin")


def test_a_file_that_no_model_of_its_number_wrote_is_refused(
    picture: Picture,
    tmp_path: Path,
    write_bundle: Callable[..., Path],
    to_npz: Callable[..., bytes],
    arrays: Any,
) -> None:
    arrays["scale_bounds"] += 1
    own = dlf.Codec(write_bundle(tmp_path / "own", {TABLES: to_npz(arrays)}, name="own"))
    data = own.encode(picture(60, 60))
    assert own.info(data).checked
    for use in (dlf.decode, dlf.info):
        with pytest.raises(
            dlf.ChecksumError, match=r"damaged, or written with another model .* 1 than 'mock'$"
        ):
            use(data)


def test_the_installed_models_are_listed(tmp_path: Path) -> None:
    first, second = dlf.models()
    assert first == dlf.InstalledModel(
        name="mock",
        id=1,
        roles=("default", "base"),
        engine="onnx",
        default_quality=50,
        folder=tmp_path / "assets" / DEFAULT,
        file_bytes=sum(path.stat().st_size for path in (tmp_path / "assets" / DEFAULT).iterdir()),
    )
    assert (second.name, second.id, second.roles) == ("other", 300, ())
    assert {first, second} == set(dlf.models())


def test_the_model_is_loaded_once(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = dlf.Codec()
    data = codec.encode(picture(20, 20))
    monkeypatch.setattr(bundle.ModelBundle, "read", None)
    codec.decode(data)
    codec.info(data)


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
    numerics = bundle.find().manifest.numerics
    data = container.dump(container.seal(stream.header, stream.payload + b"\0", numerics))
    assert dlf.info(data).checked
    for use in (dlf.decode, lambda data: dlf.info(data, symbols=True)):
        with pytest.raises(dlf.FormatError):
            use(data)


def test_the_package_tells_what_it_has() -> None:
    assert isinstance(dlf.__version__, str)
    assert {name for name in dlf.__all__ if hasattr(dlf, name)} == set(dlf.__all__)
    code = "import dlf; assert set(dlf.__all__) <= set(dir(dlf)), dir(dlf)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nothing"):
        dlf.nothing  # noqa: B018


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, dlf; heavy = {'numpy', 'PIL', 'onnxruntime', 'constriction', 'torch'};"
        "assert not heavy & set(sys.modules); dlf.Codec;"
        "assert not {'onnxruntime', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
