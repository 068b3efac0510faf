"""Files that are cut off behind their picture, large in other ways than by pixels, or not what they seem."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from dlf.errors import ImageError, LimitExceeded, MissingExtra
from dlf.imageio import load_rgb, opening, plugins
from dlf.imageio.colour import srgb_profile
from image_files import chunk, file_of, png, tiff

NOISE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (48, 48, 3), dtype=np.uint8))


def pillow_state() -> tuple[object, ...]:
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    return *limits, ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_without_its_end(
    cut: int, progressive: bool, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = file_of(NOISE.convert(mode), "JPEG", progressive=progressive)
    with caplog.at_level(logging.WARNING):
        rgb = load_rgb(data[:-cut])[0]
    assert "without its end" in caplog.text
    np.testing.assert_array_equal(rgb, load_rgb(data, strict=True)[0])
    with pytest.raises(ImageError, match="without its end"):
        load_rgb(data[:-cut], strict=True)


@pytest.mark.parametrize("cut", [3, 4, 5, 8, 20, 100, 1000])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_without_some_of_its_pixels(cut: int, progressive: bool) -> None:
    with pytest.raises(ImageError):
        load_rgb(file_of(NOISE, "JPEG", progressive=progressive)[:-cut])


def test_progressive_jpeg_without_its_last_scans() -> None:
    data = file_of(NOISE, "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 3
    tables = data.rindex(b"\xff\xc4", 0, scans[-1])
    for end in (scans[-1], tables):
        with pytest.raises(ImageError):
            load_rgb(data[:end])


@pytest.mark.parametrize("tail", [b"", b"\xff", b"\0" * 9])
def test_flat_jpeg_without_its_end(tail: bytes) -> None:
    data = file_of(Image.new("RGB", (40, 40), "teal"), "JPEG")
    assert load_rgb(data[:-2] + tail)[0].shape == (40, 40, 3)


@pytest.mark.parametrize(("kind", "cut"), [("PNG", 1), ("PNG", 12), ("PNG", 16), ("GIF", 1), ("QOI", 8)])
def test_other_files_without_their_end(kind: str, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    data = file_of(NOISE, kind)
    np.testing.assert_array_equal(load_rgb(data[:-cut])[0], load_rgb(data, strict=True)[0])
    assert "without its end" in caplog.text
    with pytest.raises(ImageError, match="without its end"):
        load_rgb(data[:-cut], strict=True)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_webp_cut_off_behind_its_picture(cut: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker of some length"
    data = file_of(NOISE, "WEBP", exif=exif.tobytes(), lossless=True)
    np.testing.assert_array_equal(load_rgb(data[:-cut])[0], np.asarray(NOISE))
    with pytest.raises(ImageError, match="cut off"):
        load_rgb(data[:-cut], strict=True)
    with pytest.raises(ImageError):
        load_rgb(data[: len(data) // 2])


@pytest.mark.parametrize("size", [1_200_000, 15_000_000])
def test_large_texts_and_profiles(size: int) -> None:
    before = pillow_state()
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "a" * size, zip=True)
    text.add_itxt("prompt", "b" * size, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "c" * size, zip=True)
    profile = srgb_profile().ljust(size, b"\0")
    profile = struct.pack(">I", size) + profile[4:]
    rgb, metadata = load_rgb(
        file_of(Image.new("RGB", (8, 8), "teal"), pnginfo=text, icc_profile=profile), strict=True
    )
    assert rgb[0, 0].tolist() == [0, 128, 128]
    assert metadata is not None
    assert metadata.xmp == b"c" * size
    assert metadata.icc == profile
    assert pillow_state() == before


def test_texts_and_profiles_beyond_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "c" * 17_000_000, zip=True)
    image = Image.new("RGB", (8, 8), "teal")
    assert load_rgb(file_of(image, pnginfo=text))[1] is None
    assert "16,777,216" in caplog.text
    with pytest.raises(LimitExceeded, match="colour profile"):
        load_rgb(file_of(image, icc_profile=bytes(17_000_000)))


def test_damaged_side_chunks_do_not_cost_the_picture(caplog: pytest.LogCaptureFixture) -> None:
    samples = np.zeros((2, 2), np.uint8)
    broken = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0")[:-1] + b"?"
    data = png(samples, 0, broken, chunk(b"iCCP", b"name\0\0no stream"), chunk(b"cICP", b"\1"))
    assert load_rgb(data)[0].max() == 0
    assert len(caplog.records) == 3
    with pytest.raises(ImageError):
        load_rgb(data, strict=True)


def test_pixels_beyond_pillows_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    before = pillow_state()
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "ICO", "BMP"):
        options = {"sizes": [(40, 40)]} if kind == "ICO" else {}
        data = file_of(Image.new("RGB", (40, 40), "teal"), kind, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_rgb(data)[0].shape == (40, 40, 3), kind
        with pytest.raises(LimitExceeded):
            load_rgb(data, max_pixels=1599)
        assert pillow_state() == before


def test_pillows_limit_is_back_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError):
        load_rgb(file_of(NOISE, "TIFF")[:-100])
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pillows_limit_is_lifted_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = file_of(NOISE, "TIFF", compression="tiff_lzw")
    shapes = []
    threads = [threading.Thread(target=lambda: shapes.append(load_rgb(data)[0].shape)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shapes == [(48, 48, 3)] * 8
    assert Image.MAX_IMAGE_PIXELS == 100


def directory(*tags: tuple[int, int], following: int = 0) -> bytes:
    """A TIFF directory of long numbers."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({254: ("I", [1])}, [(256, 4000), (257, 3000), (262, 32803)]),  # NEF, ARW, DNG
        ({254: ("I", [1])}, [(256, 4000), (257, 3000)]),
        ({}, [(256, 4000), (257, 3000)]),
        ({}, [(256, 4), (257, 4), (262, 34892)]),
        ({50706: ("B", [1, 4, 0, 0])}, []),
        ({33421: ("H", [2, 2]), 33422: ("B", [0, 1, 1, 2])}, []),
    ],
)
def test_camera_raw_is_refused(first: dict[int, tuple[str, list[int]]], other: list[tuple[int, int]]) -> None:
    page = tiff(bytes(192), bits=[8] * 3, photometric=2, extra=first | {330: ("I", [0])})
    at = len(page) + len(page) % 2
    page = tiff(bytes(192), bits=[8] * 3, photometric=2, extra=first | {330: ("I", [at if other else 0])})
    data = page.ljust(at, b"\0") + directory(*other)
    for source in (data, Image.open(io.BytesIO(data))):
        with pytest.raises(ImageError, match="camera raw"):
            load_rgb(source)


def test_smaller_versions_behind_a_picture_are_no_raw_file() -> None:
    page = tiff(bytes(192), bits=[8] * 3, photometric=2, extra={330: ("I", [0])})
    page = tiff(bytes(192), bits=[8] * 3, photometric=2, extra={330: ("I", [len(page)])})
    assert load_rgb(page + directory((254, 1), (256, 4), (257, 4)))[0].shape == (8, 8, 3)


def test_canon_raw_is_refused() -> None:
    with pytest.raises(ImageError, match="camera raw"):
        load_rgb(b"II*\0\x10\0\0\0CR\2\0" + bytes(64))


@pytest.mark.parametrize(
    ("head", "module"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow_heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "pillow_heif"),
        (b"\xff\x0a" + bytes(20), "pillow_jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "pillow_jxl"),
    ],
)
def test_missing_plugin_is_named(head: bytes, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    plugins.need_heic.cache_clear()
    plugins.need_jxl.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{module}.*pip install 'dlf-codec\[formats\]'"):
        load_rgb(head)


@pytest.mark.parametrize("container", [False, True])
def test_size_of_jpeg_xl_is_known_before_it_is_decoded(
    container: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_jxl")
    plugins.need_jxl()
    for size in [(8, 8), (300, 200), (200, 100), (37, 5), (2000, 1000), (640, 480)]:
        data = file_of(Image.new("RGB", size), "JXL", use_container=container)
        assert opening.boxes.jxl_size(io.BytesIO(data)) == size
    monkeypatch.setattr(opening, "identify", lambda *_: pytest.fail("decoded"))
    with pytest.raises(LimitExceeded):
        load_rgb(data, max_pixels=640 * 480 - 1)


def turned_file() -> tuple[np.ndarray, bytes]:
    """Upright pixels, and the file of a camera that was held upright."""
    upright = np.asarray(NOISE.crop((0, 0, 40, 16)))
    exif = Image.Exif()
    exif[0x0112] = 6
    return upright, file_of(Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90), exif=exif)


def test_a_picture_is_turned_once() -> None:
    upright, data = turned_file()
    opened = Image.open(io.BytesIO(data))
    by_hand = opened.transpose(Image.Transpose.ROTATE_270)
    assert by_hand.info.get("exif")  # which still says that it is to be turned
    for image in (opened, ImageOps.exif_transpose(opened), by_hand, by_hand.copy()):
        rgb, metadata = load_rgb(image)
        np.testing.assert_array_equal(rgb, upright)
        kept = Image.Exif()
        kept.load((metadata and metadata.exif) or b"")
        assert kept.get(0x0112, 1) == 1


def test_jpeg_xl_is_turned_by_its_decoder(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    plugins.need_jxl()
    upright, _ = turned_file()
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(Image.fromarray(upright), "JXL", lossless=True, exif=exif.tobytes())
    rgb, metadata = load_rgb(data)
    np.testing.assert_array_equal(rgb, upright)
    np.testing.assert_array_equal(load_rgb(Image.open(io.BytesIO(data)))[0], upright)
    assert metadata is not None
    kept = Image.Exif()
    kept.load(metadata.exif or b"")
    assert kept[0x0112] == 1


def test_jpeg_inside_jpeg_xl_is_turned(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    plugins.need_jxl()
    upright, _ = turned_file()
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.jpg"
    Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    with Image.open(path) as image:
        image.save(tmp_path / "x.jxl", lossless_jpeg=True)
    np.testing.assert_array_equal(load_rgb(tmp_path / "x.jxl")[0], load_rgb(path)[0])


def test_number_of_png_chunks_is_bounded() -> None:
    data = png(np.zeros((2, 2), np.uint8), 0)
    with pytest.raises(LimitExceeded, match="chunks"):
        load_rgb(data[:-12] + chunk(b"tEXt", b"") * 300_000 + data[-12:])


@pytest.mark.parametrize("cut", [1, 2])
def test_jpeg_2000_without_its_end(cut: int) -> None:
    for extension in (False, True):
        data = file_of(NOISE, "JPEG2000", no_jp2=extension)
        np.testing.assert_array_equal(load_rgb(data[:-cut])[0], np.asarray(NOISE))
        with pytest.raises(ImageError):
            load_rgb(data[: -cut - 40])


def test_sources(tmp_path: Path) -> None:
    data = file_of(NOISE)
    for source in (bytearray(data), memoryview(data)):
        np.testing.assert_array_equal(load_rgb(source)[0], np.asarray(NOISE))

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.rest = data

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
            buffer[: len(part)] = part
            return len(part)

    np.testing.assert_array_equal(load_rgb(io.BufferedReader(Pipe()))[0], np.asarray(NOISE))
    for wrong in (None, 3, ["x"]):
        with pytest.raises(TypeError, match="a picture is"):
            load_rgb(wrong)  # type: ignore[arg-type]


def test_psd_without_its_composite_is_refused() -> None:
    def psd(real: bool) -> bytes:
        resource = b"8BIM" + struct.pack(">H", 1057) + b"\0\0" + struct.pack(">I", 6)
        resource += struct.pack(">IB", 1, real) + b"\0"
        head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 4, 4, 8, 3) + struct.pack(">I", 0)
        return head + struct.pack(">I", len(resource)) + resource + struct.pack(">IH", 0, 0) + bytes([9]) * 48

    assert load_rgb(psd(True))[0].max() == 9
    with pytest.raises(ImageError, match="layers"):
        load_rgb(psd(False))


def test_zlib_bombs_stay_small() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    data = png(np.zeros((2, 2), np.uint8), 0, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb))
    assert load_rgb(data)[1] is None
