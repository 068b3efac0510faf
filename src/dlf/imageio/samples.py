"""From any of Pillow's modes to opaque 8-bit RGB on white."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
    encoding: Encoding = field(default_factory=Encoding)
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
    elif image.mode in ("PA", "RGBa") or (image.mode == "P" and image.has_transparency_data):
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
    mask: NDArray[np.bool_]
    if key is None or image.mode in ("P", "LA", "RGBA", "PA"):
        return None
    if isinstance(key, int) and image.mode.startswith("I"):
        mask = np.asarray(image) == key
    elif isinstance(key, int) and image.mode in ("1", "L"):
        top = (1 << meaning.depth) - 1
        mask = np.asarray(image.convert("L")) == (key if image.mode == "1" else (key & top) * 255 // top)
    elif isinstance(key, tuple) and len(key) == 3 and image.mode == "RGB":
        colour = np.array(key)
        is_wide = meaning.depth == 16
        mask = (np.asarray(image) == (colour >> 8 if is_wide else colour & 255)).all(axis=2)
        if is_wide and meaning.low_bytes is not None:
            mask &= (meaning.low_bytes() == colour & 255).all(axis=2)
    else:
        problems.add(f"ignored a transparent colour in a picture of mode {image.mode}")
        return None
    return mask


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
            samples = (samples.astype(np.uint16) << 8 | meaning.low_bytes()).astype(np.uint16)
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
    elif values.min() < 0 or values.max() >= 1 << bits or _is_narrow(image, int(values.max())):
        msg = f"grey levels from {values.min()} to {values.max()} have no defined black and white"
        raise ImageError(msg)
    else:
        levels = values.astype(np.uint16)
        if bits < 16:  # the top bits again below, so that white becomes white
            levels = (levels << (16 - bits) | levels >> max(2 * bits - 16, 0)).astype(np.uint16)
    return ~levels if tiff.white_is_zero(image) else levels


def _is_narrow(image: Image.Image, top: int) -> bool:
    """Whether numbers made in memory would all be black, so that they cannot have been meant as 16 bits."""
    return image.mode == "I" and image.format is None and 0 < top < 256
