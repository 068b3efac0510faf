"""What a caller says of a region, as a mask of the image's size."""

from __future__ import annotations

import logging
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlf.errors import ImageError, InvalidArgument
from dlf.imageio import Source, load_rgb
from dlf.limits import MAX_PIXELS
from dlf.records import UInt8
from dlf.roi.detect import DETECTORS

log = logging.getLogger(__name__)

Region = Source | NDArray[np.bool_]
"""A mask as any picture, white where the image is important and black where it is not; as an array it may
hold truth values.  Or the name of one of `DETECTORS`."""


def importance(region: Region, rgb: UInt8, *, max_pixels: int = MAX_PIXELS) -> UInt8 | None:
    """Return how important each pixel of uint8 (height, width, 3) is: uint8 (height, width), 0..255.

    None where a detector finds nothing, which a line in the log tells.

    Raises:
        InvalidArgument: the mask has another size, or nothing in it is important.
        ImageError, LimitExceeded, OSError, TypeError: it cannot be read; as `load_rgb`.
        MissingExtra: a detector needs a library that is not installed.
    """
    if isinstance(region, str) and region in DETECTORS:
        found = DETECTORS[region](rgb)
        if not found.any():
            log.warning("no %s found: all of the image is equally important", region)
            return None
        return found
    mask = load_mask(region, max_pixels=max_pixels)
    if mask.shape != rgb.shape[:2]:
        sizes = [f"{width}x{height}" for height, width in (mask.shape, rgb.shape[:2])]
        msg = f"the mask of the region has {sizes[0]} pixels, but the image has {sizes[1]}"
        raise InvalidArgument(msg)
    return mask


def load_mask(source: Region, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read a mask: uint8 (height, width), 255 where the image is most important; raises as `importance`."""
    if isinstance(source, np.ndarray) and source.dtype == np.bool_:
        source = source.astype(np.uint8) * np.uint8(255)
    try:
        rgb, _ = load_rgb(cast("Source", source), max_pixels=max_pixels)
    except ImageError as error:
        msg = f"the mask of the region cannot be used: {error}"
        raise ImageError(msg) from error
    mask = np.asarray(Image.fromarray(rgb).convert("L"))
    if not mask.any():
        msg = "the mask of the region is black: nothing in it is important"
        raise InvalidArgument(msg)
    return mask
