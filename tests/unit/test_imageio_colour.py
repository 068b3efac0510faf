"""What a file says of its colours is applied: profiles, gamma and primaries, code points."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from dlf.errors import ImageError
from dlf.imageio import load_rgb
from dlf.imageio.colour import means_srgb, srgb_profile
from image_files import chunk, file_of, png

SRGB_GAMA = chunk(b"gAMA", struct.pack(">I", 45455))
LINEAR = chunk(b"gAMA", struct.pack(">I", 100_000))
SRGB_CHUNK = chunk(b"sRGB", b"\0")
P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def chrm(primaries: tuple[int, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *primaries))


def one(colour: list[int], dtype: type = np.uint8) -> np.ndarray:
    return np.broadcast_to(np.array(colour, dtype), (2, 2, len(colour)))


def first(data: bytes) -> list[int]:
    colour: list[int] = load_rgb(data)[0][0, 0].tolist()
    return colour


def near(colour: list[int], expected: list[int], by: int = 1) -> bool:
    return bool(np.abs(np.array(colour) - expected).max() <= by)


@pytest.mark.parametrize(
    "chunks",
    [
        (),
        (SRGB_GAMA,),
        (SRGB_GAMA, chrm(SRGB_PRIMARIES)),
        (SRGB_CHUNK, LINEAR),
        (SRGB_CHUNK, chrm(P3)),
        (chunk(b"gAMA", struct.pack(">I", 0)),),
        (chrm((31270, 32900) + (30000, 30000) * 3),),
        (chunk(b"cICP", bytes([1, 13, 0, 1])), LINEAR),
    ],
)
def test_srgb_stays(chunks: tuple[bytes, ...]) -> None:
    assert first(png(one([200, 100, 7]), 2, *chunks)) == [200, 100, 7]


def test_linear_light() -> None:
    assert first(png(one([128, 0, 255]), 2, LINEAR)) == [188, 0, 255]
    assert first(png(np.full((2, 2), 128, np.uint8), 0, LINEAR)) == [188] * 3
    assert first(png(np.full((2, 2), 128, np.uint8), 0, SRGB_GAMA)) == [128] * 3


def test_linear_light_in_memory() -> None:
    image = Image.open(io.BytesIO(png(one([128, 0, 255]), 2, LINEAR)))
    for source in (image, image.copy()):
        assert load_rgb(source)[0][0, 0].tolist() == [188, 0, 255]


def test_lab_with_its_profile() -> None:
    lab = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), (200, 100, 50)), ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
    )
    assert image is not None
    rgb = load_rgb(file_of(image, "TIFF"), strict=True)[0]
    assert near(rgb[0, 0].tolist(), [200, 100, 50])


def test_dark_linear_light_keeps_its_16_bits() -> None:
    samples = np.arange(256, dtype=np.uint16).reshape(16, 16)
    expected = np.rint(255 * 12.92 * samples / 65535)  # the straight part of sRGB's curve
    grey = load_rgb(png(samples, 0, LINEAR))[0]
    assert np.abs(grey[..., 1] - expected).max() <= 1
    rgb = load_rgb(png(np.repeat(samples[..., None], 3, axis=2), 2, LINEAR))[0]
    assert np.abs(rgb[..., 2] - expected).max() <= 1


def test_linear_light_under_transparency() -> None:
    assert first(png(one([128, 128, 128, 255]), 6, LINEAR)) == [188] * 3
    assert first(png(one([128, 128, 128, 0]), 6, LINEAR)) == [255] * 3


def test_wide_primaries() -> None:
    assert first(png(one([255, 255, 255]), 2, SRGB_GAMA, chrm(P3))) == [255] * 3
    assert near(first(png(one([128, 128, 128]), 2, SRGB_GAMA, chrm(P3))), [128] * 3)
    # a P3 colour inside sRGB: (200, 100, 50) of Display P3
    assert near(first(png(one([200, 100, 50]), 2, SRGB_GAMA, chrm(P3))), [215, 93, 31])
    assert near(first(png(one([200, 100, 50]), 2, chunk(b"cICP", bytes([12, 13, 0, 1])))), [215, 93, 31])


@pytest.mark.parametrize("transfer", [16, 18, 3, 99])
def test_signals_without_a_picture_in_srgb_are_refused(transfer: int) -> None:
    with pytest.raises(ImageError, match="not read"):
        first(png(one([1, 2, 3]), 2, chunk(b"cICP", bytes([9, transfer, 0, 1]))))
    with pytest.raises(ImageError, match="not read"):
        first(png(one([1, 2, 3]), 2, chunk(b"cICP", bytes([9, 13, 0, 0]))))


def test_hdr_avif_is_refused() -> None:
    if not features.check("avif"):
        pytest.skip("this build of Pillow has no AVIF")
    data = file_of(Image.new("RGB", (64, 64), (200, 100, 50)), "AVIF", quality=100, subsampling="4:4:4")
    assert near(first(data), [200, 100, 50], 3)
    at = data.index(b"colrnclx") + 8
    hdr = data[:at] + struct.pack(">2H", 9, 16) + data[at + 4 :]
    with pytest.raises(ImageError, match="high dynamic range"):
        first(hdr)
    p3 = data[:at] + struct.pack(">2H", 12, 13) + data[at + 4 :]
    assert near(first(p3), [215, 93, 31], 4)


def test_heic_of_ten_bits_and_hdr_heic() -> None:
    heif = pytest.importorskip("pillow_heif")
    samples = np.full((64, 64, 3), 0x8000, "<u2").tobytes()

    def written(**options: object) -> bytes:
        out = io.BytesIO()
        heif.from_bytes("RGB;16", (64, 64), samples).save(out, quality=-1, bit_depth=10, **options)
        return out.getvalue()

    assert near(first(written()), [128] * 3)
    with pytest.raises(ImageError, match="high dynamic range"):
        first(
            written(color_primaries=9, transfer_characteristics=16, matrix_coefficients=9, full_range_flag=1)
        )


def grey_profile(gamma: int = 1) -> bytes:
    """A grey ICC profile with a plain exponent."""

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in values))

    white = xyz(0.9642, 1, 0.8249)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 256 * gamma) + bytes(2)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(4 + 4 + 2 + 1 + 67)
    parts = [
        (b"wtpt", white),
        (b"kTRC", curve),
        (b"desc", name.ljust(96, b"\0")),
        (b"cprt", b"text\0\0\0\0none"),
    ]
    at, table, body = 128 + 4 + 12 * len(parts), struct.pack(">I", len(parts)), b""
    for tag, part in parts:
        table += tag + struct.pack(">2I", at + len(body), len(part))
        body += part
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *(round(65536 * value) for value in (0.9642, 1, 0.8249)))
    return head.ljust(128, b"\0") + table + body


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (2, 2), 128),
        Image.new("LA", (2, 2), (128, 255)),
        Image.new("I;16", (2, 2), 128 * 257),
        Image.new("1", (2, 2), 1),
    ],
    ids=lambda image: image.mode,
)
def test_grey_picture_with_a_grey_profile(image: Image.Image) -> None:
    data = file_of(image, icc_profile=grey_profile())
    assert near(first(data), [255 if image.mode == "1" else 188] * 3)


def test_grey_picture_with_an_rgb_profile() -> None:
    assert near(first(file_of(Image.new("L", (2, 2), 128), icc_profile=srgb_profile())), [128] * 3)


def test_profile_counts_more_than_gamma() -> None:
    samples = np.full((2, 2), 128, np.uint8)
    packed = b"grey\0\0" + zlib.compress(grey_profile())
    assert first(png(samples, 0, chunk(b"iCCP", packed), SRGB_GAMA)) == [188] * 3
    broken = b"grey\0\0" + zlib.compress(b"no profile")
    assert first(png(samples, 0, chunk(b"iCCP", broken), LINEAR)) == [188] * 3


def test_profiles_of_srgb_are_known(swapped: bytes) -> None:
    assert means_srgb(srgb_profile())
    assert means_srgb(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert not means_srgb(swapped)
    assert not means_srgb(grey_profile())
    assert not means_srgb(b"nothing")
    assert srgb_profile() == srgb_profile()


@pytest.fixture
def swapped() -> bytes:
    """An sRGB profile whose red and blue primaries changed places."""
    data = bytearray(srgb_profile())
    places = {
        bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(data[128:132], "big"), 12)
    }
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = data[blue : blue + 4], data[red : red + 4]
    return bytes(data)
