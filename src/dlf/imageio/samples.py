"""From any of Pillow's modes to opaque 8-bit RGB on white."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlf.errors import ImageError
from dlf.imageio import tiff
from dlf.imageio.colour import Encoding, by_profile, decode_curve
from dlf.imageio.problems import Problems
from dlf.records import UInt8

WIDE_GREY_FORMATS = frozenset((None, "PNG", "TIFF", "PPM", "JPEG2000", "JXL"))
"""Formats whose 16-bit grey has a defined white; those of science have not.  None: made in memory."""


@dataclass(frozen=True)
class Meaning:
    """How to read the samples of one loaded picture.

    profile: ICC profile.  encoding: applied where there is no usable profile.
    depth: bits of a sample in the file, where Pillow has made 8 of them; 8 if unknown.
    low_bytes: gives the lower half of 16-bit RGB samples, uint8 (H, W, 3); None if there is none.
    """

    profile: bytes | None = None
    encoding: Encoding = Encoding()
    depth: int = 8
    low_bytes: Callable[[], UInt8] | None = None


def flatten(image: Image.Image, meaning: Meaning, problems: Problems) -> Image.Image:
    """Convert a loaded picture of any mode to RGB in sRGB, composited on white.

    Raises:
        ImageError: its samples have no defined range.
    """
    _check_range(image)
    mask = _keyed_out(image, meaning, problems)
    alpha = None if mask is None else Image.fromarray(np.where(mask, 0, 255).astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")
    elif image.mode in ("PA", "RGBa") or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    opaque = _to_srgb(image, meaning, problems)
    if alpha is None:
        return opaque
    flat = Image.new("RGB", image.size, "white")
    flat.paste(opaque, mask=alpha)
    return flat


def _check_range(image: Image.Image) -> None:
    if image.mode == "F":
        msg = "pictures of floating-point numbers have no defined range and are not read"
        raise ImageError(msg)
    if image.mode.startswith("I") and image.format not in WIDE_GREY_FORMATS:
        msg = f"{image.format} files of more than 8 bits a sample have no defined white and are not read"
        raise ImageError(msg)


def _keyed_out(image: Image.Image, meaning: Meaning, problems: Problems) -> NDArray[np.bool_] | None:
    """Where a grey level or an RGB colour stands for "transparent"; a palette's is Pillow's affair."""
    key = image.info.get("transparency")
    if key is None or image.mode == "P":
        return None
    if isinstance(key, int) and (image.mode in ("1", "L") or image.mode.startswith("I")):
        if image.mode.startswith("I"):
            return np.asarray(image) == key
        level = key if image.mode == "1" else (key % (1 << meaning.depth)) * 255 // ((1 << meaning.depth) - 1)
        return np.asarray(image.convert("L")) == level
    if isinstance(key, tuple) and len(key) == 3 and image.mode == "RGB":
        colour = np.array(key)
        if meaning.depth != 16:
            found: NDArray[np.bool_] = (np.asarray(image) == colour % 256).all(axis=2)
            return found
        found = (np.asarray(image) == colour >> 8).all(axis=2)
        if meaning.low_bytes is not None:
            found &= (meaning.low_bytes() == colour % 256).all(axis=2)
        return found
    if image.mode not in ("LA", "RGBA", "PA"):
        problems.add(f"ignored a transparent colour in a picture of mode {image.mode}")
    return None


def _to_srgb(image: Image.Image, meaning: Meaning, problems: Problems) -> Image.Image:
    """Convert an opaque picture by its profile, else by its encoding, else as Pillow does."""
    is_wide = image.mode.startswith("I")
    if meaning.profile or meaning.encoding.is_srgb:
        narrow = _grey16_to_8(image) if is_wide else image.convert("RGB") if image.mode == "P" else image
        converted = by_profile(narrow, meaning.profile, problems) if meaning.profile else None
        if converted is not None:
            return converted
        if meaning.encoding.is_srgb:
            return narrow.convert("RGB")
    samples: NDArray[np.uint8] | NDArray[np.uint16]
    if is_wide:
        samples = _grey16(image)
    elif image.mode in ("1", "L"):
        samples = np.asarray(image.convert("L"))
    else:
        samples = np.asarray(image.convert("RGB"))
        if meaning.low_bytes is not None:
            samples = samples.astype(np.uint16) << 8 | meaning.low_bytes()
    return Image.fromarray(decode_curve(samples, meaning.encoding)).convert("RGB")


def _grey16_to_8(image: Image.Image) -> Image.Image:
    return Image.fromarray((_grey16(image) >> 8).astype(np.uint8))


def _grey16(image: Image.Image) -> NDArray[np.uint16]:
    """Grey levels over the range of 16 bits, 0 black, of Pillow's modes for 12, 16 and 32 bits.

    Raises:
        ImageError: numbers outside the range; without one nobody knows what is black and what is white.
    """
    bits = tiff.bits(image)
    values = np.asarray(image)
    if bits == 32:
        levels = (values.view(np.uint32) >> 16).astype(np.uint16)
    elif values.min() < 0 or values.max() >= 1 << bits:
        msg = f"grey levels from {values.min()} to {values.max()} have no defined black and white"
        raise ImageError(msg)
    else:
        levels = values.astype(np.uint16)
        if bits < 16:  # the top bits again below, so that white becomes white
            levels = levels << (16 - bits) | levels >> max(2 * bits - 16, 0)
    return ~levels if tiff.white_is_zero(image) else levels
