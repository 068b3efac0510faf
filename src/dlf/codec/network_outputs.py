"""What networks give: checked, and as the codec has it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dlf.errors import BundleError
from dlf.records import Int32

# below this every integer has its own float32
_EXACT = 1 << 24


def check(array: NDArray[Any], shape: tuple[int, ...], dtype: DTypeLike, graph: str) -> None:
    """Refuse an output of another shape or type; raises BundleError."""
    expected = np.dtype(dtype)
    if array.shape != shape or array.dtype != expected:
        msg = f"the model's {graph} network gave {array.dtype} {array.shape} instead of {expected} {shape}"
        raise BundleError(msg)


def integers(array: NDArray[Any], shape: tuple[int, ...], graph: str) -> Int32:
    """Return float32 (1, ...) as int32 (...); raises BundleError where it is not of exact integers."""
    check(array, shape, np.float32, graph)
    if not (np.abs(array) < _EXACT).all() or not np.array_equal(np.floor(array), array):
        msg = f"the model's {graph} network gave a number that is not an integer"
        raise BundleError(msg)
    whole: Int32 = array[0].astype(np.int32)
    return whole
