"""What goes through the pipes between the service and its workers: frames of JSON fields and a body.

Nothing is unpickled on either side: a worker that a hostile picture got hold of has no way back.
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, BinaryIO

from dlf.limits import MAX_FILE_BYTES

_LENGTHS = struct.Struct(">II")
MAX_FIELDS = 2**16
MAX_BODY = MAX_FILE_BYTES


class BrokenFrame(Exception):
    """What came is no frame, so that nothing after it can be trusted."""


def head(fields: dict[str, Any], body_bytes: int) -> bytes:
    """Return what stands before the body of a frame."""
    text = json.dumps(fields).encode()
    return _LENGTHS.pack(len(text), body_bytes) + text


def lengths(data: bytes) -> tuple[int, int]:
    """Return the bytes of the fields and of the body; raises BrokenFrame where they are beyond the limits."""
    fields, body = _LENGTHS.unpack(data)
    if fields > MAX_FIELDS or body > MAX_BODY:
        msg = f"a frame of {fields} and {body} bytes"
        raise BrokenFrame(msg)
    return fields, body


def parse(text: bytes) -> dict[str, Any]:
    """Return the fields of a frame; raises BrokenFrame."""
    try:
        fields = json.loads(text)
    except ValueError as error:
        msg = "a frame without JSON"
        raise BrokenFrame(msg) from error
    if not isinstance(fields, dict):
        msg = "a frame without fields"
        raise BrokenFrame(msg)
    return fields


async def read(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """Return the next frame; raises BrokenFrame, or IncompleteReadError at the end."""
    fields, body = lengths(await reader.readexactly(_LENGTHS.size))
    return parse(await reader.readexactly(fields)), await reader.readexactly(body)


def read_blocking(file: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Return the next frame of a pipe, or None at its end; raises BrokenFrame."""
    start = file.read(_LENGTHS.size)
    if len(start) < _LENGTHS.size:
        return None
    fields, body = lengths(start)
    text, content = file.read(fields), file.read(body)
    return (parse(text), content) if len(content) == body else None
