"""The bytes of a file, however a caller gives it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from dlf.bitstream.bounds import read_file
from dlf.errors import LimitExceeded
from dlf.files import read_up_to

MAX_DAMAGED_BYTES = 2**26
"""Limit of what is read of a file whose header may be destroyed."""

Data = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]
"""A ``.dlf`` file: its bytes, its path, or the file opened in binary mode, read from its start."""


def content_of(data: object, read_all: Callable[[Any], object] = lambda file: file.read()) -> bytes:
    """Return the bytes of a bytes-like object, or of an open binary file from its start; raises TypeError.

    read_all: gives the rest of an open file.
    """
    if isinstance(data, bytes):
        return data
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]
    except TypeError:
        pass
    is_text = isinstance(data, io.TextIOBase)  # not read: its bytes need not be text at all
    read = None if is_text else getattr(data, "read", None)
    with suppress(AttributeError, OSError):  # a pipe has no start; io.UnsupportedOperation is an OSError
        if callable(read):
            data.seek(0)  # type: ignore[attr-defined]
    content = read_all(data) if callable(read) else None
    if not isinstance(content, bytes):
        is_text = is_text or isinstance(content, str)
        kind = "a file in text mode" if is_text else f"an object of {type(data).__name__}"
        msg = f"expected bytes, a path or a file opened in binary mode, not {kind}"
        raise TypeError(msg)
    return content


def file_bytes(data: Data, max_pixels: int) -> bytes:
    """Return the bytes of a ``.dlf`` file, however it is given; raises as `read_file`."""
    if isinstance(data, str | os.PathLike):
        with Path(data).open("rb") as file:
            return read_file(file, max_pixels)
    return content_of(data, lambda file: read_file(file, max_pixels))


def damaged_bytes(data: Data) -> bytes:
    """Return the bytes of a file whose header may be destroyed, so that nothing bounds them but a limit.

    Raises:
        LimitExceeded: there are more than `MAX_DAMAGED_BYTES`.
        OSError, TypeError: as `file_bytes`.
    """
    if isinstance(data, str | os.PathLike):
        with Path(data).open("rb") as file:
            return damaged_bytes(file)
    content = content_of(data, lambda file: read_up_to(file, MAX_DAMAGED_BYTES + 1))
    if len(content) > MAX_DAMAGED_BYTES:
        msg = f"the file has more than {MAX_DAMAGED_BYTES:,} bytes, too many to look for a picture in"
        raise LimitExceeded(msg)
    return content
