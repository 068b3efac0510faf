"""The list of tests that Pillow has for a format of its own, for ``.dlf`` in Pillow."""

from __future__ import annotations

import io
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

import dlf
from dlf import api, pillow_plugin
from dlf.bitstream import varint
from dlf.bitstream.header import Header
from dlf.codec import bundle
from dlf.records import UInt8
from image_files import swapped_profile

ORIENTATION, MAKER = 0x0112, 0x010F
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HEADER_BYTES = len(Header(1, 50, 50, 40).pack())


pytestmark = pytest.mark.usefixtures("mock_models")


@pytest.fixture
def image(picture: Callable[[int, int], UInt8]) -> Image.Image:
    return Image.fromarray(picture(40, 50))


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "DLF", **options)
    return file.getvalue()


def opened(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data), formats=["DLF"])


def pixels(image: Image.Image | bytes) -> UInt8:
    return np.asarray(opened(image) if isinstance(image, bytes) else image)


def test_sanity(image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "a.dlf", quality=30)
    data = (tmp_path / "a.dlf").read_bytes()
    assert data == dlf.encode(image, 30)
    with Image.open(tmp_path / "a.dlf") as found:
        assert (found.format, found.mode, found.size) == ("DLF", "RGB", (50, 40))
        assert found.info == {"quality": 30, "model": 1}
        assert found.get_format_mimetype() == Image.MIME["DLF"] == "image/x-dlf"
        np.testing.assert_array_equal(pixels(found), pixels(dlf.decode(data)))
    assert Image.registered_extensions()[".dlf"] == "DLF"


def test_opening_needs_no_model(image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(image, exif=Image.Exif(), xmp=XMP)
    monkeypatch.setattr(bundle, "find", None)
    api._default_codec.cache_clear()
    found = opened(data)
    assert (found.size, found.info["xmp"]) == ((50, 40), XMP)
    with pytest.raises(TypeError):
        found.load()


def test_importing_and_opening_load_no_networks(image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "a.dlf")
    code = (
        "import sys, PIL.Image, dlf.pillow_plugin; print(PIL.Image.open(sys.argv[1]).size);"
        "assert not {'onnxruntime', 'constriction', 'torch'} & set(sys.modules)"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "a.dlf")]
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout == "(50, 40)\n"


def test_registering_again_changes_nothing() -> None:
    before = list(Image.ID)
    pillow_plugin.register()
    assert before == Image.ID


def test_quality(image: Image.Image) -> None:
    assert saved(image) == dlf.encode(image)
    assert len(saved(image, quality=0)) < len(saved(image)) < len(saved(image, quality=100))
    for wrong in (-1, 101):
        with pytest.raises(ValueError, match="quality"):
            saved(image, quality=wrong)
    with pytest.raises(TypeError):
        saved(image, quality="high")


def test_unknown_options_are_ignored_as_by_every_format(image: Image.Image) -> None:
    assert saved(image, lossless=True, method=6) == saved(image)


def test_saving_leaves_the_image_as_it_was(image: Image.Image) -> None:
    image.info |= {"exif": b"Exif\0\0", "comment": "mine"}
    before, info = pixels(image).copy(), dict(image.info)
    saved(image, xmp=XMP)
    assert image.info == info
    np.testing.assert_array_equal(pixels(image), before)


def test_an_opened_file_may_be_saved_over_itself(image: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.dlf"
    image.save(path, quality=100)
    size = path.stat().st_size
    with Image.open(path) as found:
        found.save(path, quality=0)
    assert 0 < path.stat().st_size < size


def test_a_failed_save_leaves_no_file(image: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="quality"):
        image.save(tmp_path / "a.dlf", quality=101)
    assert not (tmp_path / "a.dlf").exists()


@pytest.mark.parametrize("data", [b"", b"DLF", b"DLF\x10", b"not an image at all", bytes(100), b"DLF" * 30])
@pytest.mark.filterwarnings("ignore:image file could not be identified")
def test_invalid_file(data: bytes) -> None:
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data))
    with pytest.raises(SyntaxError):
        pillow_plugin.DlfImageFile(io.BytesIO(data))


def test_formats_are_told_apart(image: Image.Image) -> None:
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(saved(image)), formats=["PNG"])
    png = io.BytesIO()
    image.save(png, "PNG")
    with pytest.raises(UnidentifiedImageError):
        opened(png.getvalue())
    assert Image.open(png).format == "PNG"


def test_a_later_version_is_named(image: Image.Image) -> None:
    data = bytearray(saved(image))
    data[3] = 9 << 4
    with pytest.warns(UserWarning, match="version 9"), pytest.raises(UnidentifiedImageError):
        opened(bytes(data))


@pytest.mark.parametrize("length", range(3, HEADER_BYTES))
def test_truncated_in_the_header(length: int, image: Image.Image) -> None:
    with pytest.raises(UnidentifiedImageError):
        opened(saved(image)[:length])


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("length", [HEADER_BYTES, HEADER_BYTES + 1, HEADER_BYTES + 4, -4, -1])
def test_truncated(length: int, lenient: bool, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the header the file opens; then nothing of it is shown, whatever Pillow is told to tolerate."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    found = opened(saved(image)[:length])
    assert found.size == image.size
    for _ in range(2):
        with pytest.raises(OSError, match="checksum"):
            found.load()
    with pytest.raises(OSError, match="checksum"):
        found.verify()


@pytest.mark.parametrize("at", [HEADER_BYTES, -1])
def test_damaged(at: int, image: Image.Image) -> None:
    data = bytearray(saved(image))
    data[at] ^= 1
    with pytest.raises(OSError, match="checksum"):
        opened(bytes(data)).verify()
    with pytest.raises(OSError, match="checksum"):
        opened(bytes(data)).load()


def test_verify(image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "a.dlf")
    found = Image.open(tmp_path / "a.dlf")
    file = found.fp
    found.verify()
    assert file is not None
    assert file.closed


def test_file_of_another_model(image: Image.Image, tmp_path: Path, write_bundle: Callable[..., Path]) -> None:
    other = write_bundle(tmp_path / "other", name="other", id=300)
    data = dlf.Codec(other).encode(image)
    found = opened(data)
    assert found.info["model"] == 300
    with pytest.raises(OSError, match="300 is not installed"):
        found.load()
    opened(data).verify()  # nothing wrong with it, as far as it can be read


@pytest.mark.parametrize("size", [(20_000, 10_000), (70_000, 1), (2**30, 2**30)])
def test_huge(size: tuple[int, int]) -> None:
    data = Header(1, 50, *size).pack() + bytes(4)
    with pytest.raises(Image.DecompressionBombError, match=r"limit|at most"):
        opened(data)


def test_the_limit_of_pillow_holds(image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(image)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)
    with pytest.warns(Image.DecompressionBombWarning):
        opened(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 999)
    with pytest.raises(Image.DecompressionBombError):
        opened(data)


@pytest.mark.parametrize("size", [1, 2**34])
def test_false_metadata(size: int) -> None:
    data = Header(1, 50, 50, 40, has_metadata=True).pack() + varint.pack(size) + b"."
    with pytest.raises(UnidentifiedImageError):
        opened(data)


def test_exif_is_kept_when_asked_for(image: Image.Image) -> None:
    exif = Image.Exif()
    exif[MAKER] = "maker"
    image.info["exif"] = exif.tobytes()
    assert saved(image) == saved(image, exif=None, xmp=None) == dlf.encode(image)
    for given in (exif, exif.tobytes()):
        found = opened(saved(image, exif=given))
        assert found.getexif()[MAKER] == "maker"


def test_given_orientation_is_applied(image: Image.Image) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.info["exif"] = exif.tobytes()
    assert opened(saved(image)).size == (50, 40)  # as Pillow's formats: the image's own is not asked for
    found = opened(saved(image, exif=exif))
    assert found.size == (40, 50)
    assert found.getexif().get(ORIENTATION, 1) == 1
    upright = image.transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(pixels(found), pixels(saved(upright)))


def test_xmp_is_kept_when_asked_for(image: Image.Image) -> None:
    image.info["xmp"] = b"other"
    assert "xmp" not in opened(saved(image)).info
    for given in (XMP, XMP.decode()):
        assert opened(saved(image, xmp=given)).info["xmp"] == XMP


def test_colour_profile_is_applied(image: Image.Image) -> None:
    """The file holds sRGB, so that a profile must neither be lost before nor remain after."""
    profile = swapped_profile()
    own = image.copy()
    own.info["icc_profile"] = profile
    converted = saved(own)
    assert converted == dlf.encode(own) == saved(image, icc_profile=profile)
    assert converted != saved(image) == saved(own, icc_profile=None) == saved(own, icc_profile=SRGB)
    assert "icc_profile" not in opened(converted).info
    exif = Image.Exif()
    exif[MAKER] = "maker"
    with_exif = saved(own, exif=exif)
    assert len(with_exif) < len(converted) + len(exif.tobytes()) + 20  # no profile comes along
    np.testing.assert_array_equal(pixels(with_exif), pixels(converted))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"])
def test_every_mode_is_converted(mode: str, image: Image.Image) -> None:
    via = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    converted = image.convert(via).convert(mode)
    assert saved(converted) == dlf.encode(converted)
    assert opened(saved(converted)).mode == "RGB"


def test_16_bits_and_transparency(image: Image.Image) -> None:
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256)
    assert saved(deep) == saved(image.convert("L"))
    palette = image.quantize(4)
    opaque = saved(palette)
    palette.info["transparency"] = 0
    assert saved(palette) == saved(palette.convert("RGBA")) != opaque


def test_what_cannot_be_written() -> None:
    with pytest.raises(OSError, match="floating-point"):
        saved(Image.new("F", (3, 2)))
    with pytest.raises(ValueError, match="empty image"):
        saved(Image.new("RGB", (0, 2)))


def test_one_frame(image: Image.Image) -> None:
    found = opened(saved(image))
    found.seek(0)
    assert found.tell() == 0
    with pytest.raises(EOFError):
        found.seek(1)


def test_files_are_closed_by_whom_they_belong_to(image: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.dlf"
    image.save(path)
    found = Image.open(path)
    file = found.fp
    found.load()
    assert file is not None
    assert file.closed
    with path.open("rb") as mine:
        Image.open(mine).load()
        assert not mine.closed


def test_data_may_arrive_in_parts(image: Image.Image) -> None:
    data = saved(image, xmp=XMP)
    parser = ImageFile.Parser()
    for at in range(0, len(data), 5):
        parser.feed(data[at : at + 5])
    np.testing.assert_array_equal(pixels(parser.close()), pixels(data))


def test_pickle(image: Image.Image) -> None:
    data = saved(image, xmp=XMP)
    copy = pickle.loads(pickle.dumps(opened(data)))
    assert (copy.format, copy.info["xmp"]) == ("DLF", XMP)
    np.testing.assert_array_equal(pixels(copy), pixels(data))


def test_threads(image: Image.Image, tmp_path: Path) -> None:
    qualities = range(0, 101, 4)
    expected = [pixels(saved(image, quality=quality)) for quality in qualities]
    api._default_codec.cache_clear()

    def there_and_back(quality: int) -> UInt8:
        image.copy().save(
            tmp_path / f"{quality}.dlf", quality=quality
        )  # `save` notes its options in the image
        return pixels(Image.open(tmp_path / f"{quality}.dlf"))

    with ThreadPoolExecutor(8) as pool:
        np.testing.assert_array_equal(list(pool.map(there_and_back, qualities)), expected)


def test_files_of_this_format_are_not_encoded_again_unseen(image: Image.Image, tmp_path: Path) -> None:
    """Whether the plugin is imported must not decide what `dlf.encode` makes of a folder."""
    image.save(tmp_path / "a.dlf")
    found = opened(saved(image))
    for source in (tmp_path / "a.dlf", saved(image), found):
        with pytest.raises(dlf.ImageError, match="decode them first"):
            dlf.encode(source)
    assert saved(found, quality=20) == dlf.encode(dlf.decode(saved(image)), 20)


def test_the_examples_of_the_documentation_run(
    image: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("imageio")
    text = (Path(__file__).parents[2] / "docs" / "pillow.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    image.save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        names: dict[str, object] = {}
        exec(block, names)
    assert names["shape"] == (40, 50, 3)
    assert (tmp_path / "photo.dlf").read_bytes() == saved(Image.open("photo.jpg"), quality=30)
