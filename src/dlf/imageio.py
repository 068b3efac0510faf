"""Pictures in and out: anything Pillow reads to upright 8-bit sRGB, and back to PNG, JPEG or WebP.

What happens to each kind of input, in this order:

- more than one frame: the first;
- 16-bit grey: divided by 256, rounded down; 1-bit, grey, palette: the colours they stand for;
- an embedded ICC profile: converted to sRGB (a profile that is broken or does not fit is ignored);
- CMYK, YCbCr, LAB, HSV without a profile: Pillow's standard conversion;
- transparency of any kind: composited on white;
- EXIF orientation: applied.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from dlf.errors import DlfError, ImageError, LimitExceeded
from dlf.files import write_bytes
from dlf.limits import MAX_PIXELS, check_size
from dlf.records import Metadata, UInt8

log = logging.getLogger(__name__)

Source = Image.Image | NDArray[np.uint8] | str | os.PathLike[str] | bytes | BinaryIO
"""A picture, its pixels, the path of its file, the bytes of its file, or an open binary file."""

SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
"""Output format of each file name ending."""

SAVE_OPTIONS: dict[str, dict[str, int]] = {
    "png": {},
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"quality": 90},
}

ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

REFUSED = {
    "DLF": ".dlf files are not encoded again: decode them first",
    "EPS": "EPS files are not read: Pillow hands them to a program that is no place for untrusted files",
    "WMF": "WMF files are not read: Pillow hands them to the system, no place for untrusted files",
}
"""Formats that Pillow knows and that are not read, each with the reason."""


def load_rgb(source: Source, *, max_pixels: int = MAX_PIXELS) -> tuple[UInt8, Metadata | None]:
    """Read a picture as upright sRGB.

    Args:
        source: see `Source`; an array is uint8 (H, W), (H, W, 3) or, with alpha, (H, W, 4).
        max_pixels: limit of width * height, checked before any pixel is decoded.

    Returns:
        uint8 (H, W, 3), possibly read-only; and the metadata that came along, or None.  Its EXIF and
        XMP say "upright", as the pixels are; its ICC profile is the source's, no longer the pixels'.

    Raises:
        ImageError: not an image, of an unknown kind, damaged or cut off.
        LimitExceeded: too large.
        OSError: the file cannot be opened.
    """
    if isinstance(source, np.ndarray):
        image = _from_array(source, max_pixels)
    elif isinstance(source, Image.Image):
        image = source
    elif isinstance(source, bytes):
        return _read(io.BytesIO(source), max_pixels)
    elif isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            return _read(file, max_pixels)
    else:
        return _read(source, max_pixels)
    with _pillow_errors():
        return _convert(image, max_pixels)


def to_image(rgb: UInt8, metadata: Metadata | None = None) -> Image.Image:
    """Turn uint8 (H, W, 3) into a picture; EXIF and XMP go into its `info`, from where `save` takes them."""
    image = Image.fromarray(rgb)
    if metadata is not None:
        image.info |= {
            key: part for key, part in (("exif", metadata.exif), ("xmp", metadata.xmp)) if part is not None
        }
    return image


def format_of(path: str | os.PathLike[str]) -> str:
    """Return "png", "jpeg" or "webp" by the ending of a file name.

    Raises:
        ImageError: any other ending.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in SUFFIXES:
        msg = f"cannot write a picture as '{suffix}': the name must end in {', '.join(SUFFIXES)}"
        raise ImageError(msg)
    return SUFFIXES[suffix.lower()]


def to_bytes(image: Image.Image, kind: str) -> bytes:
    """Return the file of a picture; kind: "png", "jpeg" or "webp".

    Raises:
        ImageError: the format cannot hold the picture (WebP ends at 16383 pixels a side).
    """
    options: dict[str, object] = dict(SAVE_OPTIONS[kind])
    if exif := image.info.get("exif"):
        options["exif"] = exif
    if xmp := image.info.get("xmp"):
        if kind == "png":
            text = PngImagePlugin.PngInfo()
            text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
            options["pnginfo"] = text
        else:
            options["xmp"] = xmp
    file = io.BytesIO()
    try:
        image.save(file, kind, **options)
    except (OSError, ValueError) as error:
        msg = f"a picture of {image.width}x{image.height} cannot be written as {kind} ({error})"
        raise ImageError(msg) from error
    return file.getvalue()


def save(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture, whole or not at all, in the format that the ending of the name says.

    Raises:
        ImageError: unknown ending, or the format cannot hold the picture.
        OSError: the file cannot be written.
    """
    write_bytes(path, to_bytes(image, format_of(path)))


def _from_array(array: NDArray[np.uint8], max_pixels: int) -> Image.Image:
    """Check an array's form before Pillow sees it."""
    known = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not known:
        msg = (
            f"an array of {array.dtype} {array.shape} is not a picture: "
            "it must be uint8 (H, W), (H, W, 3) or (H, W, 4)"
        )
        raise ImageError(msg)
    check_size(array.shape[1], array.shape[0], max_pixels)
    if array.size == 0:
        msg = "the picture has no pixels"
        raise ImageError(msg)
    return Image.fromarray(array)


def _read(file: BinaryIO, max_pixels: int) -> tuple[UInt8, Metadata | None]:
    with _pillow_errors(), Image.open(file) as image:
        return _convert(image, max_pixels)


@contextmanager
def _pillow_errors() -> Iterator[None]:
    """Turn whatever Pillow raises on bad files (nearly anything) into our errors."""
    try:
        yield
    except (DlfError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        msg = "the picture is far above the limit of pixels"
        raise LimitExceeded(msg) from error
    except UnidentifiedImageError as error:
        msg = "this is not an image of a known format"
        raise ImageError(msg) from error
    except Exception as error:
        msg = f"the image is damaged or cut off ({error})"
        raise ImageError(msg) from error


def _convert(image: Image.Image, max_pixels: int) -> tuple[UInt8, Metadata | None]:
    """Decode, convert and turn an opened picture; the order is the module docstring's."""
    check_size(*image.size, max_pixels)
    if 0 in image.size:
        msg = "the picture has no pixels"
        raise ImageError(msg)
    if image.format in REFUSED:
        raise ImageError(REFUSED[image.format])
    image.load()  # some formats know their metadata only now
    rgb = _flatten(image)
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        rgb = rgb.transpose(turn)
    return np.asarray(rgb), _metadata(image)


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode to RGB in sRGB, without alpha."""
    profile = image.info.get("icc_profile")
    if image.mode == "F":
        msg = "pictures of floating-point numbers have no defined range and are not read"
        raise ImageError(msg)
    if image.mode.startswith("I"):
        image = _high_byte(image)
    if image.mode == "La":
        image = image.convert("LA")
    elif image.mode in ("P", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if "A" not in image.getbands() or image.mode == "LAB":
        return _to_srgb(image, profile)
    alpha = image.getchannel("A")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(_to_srgb(image.convert("L" if image.mode == "LA" else "RGB"), profile), mask=alpha)
    return flat


def _high_byte(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits; mode I holds 32 bits, of which only 16-bit values mean a grey level."""
    values = np.asarray(image)
    return Image.fromarray(np.clip(values.astype(np.int32) >> 8, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an opaque picture to RGB, by its ICC profile where that can be done."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = source.profile.xcolor_space.strip()
            if space == "RGB" and image.mode != "CMYK":
                image = image.convert("RGB")
            if image.mode == {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space):
                converted = ImageCms.profileToProfile(
                    image,
                    source,
                    ImageCms.createProfile("sRGB"),
                    renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    outputMode="RGB",
                    flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
                if converted is not None:
                    return converted
            log.warning("ignored a colour profile for %s in a picture of mode %s", space, image.mode)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
            log.warning("ignored a broken colour profile: %s", error)
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where absent or unreadable."""
    try:
        value = image.getexif().get(ORIENTATION_TAG)
    except Exception as error:  # a broken EXIF block raises nearly anything, and the pixels are good
        log.warning("ignored broken EXIF data: %s", error)
        return 1
    return value if isinstance(value, int) else 1


def _metadata(image: Image.Image) -> Metadata | None:
    """Collect what came along, made to say that the picture is upright."""
    icc, exif, xmp = (_as_bytes(image.info.get(key)) for key in ("icc_profile", "exif", "xmp"))
    if not (icc or exif or xmp):
        return None
    if exif:
        exif = _upright_exif(exif)
    if xmp:
        xmp = re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|>))[2-8]", rb"\g<1>1", xmp)
    return Metadata(icc, exif, xmp)


def _as_bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        value = value.encode()
    return value if isinstance(value, bytes) and value else None


def _upright_exif(exif: bytes) -> bytes:
    """Set the orientation in the first directory of an EXIF block to 1; all other bytes stay."""
    head = 6 if exif.startswith(b"Exif\0\0") else 0
    mark = exif[head : head + 2]
    if mark not in (b"II", b"MM"):
        return exif
    order: Literal["little", "big"] = "little" if mark == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], order)

    directory = head + number(head + 4, 4)
    entries = range(directory + 2, directory + 2 + 12 * number(directory, 2), 12)
    for entry in entries:
        if entry + 12 <= len(exif) and number(entry, 2) == ORIENTATION_TAG:
            return exif[: entry + 8] + (1).to_bytes(2, order) + exif[entry + 10 :]
    return exif
