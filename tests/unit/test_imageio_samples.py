"""Samples of any depth and meaning get the right values, or the file is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dlf.errors import ImageError
from dlf.imageio import load_rgb
from image_files import chunk, file_of, png, tiff

GREY12 = bytes([0x80, 0x08, 0x00]) * 32
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
SAMPLE_FORMAT, PLANAR, EXTRA_SAMPLES, COLOUR_MAP, INK_SET, SUBSAMPLING = 339, 284, 338, 320, 332, 530


def first(source: object, **options: bool) -> list[int]:
    """The first pixel, after a look whether the others are the same."""
    rgb = load_rgb(source, **options)[0]  # type: ignore[arg-type]
    assert (rgb == rgb[0, 0]).all()
    colour: list[int] = rgb[0, 0].tolist()
    return colour


def repeated(code: str, *numbers: int) -> bytes:
    return struct.pack(code, *numbers) * 64


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(GREY12, bits=12), 128),
        (tiff(zlib.compress(GREY12), bits=12, extra={259: ("H", [8])}), 128),
        (tiff(zlib.compress(repeated("<H", 0xF012)), bits=16, photometric=0, extra={259: ("H", [8])}), 0x0F),
        (tiff(b"\xff" * 96, bits=12), 255),
        (tiff(bytes(96), bits=12), 0),
        (tiff(repeated("<H", 0x8012), bits=16), 0x80),
        (tiff(repeated(">H", 0x8012), bits=16, order=">"), 0x80),
        (tiff(repeated("<H", 0xF012), bits=16, photometric=WHITE_IS_ZERO), 0x0F),
        (tiff(repeated("B", 0xF0), photometric=WHITE_IS_ZERO), 0x0F),
        (tiff(bytes(8), bits=1, photometric=WHITE_IS_ZERO), 255),
        (tiff(b"\x11" * 32, bits=4, photometric=WHITE_IS_ZERO), 238),
        (tiff(b"\x55" * 16, bits=2), 85),
        (tiff(repeated("<I", 0x80000000), bits=32), 0x80),
        (tiff(repeated("<I", 0xFFFFFFFF), bits=32), 255),
    ],
)
def test_grey_tiff(data: bytes, expected: int) -> None:
    assert first(data) == [expected] * 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_tiff(order: str, planes: int, bits: int) -> None:
    samples = np.broadcast_to(np.array([0x12, 0x80, 0xFE], np.uint16), (8, 8, 3))
    if bits == 16:
        samples = samples << 8 | 0x55
    if planes == 3:
        samples = np.moveaxis(samples, 2, 0)
    data = samples.astype(np.dtype(f"{order}u{bits // 8}")).tobytes()
    extra = {PLANAR: ("H", [2])} if planes == 3 else None
    file = tiff(data, bits=[bits] * 3, photometric=RGB, order=order, planes=planes, extra=extra)
    assert first(file) == [0x12, 0x80, 0xFE]


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_signed_and_floating_samples_are_refused(kind: int, bits: int) -> None:
    data = bytes(64 * bits // 8)
    with pytest.raises(ImageError):
        first(tiff(data, bits=bits, extra={SAMPLE_FORMAT: ("H", [kind])}))


def test_compressed_grey_tiff() -> None:
    for mode, value in (("I;16", 0x8012), ("L", 0x80)):
        assert first(file_of(Image.new(mode, (8, 8), value), "TIFF", compression="tiff_lzw")) == [0x80] * 3


@pytest.mark.parametrize("step", [1, 256])
def test_palette_of_bytes_or_words(step: int) -> None:
    palette = [40 * step] * 256 + [80 * step] * 256 + [200 * step] * 256
    assert first(tiff(bytes(64), photometric=PALETTE, extra={COLOUR_MAP: ("H", palette)})) == [40, 80, 200]


def test_extra_samples() -> None:
    associated = tiff(
        repeated("4B", 64, 0, 0, 128), bits=[8] * 4, photometric=RGB, extra={EXTRA_SAMPLES: ("H", [1])}
    )
    assert np.abs(np.array(first(associated)) - [191, 127, 127]).max() <= 1
    straight = tiff(
        repeated("4B", 255, 0, 0, 51), bits=[8] * 4, photometric=RGB, extra={EXTRA_SAMPLES: ("H", [2])}
    )
    assert first(straight) == [255, 204, 204]
    unknown = tiff(
        repeated("4B", 255, 0, 0, 51), bits=[8] * 4, photometric=RGB, extra={EXTRA_SAMPLES: ("H", [0])}
    )
    assert first(unknown) == [255, 0, 0]


def test_other_inks_are_refused() -> None:
    data = repeated("4B", 0, 0, 0, 255)
    assert first(tiff(data, bits=[8] * 4, photometric=CMYK)) == [0, 0, 0]
    with pytest.raises(ImageError, match="inks"):
        first(tiff(data, bits=[8] * 4, photometric=CMYK, extra={INK_SET: ("H", [2])}))


def test_uncompressed_ycbcr() -> None:
    data = repeated("3B", 90, 128, 128)
    plain = tiff(data, bits=[8] * 3, photometric=YCBCR, extra={SUBSAMPLING: ("H", [1, 1])})
    assert first(plain) == [90] * 3
    with pytest.raises(ImageError, match="YCbCr"):
        first(tiff(data, bits=[8] * 3, photometric=YCBCR))  # without the tag, 2x2


def test_lab_tiff() -> None:
    red, green, blue = first(tiff(repeated("3B", 128, 0, 0), bits=[8] * 3, photometric=LAB))
    assert red == green == blue
    assert abs(red - 119) <= 2  # L* of 50.2


@pytest.mark.parametrize(
    ("samples", "colour_type", "key", "bits", "expected"),
    [
        (np.array([[0, 3]]), 0, [3], 2, [[0], [255]]),
        (np.array([[1, 0]]), 0, [1], 2, [[255], [0]]),
        (np.array([[1, 9]]), 0, [9], 4, [[17], [255]]),
        (np.array([[0, 1]]), 0, [0], 1, [[255], [255]]),
        (np.array([[7, 8]]), 0, [8], 8, [[7], [255]]),
        (np.array([[0x1234, 0x1235]]), 0, [0x1234], 16, [[255], [0x12]]),
        (np.array([[[1, 2, 3], [1, 2, 4]]]), 2, [1, 2, 3], 8, [[255] * 3, [1, 2, 4]]),
        (
            np.array([[[0x1234, 0x5678, 0x9ABC], [0x1234, 0x5678, 0x9ABD]]]),
            2,
            [0x1234, 0x5678, 0x9ABC],
            16,
            [[255] * 3, [0x12, 0x56, 0x9A]],
        ),
    ],
)
def test_transparent_colour_of_any_depth(
    samples: np.ndarray, colour_type: int, key: list[int], bits: int, expected: list[list[int]]
) -> None:
    typed = samples.astype(np.uint16 if bits == 16 else np.uint8)
    data = png(typed, colour_type, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)), bits=bits)
    rgb = load_rgb(data)[0]
    assert (rgb[0] == np.array(expected)).all()


def test_transparent_palette_entries() -> None:
    data = png(
        np.array([[0, 1]], np.uint8),
        3,
        chunk(b"PLTE", bytes([200, 0, 0, 0, 0, 0])),
        chunk(b"tRNS", bytes([255, 51])),
        bits=8,
    )
    assert load_rgb(data)[0].tolist() == [[[200, 0, 0], [204, 204, 204]]]


@pytest.mark.parametrize(
    ("colour_type", "sample", "expected"),
    [
        (0, [0x8055], [0x80] * 3),
        (2, [0x8055, 0x1234, 0xFFFF], [0x80, 0x12, 0xFF]),
        (4, [0x8055, 0xFFFF], [0x80] * 3),
        (4, [0x8055, 0], [255] * 3),
        (6, [0x8055, 0x1234, 0xFFFF, 0xFFFF], [0x80, 0x12, 0xFF]),
        (6, [0, 0, 0, 0], [255] * 3),
    ],
)
def test_16_bit_png(colour_type: int, sample: list[int], expected: list[int]) -> None:
    samples = np.broadcast_to(np.array(sample, np.uint16), (4, 4, len(sample)))
    assert first(png(samples, colour_type)) == expected


def test_grey_of_netpbm_is_scaled_by_its_maximum() -> None:
    assert first(b"P5 2 2 4095\n" + struct.pack(">H", 2048) * 4) == [128] * 3
    assert first(b"P5 2 2 15\n" + bytes([15] * 4)) == [255] * 3
    assert first(b"P6 2 2 1023\n" + struct.pack(">3H", 1023, 512, 0) * 4) == [255, 128, 0]


def test_grey_of_jpeg_2000() -> None:
    assert first(file_of(Image.new("I;16", (8, 8), 0x8012), "JPEG2000")) == [0x80] * 3


@pytest.mark.parametrize("values", [(-5, 7), (0, 70000), (0, 255)])
def test_numbers_without_a_range_are_refused(values: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="no defined black and white"):
        load_rgb(Image.fromarray(np.array([values], np.int32)))


def test_science_without_a_range_is_refused() -> None:
    card = [b"SIMPLE  = T", b"BITPIX  = 16", b"NAXIS   = 2", b"NAXIS1  = 2", b"NAXIS2  = 2", b"END"]
    fits = b"".join(line.ljust(80) for line in card).ljust(2880) + struct.pack(">4h", -1, 2, 3, 4).ljust(
        2880, b"\0"
    )
    with pytest.raises(ImageError, match="no defined white"):
        load_rgb(fits)


def test_icon_gives_its_largest_picture() -> None:
    image = Image.new("RGBA", (64, 64), (10, 20, 30, 255))
    rgb = load_rgb(file_of(image, "ICO", sizes=[(16, 16), (64, 64), (32, 32)]))[0]
    assert rgb.shape == (64, 64, 3)
    assert rgb[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF", "MPO"])
def test_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(np.array(first(data)) - [255, 0, 0]).max() <= 4


def test_cmyk_jpeg() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(np.array(first(file_of(cyan, "JPEG", quality=100))) - [0, 255, 255]).max() <= 3


def test_set_bits_of_xbm_are_ink() -> None:
    head = b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {\n"
    data = head + b"0x01\n};\n"
    for source in (data, Image.open(io.BytesIO(data))):
        assert np.array_equal(load_rgb(source)[0][0, :, 0], [0] + [255] * 7)


def test_fourth_channel_of_tga() -> None:
    data = bytearray(file_of(Image.new("RGBA", (4, 4), (200, 100, 50, 0)), "TGA"))
    assert first(bytes(data)) == [255] * 3
    data[17] &= 0xF0  # no bits of transparency
    assert first(bytes(data)) == [200, 100, 50]


def test_palette_with_transparency_in_memory() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 51], "RGBA")
    assert first(image) == [255, 204, 204]


def test_what_only_looks_like_transparency_survives() -> None:
    assert first(file_of(Image.new("LA", (4, 4), (9, 255)))) == [9] * 3
    assert first(file_of(Image.new("PA", (4, 4)).convert("LA"))) == [255] * 3
