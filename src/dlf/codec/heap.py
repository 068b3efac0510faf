"""Memory that was freed, given back to the system."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache

WORTH_IT = 1 << 21
"""Bytes of a graph's file from which on building it leaves so much behind that to give it back pays."""


def give_back() -> None:
    """Give the system back what glibc's heaps hold of freed memory; elsewhere do nothing.

    Between the pieces that a network consists of, building it leaves holes of as much again, of other sizes
    than an image needs.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    import ctypes

    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another library of C
        return None
    return trim
