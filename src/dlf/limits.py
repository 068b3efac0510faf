"""Ranges of arguments; how large an image may be, checked from a header before memory is spent on pixels."""

from __future__ import annotations

import operator
from numbers import Real

from dlf.errors import InvalidArgument, LimitExceeded

MAX_PIXELS = 2**25
"""Default limit of width * height: 33,554,432 pixels (32 megapixels)."""

MAX_SIDE = 2**16
"""Limit of either side.  A picture of few pixels but one very long side would be padded to many more."""


MAX_FILE_BYTES = 2**30
"""Limit of what is read into memory of a ``.dlf`` file."""

MAX_TOKENS, MAX_CHANNELS = 255, 4096
"""Limits of a model: tokens of a window, channels of the detail latent."""

MAX_PADDING = 512
"""Limit of the pixels to whose multiples a model pads pictures, so that few pixels never become many."""


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a picture that is larger than the limits.

    Raises:
        LimitExceeded: a side is above `MAX_SIDE`, or width * height is above `max_pixels`.
    """
    if max(width, height) > MAX_SIDE:
        msg = f"the picture is {width}x{height}, but a side may have at most {MAX_SIDE:,} pixels"
        raise LimitExceeded(msg)
    if width * height > max_pixels:
        limit = f"the limit of {max_pixels:,} pixels (max-pixels raises it)"
        msg = f"the picture is {width}x{height}, above {limit}"
        raise LimitExceeded(msg)


def check_seconds(value: object) -> None:
    """Refuse what is no limit of time.

    Raises:
        TypeError: neither None, which is no limit, nor a number.
        InvalidArgument: not above 0, or larger than a float can be.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"max_seconds must be a number or None, not {type(value).__name__}"
        raise TypeError(msg)
    try:
        seconds = float(value)
    except OverflowError as error:
        msg = "max_seconds is larger than a float can be; None is no limit"
        raise InvalidArgument(msg) from error
    if not seconds > 0:
        msg = f"max_seconds is {value}, but must be above 0"
        raise InvalidArgument(msg)


def whole_number(value: object, name: str) -> int:
    """Return an argument that must be a whole number, of Python or numpy; `name` is what the error calls it.

    Raises:
        TypeError: any other type; a truth value is none, though Python counts with them.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    msg = f"{name} must be a whole number, not {type(value).__name__}"
    raise TypeError(msg)
