"""What a command asks of its own process, which a library leaves to its host."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of <malloc.h>

_LARGE_BYTES = 1 << 20
"""Size of pieces of memory that go back to the system as soon as they are freed."""


def import_numpy() -> None:
    """Import numpy without the threads of its linear algebra.

    They wait for work in a loop that takes a processor, which the first image needs for its networks, and
    nothing of the codec gives them any.
    """
    if _BLAS_THREADS in os.environ or "numpy" in sys.modules:
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        import numpy  # noqa: F401 (the library looks once, when it is loaded)
    finally:
        del os.environ[_BLAS_THREADS]


def share_one_heap() -> None:
    """Ask glibc for one heap of all threads, so that what is freed after building networks serves the images.

    Otherwise each thread that builds one keeps a heap of its own, a hundred megabytes together.  Large pieces
    are no part of it: left to itself, glibc takes them from its heap once some were freed.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):  # another library of C
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
