"""Bodies of requests: read up to a limit, in bytes and in time, whatever their heads promise."""

from __future__ import annotations

import anyio
import anyio.to_thread
from starlette.requests import Request

from dlf.extras import need
from dlf.service.tasks import Refused

MULTIPART_BYTES = 2**16
"""What a form may have besides its file."""

MOST_PARTS = 100
"""Of a form: each costs time, and an empty one takes hardly a byte."""


async def read(request: Request, max_bytes: int, seconds: float) -> bytes:
    """Return the body of a request, or the first file of its form.

    Raises:
        Refused: it is too long (413), comes too slowly (408), is of a kind that is not read (415) or
            empty (422).
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "the body must not be compressed")
    media_type, _, _ = request.headers.get("content-type", "").partition(";")
    is_form = media_type.strip().lower() == "multipart/form-data"
    most = max_bytes + (MULTIPART_BYTES if is_form else 0)
    too_long = Refused(413, f"the body is longer than {max_bytes:,} bytes")
    promised = request.headers.get("content-length", "0")
    if not promised.isdecimal() or int(promised[:20]) > most:
        raise too_long
    body = bytearray()
    try:
        with anyio.fail_after(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_long
    except TimeoutError as error:
        raise Refused(408, f"the body did not arrive within {seconds:g} seconds") from error
    data = bytes(body)
    if is_form:  # in a thread, for a form made for it takes seconds, in which nobody else would be answered
        data = await anyio.to_thread.run_sync(first_file, data, request.headers["content-type"])
    if len(data) > max_bytes:
        raise too_long
    if not data:
        raise Refused(422, "the body is empty: send the bytes of a file")
    return data


def first_file(body: bytes, content_type: str) -> bytes:
    """Return the first file in a form; raises Refused (422) where there is none."""
    multipart = need("python_multipart.multipart", "serve")
    _, parameters = multipart.parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise Refused(422, "the form names no boundary")
    found, part, head = [bytearray()], _Part(), bytearray()

    def on_header_field(data: bytes, start: int, end: int) -> None:
        head.extend(data[start:end])

    def on_header_value(data: bytes, start: int, end: int) -> None:
        part.disposition += data[start:end] if head.lower() == b"content-disposition" else b""

    def on_headers_finished() -> None:
        _, options = multipart.parse_options_header(part.disposition)
        part.wanted = b"filename" in options and not part.found
        part.found |= part.wanted

    def on_part_data(data: bytes, start: int, end: int) -> None:
        if part.wanted:
            found[0] += data[start:end]

    callbacks = {
        "on_part_begin": part.begin,
        "on_header_field": on_header_field,
        "on_header_value": on_header_value,
        "on_header_end": head.clear,
        "on_headers_finished": on_headers_finished,
        "on_part_data": on_part_data,
        "on_end": part.end,
    }
    try:
        parser = multipart.MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except ValueError as error:  # of which all errors of the library are
        raise Refused(422, "the form cannot be read") from error
    if not part.is_last:
        raise Refused(422, "the form is cut off")
    if not part.found:
        raise Refused(422, "the form has no file")
    return bytes(found[0])


class _Part:
    """Where the parser is in a form."""

    def __init__(self) -> None:
        self.disposition, self.wanted, self.found = b"", False, False
        self.number, self.is_last = 0, False

    def begin(self) -> None:
        """A part begins; raises Refused (422) where there are too many."""
        self.disposition, self.wanted = b"", False
        self.number += 1
        if self.number > MOST_PARTS:
            raise Refused(422, f"the form has more than {MOST_PARTS} parts")

    def end(self) -> None:
        """The form ends here, whatever follows."""
        self.is_last = True
