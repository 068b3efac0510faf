"""Faces and text, found by OpenCV: quick detectors that need no download and miss some.

Text is found as letters do: dark or bright blobs of one height in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.errors import MissingExtra
from dlf.extras import need
from dlf.records import UInt8

MAX_SIDE = 1024
"""Pixels of the longer side at which an image is looked at, if it is larger."""

# the frontal faces of Lienhart: the fewest false ones of those that OpenCV brings
_CASCADE = "haarcascade_frontalface_alt2.xml"
_LEAST_FACE = 1 / 24  # of the shorter side
_NEIGHBOURS = 4  # overlapping finds that make a face
_FACE_WIDTH, _FACE_HEIGHT = 0.6, 0.75  # half axes of a head, in sides of the square that is found

_LEAST_LETTER, _MOST_LETTER = 6, 64  # pixels of height
_WIDEST = 2.5  # of a letter, or of a few that touch, in its heights
_LETTERS = 3000  # candidates at most: each is compared with each
_IN_A_ROW = 5  # letters at least
_REACH = 5  # of a row to either side, in heights of a letter

Boxes = NDArray[np.int64]
"""int64 (n, 4): left, top, width, height, in pixels."""


def faces(rgb: UInt8) -> UInt8:
    """Return where heads are, uint8 (height, width): 255 there, 0 elsewhere; rgb: uint8 (height, width, 3).

    Frontal faces, upright, from a twenty-fourth of the shorter side on.

    Raises:
        MissingExtra: OpenCV is not installed, or has no such detector.
    """
    cv2 = _opencv("CascadeClassifier")
    grey, scale = _grey(cv2, rgb)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + _CASCADE)
    least = max(20, round(min(grey.shape) * _LEAST_FACE))
    found = cascade.detectMultiScale(grey, 1.1, _NEIGHBOURS, minSize=(least, least))
    mask: UInt8 = np.zeros(grey.shape, np.uint8)
    for left, top, width, height in np.asarray(found, np.int64).reshape(-1, 4).tolist():
        centre = left + width // 2, top + height // 2
        axes = round(_FACE_WIDTH * width), round(_FACE_HEIGHT * height)
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
    return _full(cv2, mask, rgb, scale)


def text(rgb: UInt8) -> UInt8:
    """Return where rows of letters are; as `faces`."""
    cv2 = _opencv("MSER_create")
    grey, scale = _grey(cv2, rgb)
    mask: UInt8 = np.zeros(grey.shape, np.uint8)
    for left, top, width, height in _rows(_letters(cv2, grey)).tolist():
        margin = height // 2
        mask[max(0, top - margin) : top + height + margin, max(0, left - margin) : left + width + margin] = (
            255
        )
    return _full(cv2, mask, rgb, scale)


DETECTORS: dict[str, Callable[[UInt8], UInt8]] = {"faces": faces, "text": text}
"""By the name that a caller gives for a region."""


def _letters(cv2: ModuleType, grey: UInt8) -> Boxes:
    """Return the boxes of blobs that may be letters, largest first."""
    largest = min(grey.size // 20, _MOST_LETTER**2)
    detector = cv2.MSER_create(delta=8, min_area=12, max_area=max(13, largest), max_variation=0.25)
    boxes: Boxes = np.asarray(detector.detectRegions(grey)[1], np.int64).reshape(-1, 4)
    width, height = boxes[:, 2], boxes[:, 3]
    fits = (height >= _LEAST_LETTER) & (height <= _MOST_LETTER) & (width <= _WIDEST * height) & (width >= 2)
    boxes = np.unique(boxes[fits], axis=0)
    return boxes[np.argsort(-boxes[:, 3], kind="stable")][:_LETTERS]


def _rows(boxes: Boxes) -> Boxes:
    """Return those boxes that stand in a row with enough others of their height."""
    left, top, width, height = boxes.T.astype(np.float32)
    taller = np.maximum(height[:, None], height)
    near = np.minimum(height[:, None], height) > 0.55 * taller
    base = top + height
    near &= np.minimum(np.abs(base[:, None] - base), np.abs(top[:, None] - top)) < 0.15 * taller
    middle = left + width / 2
    apart = np.abs(middle[:, None] - middle)
    near &= apart < _REACH * taller
    # blobs within a letter, and its outline, are one: letters are counted by the places of their middles
    kept = np.zeros(len(boxes), bool)
    for box in range(len(boxes)):
        places = np.unique((middle[near[box]] / (0.6 * height[box])).astype(np.int64))
        kept[box] = len(places) >= _IN_A_ROW
    return boxes[kept]


def _opencv(function: str) -> ModuleType:
    cv2 = need("cv2", "roi")
    if not hasattr(cv2, function):
        msg = f"this version of OpenCV has no {function}; run: pip install 'dlf-codec[roi]'"
        raise MissingExtra(msg)
    return cv2


def _grey(cv2: Any, rgb: UInt8) -> tuple[UInt8, float]:
    """Return the luma, no larger than is looked at, and the factor of its sides."""
    grey: UInt8 = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, MAX_SIDE / max(grey.shape))
    if scale < 1:
        size = [max(1, round(side * scale)) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return grey, scale


def _full(cv2: Any, mask: UInt8, rgb: UInt8, scale: float) -> UInt8:
    """Return a mask in the size of its image."""
    if scale == 1:
        return mask
    whole: UInt8 = cv2.resize(mask, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return whole
