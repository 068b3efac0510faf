"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`; at no moment does a part of it stand under that name.

    The data goes to a new file in the same folder, which then takes the name.  A link is followed, and
    what is not a regular file (a pipe, a device) is written to directly, for it must not be replaced.

    Raises:
        OSError: the folder or the file cannot be written; an older file of that name is then unchanged.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:  # also Ctrl-C must not leave the unfinished file behind
        part.unlink(missing_ok=True)
        raise
