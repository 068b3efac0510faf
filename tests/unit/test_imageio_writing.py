"""Output formats, and metadata from every container into every container that can hold it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from dlf.bitstream import metadata as blob
from dlf.errors import ImageError, MissingExtra
from dlf.imageio import (
    FormatSupport,
    format_named,
    format_of,
    formats,
    load_rgb,
    plugins,
    save,
    to_bytes,
    to_image,
)
from dlf.imageio.colour import means_srgb, srgb_profile
from dlf.records import Metadata
from image_files import chunk, file_of

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="tool"/></rdf:RDF></x:xmpmeta>'
    b'<?xpacket end="w"?>'
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HERE = [support.name for support in formats() if support.writable]
SOURCES = [name for name in ("png", "jpeg", "webp", "tiff", "avif", "heic", "jxl") if name in HERE]
TARGETS = [*SOURCES, "ppm"]
LOSSY = [name for name in SOURCES if name not in ("png", "tiff")]
IMAGE = Image.linear_gradient("L").resize((40, 24)).convert("RGB")


def exif_block() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x829A] = 0.01
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def source_file(kind: str) -> bytes:
    """A file with all metadata that its container holds, written by Pillow alone."""
    exif, options = exif_block(), {"icc_profile": SRGB}
    if kind in ("webp", "avif", "heic", "jxl"):  # they know a resolution by EXIF alone
        tags = Image.Exif()
        tags.load(exif)
        tags[0x011A], tags[0x011B], tags[0x0128] = 300.0, 300.0, 2
        exif = tags.tobytes()
    else:
        options["dpi"] = (300, 300)
    if kind == "tiff":
        tags = Image.Exif()
        tags.load(exif)
        tags[700] = XMP
        return file_of(IMAGE, "TIFF", exif=tags, **options)
    if kind == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return file_of(IMAGE, "PNG", exif=exif, pnginfo=text, **options)
    pillow = {"heic": "HEIF"}.get(kind, kind.upper())
    return file_of(IMAGE, pillow, exif=exif, xmp=XMP, **options)


def through(kind: str, target: str) -> bytes:
    """From a file through what a .dlf file stores to a file."""
    rgb, metadata = load_rgb(source_file(kind), strict=True)
    assert metadata is not None
    return to_bytes(to_image(rgb, blob.unpack(blob.pack(metadata))), target)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
def test_metadata_by_pillow(source: str, target: str) -> None:
    rgb, metadata = load_rgb(through(source, target), strict=True)
    assert rgb.shape == (24, 40, 3)
    if target == "ppm":
        assert metadata is None
        return
    assert metadata is not None
    exif = Image.Exif()
    exif.load(metadata.exif or b"")
    assert exif[0x010F] == "Maker"
    assert exif.get_ifd(0x8769)[0x829A] == pytest.approx(0.01)
    assert exif.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
    assert exif.get_ifd(0x8825)[1] == "N"
    assert metadata.xmp is not None
    assert metadata.xmp.strip(b"\0") == XMP
    assert metadata.icc is not None
    assert means_srgb(metadata.icc)
    shown = to_image(rgb, metadata).info["dpi"]
    assert shown == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("source", SOURCES)
def test_metadata_by_exiftool(source: str, tmp_path: Path) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    for target in SOURCES:
        (tmp_path / f"{target}{format_suffix(target)}").write_bytes(through(source, target))
    command = ["exiftool", "-j", "-G1", "-n", str(tmp_path)]
    answers = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert len(answers) == len(SOURCES)
    for answer in answers:
        target = Path(answer["SourceFile"]).stem
        assert answer["IFD0:Make"] == "Maker", target
        assert answer["ExifIFD:ExposureTime"] == pytest.approx(0.01), target
        assert answer["GPS:GPSLatitudeRef"] == "N", target
        assert answer["XMP-xmp:CreatorTool"] == "tool", target
        assert "ExifTool:Warning" not in answer, (target, answer["ExifTool:Warning"])
        if target != "jxl":
            assert "ICC_Profile:ProfileDescription" in answer, target
        resolutions = [value for name, value in answer.items() if name.endswith(":XResolution")]
        resolutions += [0.0254 * value for name, value in answer.items() if name == "PNG-pHYs:PixelsPerUnitX"]
        assert resolutions, target
        assert resolutions == pytest.approx([300] * len(resolutions), abs=0.1), target


def format_suffix(name: str) -> str:
    return next(support.suffixes[0] for support in formats() if support.name == name)


def test_the_written_profile_is_of_the_pixels() -> None:
    wide = bytearray(srgb_profile())
    places = {
        bytes(wide[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(wide[128:132], "big"), 12)
    }
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    wide[red : red + 4], wide[blue : blue + 4] = wide[blue : blue + 4], wide[red : red + 4]
    rgb, metadata = load_rgb(file_of(Image.new("RGB", (8, 8), (250, 20, 10)), icc_profile=bytes(wide)))
    assert metadata == Metadata(icc=bytes(wide))
    written = to_bytes(to_image(rgb, metadata), "png")
    assert Image.open(io.BytesIO(written)).info["icc_profile"] == srgb_profile()
    np.testing.assert_allclose(load_rgb(written)[0].astype(int), rgb, atol=1)
    own = to_image(rgb, Metadata(icc=SRGB))
    assert own.info["icc_profile"] == SRGB
    assert "icc_profile" not in to_image(rgb).info


def test_exif_with_its_mark_goes_everywhere() -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    for exif in (exif_block(), exif_block().removeprefix(b"Exif\0\0")):
        for target in SOURCES:
            found = load_rgb(to_bytes(to_image(rgb, Metadata(exif=exif)), target))[1]
            assert found is not None, target
            tags = Image.Exif()
            tags.load(found.exif or b"")
            assert tags[0x010F] == "Maker", target


def test_metadata_that_imagemagick_wraps_in_text() -> None:
    block = exif_block()
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n"
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", text, zip=True)
    metadata = load_rgb(file_of(IMAGE, pnginfo=info), strict=True)[1]
    assert metadata == Metadata(exif=block.removeprefix(b"Exif\0\0"))


def test_too_large_for_a_jpeg_segment_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    exif = exif_block() + bytes(70_000)
    found = load_rgb(to_bytes(to_image(rgb, Metadata(exif=exif, xmp=b"x" * 70_000)), "jpeg"))[1]
    assert found is None
    assert caplog.text.count("left out") == 2


def test_tags_of_how_a_tiff_is_stored_stay_behind() -> None:
    tags = Image.Exif()
    tags[0x0102], tags[0x0106], tags[0x010F] = (8, 8, 8, 8), 5, "Maker"
    data = to_bytes(to_image(np.full((8, 8, 3), 77, np.uint8), Metadata(exif=tags.tobytes())), "tiff")
    assert load_rgb(data)[0].tolist() == np.full((8, 8, 3), 77).tolist()
    cmyk = file_of(Image.new("CMYK", (8, 8)), "TIFF", exif=tags)
    assert load_rgb(cmyk)[1] == Metadata(exif=load_rgb(cmyk)[1].exif)  # type: ignore[union-attr]
    assert to_bytes(to_image(*load_rgb(cmyk)), "tiff")


def test_resolution_of_a_png() -> None:
    rgb, metadata = load_rgb(file_of(IMAGE, dpi=(300, 150)))
    assert metadata is not None
    assert metadata.exif is None
    assert metadata.dpi == pytest.approx((300, 150), abs=0.02)
    stored = blob.unpack(blob.pack(metadata))
    assert stored.dpi == pytest.approx((300, 150), abs=0.02)
    for target in SOURCES:
        again = load_rgb(to_bytes(to_image(rgb, stored), target))
        assert to_image(*again).info["dpi"] == pytest.approx((300, 150), abs=0.1), target


@pytest.mark.parametrize("target", TARGETS)
def test_output_formats(target: str, tmp_path: Path) -> None:
    data = to_bytes(IMAGE, target)
    assert np.abs(load_rgb(data, strict=True)[0].astype(int) - np.asarray(IMAGE)).max() <= 6
    save(IMAGE, tmp_path / "any.name", format=target)
    assert (tmp_path / "any.name").read_bytes() == data
    save(IMAGE, tmp_path / f"x{format_suffix(target)}")
    assert (tmp_path / f"x{format_suffix(target)}").read_bytes() == data


@pytest.mark.parametrize("target", LOSSY)
def test_quality(target: str) -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    sizes = [len(to_bytes(noise, target, quality)) for quality in (1, 50, 100)]
    assert sizes == sorted(set(sizes))
    for wrong in (0, 101, -1):
        with pytest.raises(ValueError, match="1 to 100"):
            to_bytes(noise, target, wrong)


@pytest.mark.parametrize("target", ["png", "tiff", "ppm"])
def test_quality_of_a_lossless_format(target: str) -> None:
    with pytest.raises(ValueError, match="lossless"):
        to_bytes(IMAGE, target, 90)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("JPG", "jpeg"), ("jpeg", "jpeg"), (".tif", "tiff"), ("HEIF", "heic"), ("ppm", "ppm")],
)
def test_names_of_formats(name: str, expected: str) -> None:
    assert format_named(name) == expected
    assert format_of(f"x.{name.removeprefix('.')}") == expected


def test_unknown_format() -> None:
    with pytest.raises(ImageError, match="must be one of png, jpeg"):
        to_bytes(IMAGE, "gif")


def test_list_of_formats() -> None:
    assert {"png", "jpeg", "webp", "tiff", "ppm"} <= set(HERE)
    listed = {support.name: support for support in formats()}
    for name in TARGETS:
        assert listed[name].readable, name
        assert listed[name].writable, name
        assert listed[name].missing is None, name
    assert listed["gif"] == FormatSupport("gif", (".gif",), readable=True, writable=False)
    assert not {"eps", "wmf", "hdf5"} & listed.keys()


@pytest.mark.parametrize(("name", "module"), [("heic", "pillow_heif"), ("jxl", "pillow_jxl")])
def test_missing_plugin(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    plugins.need_heic.cache_clear()
    plugins.need_jxl.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    support = next(support for support in formats() if support.name == name)
    assert not support.readable
    assert not support.writable
    assert "pip install 'dlf-codec[formats]'" in (support.missing or "")
    with pytest.raises(MissingExtra, match="dlf-codec"):
        to_bytes(IMAGE, name)


@pytest.mark.skipif("jxl" not in HERE, reason="the plugin for JPEG XL is not installed")
def test_jpeg_xl_is_written_in_srgb_alone() -> None:
    image = IMAGE.copy()
    image.info["icc_profile"] = b"some other space"
    with pytest.raises(ImageError, match="sRGB alone"):
        to_bytes(image, "jxl")


def test_picture_keeps_its_own_info_to_itself() -> None:
    image = IMAGE.copy()
    image.info |= {"comment": b"x" * 50, "gamma": 1.0, "exif": exif_block()}
    assert to_bytes(image, "png") == to_bytes(to_image(np.asarray(IMAGE), Metadata(exif=exif_block())), "png")
    assert image.info["comment"] == b"x" * 50
    assert chunk(b"gAMA", b"")[4:8] not in to_bytes(image, "png")


def jpeg_2000(*boxes: tuple[bytes, bytes]) -> bytes:
    """A JPEG 2000 file with boxes (first 16 bytes, the rest) that programs add to it, before its picture."""
    plain = file_of(IMAGE, "JPEG2000")
    at = plain.index(b"jp2c") - 4
    added = b"".join((24 + len(data)).to_bytes(4, "big") + b"uuid" + name + data for name, data in boxes)
    return plain[:at] + added + plain[at:]


def test_metadata_of_jpeg_2000() -> None:
    exif = exif_block().removeprefix(b"Exif\0\0")
    xmp = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    other = (bytes(16), b"of another program")
    data = jpeg_2000(other, (b"JpgTiffExif->JP2", exif), (xmp, XMP), (xmp, b"a second one"))
    rgb, metadata = load_rgb(data, strict=True)
    assert metadata is not None
    assert (rgb.shape, metadata.exif, metadata.xmp) == ((24, 40, 3), exif, XMP)
    assert load_rgb(jpeg_2000(other), strict=True)[1] is None


def gif(xmp: bytes, **options: object) -> bytes:
    """A GIF file with an XMP packet at its end."""
    trailer = bytes([1, *range(255, -1, -1), 0])
    return file_of(IMAGE, "GIF", **options)[:-1] + b"\x21\xff\x0bXMP DataXMP" + xmp + trailer + b"\x3b"


def test_metadata_of_gif() -> None:
    # a comment, an application's block and two frames, each of which has to be walked over
    frames = [IMAGE.rotate(90), IMAGE.rotate(180)]
    data = gif(XMP, comment=b"c" * 600, save_all=True, append_images=frames, loop=0, duration=100)
    metadata = load_rgb(data, strict=True)[1]
    assert metadata is not None
    assert metadata.xmp == XMP
    assert load_rgb(file_of(IMAGE, "GIF"), strict=True)[1] is None
    for cut in range(1, 400, 7):  # behind the picture there is nothing that one has to have
        load_rgb(data[:-cut])


@pytest.mark.parametrize(("kind", "ending"), [("JPEG2000", ".jp2"), ("GIF", ".gif")])
def test_xmp_that_exiftool_wrote(kind: str, ending: str, tmp_path: Path) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    path = tmp_path / f"picture{ending}"
    path.write_bytes(file_of(IMAGE, kind))
    subprocess.run(["exiftool", "-q", "-XMP-dc:Title=Lake", path], check=True)
    metadata = load_rgb(path, strict=True)[1]
    assert metadata is not None
    assert metadata.xmp is not None
    assert b"Lake" in metadata.xmp
