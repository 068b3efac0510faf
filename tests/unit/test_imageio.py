"""Every kind of input becomes the colours one expects; bad input becomes one sentence."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dlf.errors import ImageError, LimitExceeded
from dlf.files import write_bytes
from dlf.imageio import format_of, load_rgb, save, to_bytes, to_image
from dlf.imageio.opening import pillow_errors
from dlf.records import Metadata, UInt8
from image_files import swapped_profile

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def rgb_of(source: object) -> UInt8:
    return load_rgb(source)[0]  # type: ignore[arg-type]


@pytest.fixture
def pixels() -> UInt8:
    return np.random.default_rng(5).integers(0, 256, (7, 11, 3), dtype=np.uint8)


def test_every_kind_of_source(pixels: UInt8, tmp_path: Path) -> None:
    data = file_of(Image.fromarray(pixels))
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for source in (pixels, Image.fromarray(pixels), data, io.BytesIO(data), path, str(path)):
        found, metadata = load_rgb(source)
        np.testing.assert_array_equal(found, pixels)
        assert found.dtype == np.uint8
        assert metadata is None


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (100, 0), (255, 255, 255)),
        ("La", (50, 128), (177, 177, 177)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (0, 0, 0, 255), (0, 0, 0)),
        ("RGBA", (9, 9, 9, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("RGBX", (1, 2, 3, 4), (1, 2, 3)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("YCbCr", (90, 128, 128), (90, 90, 90)),
        ("HSV", (0, 0, 200), (200, 200, 200)),
        ("I;16", 0x8123, (0x81, 0x81, 0x81)),
        ("I;16B", 0xFFFF, (255, 255, 255)),
        ("I", 0x81FF, (0x81, 0x81, 0x81)),
        ("I", 0, (0, 0, 0)),
    ],
)
def test_modes(mode: str, value: object, expected: tuple[int, int, int]) -> None:
    found = rgb_of(Image.new(mode, (3, 2), value))  # type: ignore[arg-type]
    assert found.shape == (2, 3, 3)
    assert np.abs(found.astype(int) - expected).max() <= (1 if mode in ("La", "YCbCr") else 0)


def test_palette_and_its_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert rgb_of(file_of(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert rgb_of(file_of(image, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_transparent_colour() -> None:
    data = file_of(Image.new("RGB", (1, 1), (1, 2, 3)), transparency=(1, 2, 3))
    assert rgb_of(data).tolist() == [[[255, 255, 255]]]


def test_16_bit_png_is_scaled_not_clipped() -> None:
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    found = rgb_of(file_of(Image.fromarray(ramp)))
    np.testing.assert_array_equal(found[..., 1], ramp >> 8)


def test_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert rgb_of(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_orientation(orientation: int, kind: str, pixels: UInt8) -> None:
    upright = Image.fromarray(pixels)
    # the camera stores the picture so that the turn of the tag makes it upright
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = upright if orientation == 1 else upright.transpose(TURNS[inverse])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    found, metadata = load_rgb(file_of(stored, kind, exif=exif, **options))
    np.testing.assert_array_equal(found, pixels)
    if kind != "TIFF":  # Pillow deletes the tag there
        assert metadata is not None
        kept = Image.Exif()
        kept.load(metadata.exif or b"")
        assert kept[0x0112] == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12", b"?"]
)
def test_broken_exif_is_ignored(exif: bytes) -> None:
    assert rgb_of(file_of(Image.new("RGB", (3, 2), "red"), "JPEG", exif=exif)).shape == (2, 3, 3)


def test_srgb_profile_changes_nothing(pixels: UInt8) -> None:
    found, metadata = load_rgb(file_of(Image.fromarray(pixels), icc_profile=SRGB))
    np.testing.assert_array_equal(found, pixels)
    assert metadata == Metadata(icc=SRGB)


def test_profile_is_applied() -> None:
    data = file_of(Image.new("RGB", (2, 2), (250, 20, 10)), icc_profile=swapped_profile())
    red, _, blue = rgb_of(data)[0, 0].tolist()
    assert red < 30
    assert blue > 240


def test_profile_under_transparency() -> None:
    image = Image.new("RGBA", (2, 1), (250, 20, 10, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    found = rgb_of(file_of(image, icc_profile=swapped_profile()))
    assert found[0, 0, 2] > 240
    assert found[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("profile", [b"not a profile", SRGB[:200], SRGB])
def test_bad_or_unfitting_profile_is_ignored(mode: str, profile: bytes) -> None:
    plain = file_of(Image.new(mode, (4, 4)), "TIFF")
    tagged = file_of(Image.new(mode, (4, 4)), "TIFF", icc_profile=profile)
    np.testing.assert_array_equal(rgb_of(tagged), rgb_of(plain))


def test_source_image_is_left_alone() -> None:
    image = Image.new("RGBA", (2, 2), (1, 2, 3, 4))
    rgb_of(image)
    assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (1, 2, 3, 4))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 3), np.float32),
        np.zeros((2, 2), np.uint16),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_refused_arrays(array: object) -> None:
    with pytest.raises(ImageError):
        rgb_of(array)


@pytest.mark.parametrize(
    "data", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"DLF\x10", b"\xff\xd8\xff\xe0"]
)
def test_not_an_image(data: bytes) -> None:
    with pytest.raises(ImageError):
        rgb_of(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_cut_off(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = file_of(Image.fromarray(noise), kind)
    with pytest.raises(ImageError):
        rgb_of(data[: len(data) // 2])


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (9999, 9999), (100_000, 100_000), (70_000, 1)])
def test_too_large_is_seen_in_the_header(width: int, height: int) -> None:
    with pytest.raises(LimitExceeded):
        rgb_of(png_header(width, height))


def test_limit_is_the_callers(pixels: UInt8) -> None:
    for source in (pixels, Image.fromarray(pixels)):
        with pytest.raises(LimitExceeded):
            load_rgb(source, max_pixels=76)
        load_rgb(source, max_pixels=77)


def test_refused_kinds() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        rgb_of(Image.new("F", (2, 2)))
    with pytest.raises(ImageError, match="EPS"):
        rgb_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(ImageError, match="no pixels"):
        rgb_of(Image.new("RGB", (0, 4)))


def test_refusals_that_help() -> None:
    with pytest.raises(ImageError, match="the file is empty"):
        rgb_of(b"")
    with pytest.raises(ImageError, match="decode them first"):
        rgb_of(b"DLF\x10\x01\x32")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("", "the image is damaged or cut off"),
        ("Generic Error. Please build\n it anew", "the image is damaged or cut off (Generic Error)"),
    ],
)
def test_what_pillow_says_is_told_in_one_sentence(message: str, told: str) -> None:
    with pytest.raises(ImageError) as caught, pillow_errors():
        raise OSError(message)
    assert str(caught.value) == told


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_rgb(tmp_path / "none.png")


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.JPEG", "x.webp"])
def test_save_keeps_pixels_and_metadata(name: str, pixels: UInt8, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "camera"
    metadata = Metadata(exif=exif.tobytes(), xmp=b"<x:xmpmeta/>")
    save(to_image(pixels, metadata), tmp_path / name)
    with Image.open(tmp_path / name) as found:
        assert found.format == format_of(name).upper()
        assert found.size == (11, 7)
        assert found.getexif()[0x0110] == "camera"
        assert found.info["xmp"] == b"<x:xmpmeta/>"
    if name == "x.png":
        np.testing.assert_array_equal(rgb_of(tmp_path / name), pixels)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x.gif", "x", "x.png.dlf"])
def test_unknown_ending(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="must end in"):
        save(Image.new("RGB", (1, 1)), tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_no_ending(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"picture to '.*image', whose name has no ending: the name must end in"
    ):
        save(Image.new("RGB", (2, 2)), tmp_path / "image")


def test_too_large_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="20000x1"):
        to_bytes(Image.new("RGB", (20000, 1)), "webp")


def test_xmp_orientation_is_made_upright() -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    found, metadata = load_rgb(file_of(Image.new("RGB", (4, 2)), "WEBP", xmp=xmp))
    assert metadata == Metadata(xmp=xmp.replace(b"6", b"1"))
    assert found.shape == (4, 2, 3)


def test_write_replaces_and_follows_links(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    write_bytes(os.devnull, b"gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "x"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]
