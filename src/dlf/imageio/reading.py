"""From any picture to upright sRGB; the package's docstring has the order of what happens."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from dlf.errors import ImageError
from dlf.imageio import metadata as meta
from dlf.imageio import opening
from dlf.imageio.colour import Encoding, encoding_of_info, encoding_of_signal
from dlf.imageio.opening import Opened
from dlf.imageio.problems import Problems
from dlf.imageio.samples import Meaning, flatten
from dlf.imageio.sidecar import Sidecar, Signal
from dlf.limits import MAX_PIXELS, check_size
from dlf.records import Metadata, UInt8

Source = Image.Image | NDArray[np.uint8] | str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A picture, its pixels, the path of its file, the bytes of its file, or an open binary file."""


def load_rgb(
    source: Source, *, max_pixels: int = MAX_PIXELS, strict: bool = False
) -> tuple[UInt8, Metadata | None]:
    """Read a picture as upright sRGB.

    Args:
        source: see `Source`; an array is uint8 (H, W), (H, W, 3) or, with alpha, (H, W, 4).  A PIL image
            that `Image.open` gave is its file, and turned as its EXIF says.  Any other PIL image was made in
            memory and is taken as its pixels stand: who turned it need not have changed its EXIF.
        max_pixels: limit of width * height, checked before any pixel is decoded; Pillow's own does not
            count.
        strict: refuse a file with a flaw that can be passed over (no end marker, a broken colour profile
            or EXIF block), instead of logging a warning.

    Returns:
        uint8 (H, W, 3), possibly read-only; and the metadata that came along, or None.  Its EXIF and
        XMP say "upright", as the pixels are; its ICC profile is the source's, no longer the pixels'.

    Raises:
        ImageError: not an image, of a kind that cannot be read rightly, damaged or cut off.
        LimitExceeded: too large.
        MissingExtra: the format needs a plugin; the message holds the line to type.
        OSError: the file cannot be opened.
        TypeError: not a source at all.
    """
    problems = Problems(strict=strict)
    if isinstance(source, (bytes, bytearray, memoryview)):
        pixels = _from_file(io.BytesIO(source), max_pixels, problems)
    elif isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            pixels = _from_file(file, max_pixels, problems)
    elif isinstance(source, np.ndarray):
        pixels = _from_memory(_from_array(source, max_pixels), max_pixels, problems)
    elif isinstance(source, Image.Image):
        pixels = _from_memory(source, max_pixels, problems)
    elif hasattr(source, "read"):
        pixels = _from_file(_seekable(source), max_pixels, problems)
    else:
        msg = (
            f"a picture is a PIL image, an array, a path, bytes or a binary file, not {type(source).__name__}"
        )
        raise TypeError(msg)
    problems.warn()
    return pixels


def _from_array(array: NDArray[np.uint8], max_pixels: int) -> Image.Image:
    """Check an array's form before Pillow sees it."""
    has_form = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not has_form:
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


def _seekable(file: BinaryIO) -> BinaryIO:
    """The file itself, or what is left of it in memory."""
    try:
        file.seek(0)
    except (AttributeError, OSError):  # io.UnsupportedOperation is one
        return io.BytesIO(file.read())
    return file


def _from_memory(image: Image.Image, max_pixels: int, problems: Problems) -> tuple[UInt8, Metadata | None]:
    sidecar = Sidecar(turned=not isinstance(image, ImageFile.ImageFile))
    with opening.pillow_errors():
        return _convert(opening.load(image, max_pixels, sidecar, problems), problems)


def _from_file(file: BinaryIO, max_pixels: int, problems: Problems) -> tuple[UInt8, Metadata | None]:
    with opening.pillow_errors():
        opened = opening.open_file(file, max_pixels, problems)
        with opened.image:
            return _convert(opened, problems)


def _convert(opened: Opened, problems: Problems) -> tuple[UInt8, Metadata | None]:
    """Colours, transparency, turning, metadata of a loaded picture."""
    image, sidecar = opened.image, opened.sidecar
    profile, encoding = _colours(image, sidecar, problems)
    rgb = flatten(image, Meaning(profile, encoding, opened.depth, opened.low_bytes), problems)
    # libjxl turns, but for the JPEG files that it hands out whole
    turned = sidecar.turned or (image.format == "JXL" and not getattr(image, "jpeg", False))
    if not turned and (orientation := meta.orientation(image, problems)) != 1:
        rgb.info = {}  # its own EXIF may be broken
        rgb.getexif()[meta.ORIENTATION] = orientation
        rgb = ImageOps.exif_transpose(rgb)
    return np.asarray(rgb), meta.collect(image, sidecar, problems)


def _colours(image: Image.Image, sidecar: Sidecar, problems: Problems) -> tuple[bytes | None, Encoding]:
    """ICC profile and, where that is absent or of no use, what else the file says of its colours."""
    profile = sidecar.icc or image.info.get("icc_profile")
    signal = sidecar.signal
    if image.format == "HEIF" and (nclx := image.info.get("nclx_profile")):
        signal = Signal(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))
    if image.format == "PNG" and signal is not None:
        profile = None  # cICP counts more there; elsewhere the profile does
    if signal is not None and not profile:
        return None, encoding_of_signal(signal)
    return profile, encoding_of_info(image.info, problems)
