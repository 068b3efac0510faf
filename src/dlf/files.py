"""Files: written whole or not at all, and found in folders."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

_DESCRIPTORS = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def descriptor_of(path: str | os.PathLike[str]) -> int | None:
    """Return N for the names of an open file of this process: /dev/fd/N, /dev/stdout and the like."""
    name = os.fspath(path)
    match = _DESCRIPTORS.fullmatch(name)
    return int(match[1]) if match else _STREAMS.get(name)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read; a pipe or device of that name is refused and never waited for.

    Raises:
        OSError: there is no such file, it cannot be read, or it is none.
    """
    # where there is no such flag, there are no pipes among the files
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return os.fdopen(file, "rb")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`; at no moment does a part of it stand under that name.

    The data goes to a new file in the same folder, which then takes the name, and the permissions of the
    file that had it.  A link is followed, and what is not a regular file (a pipe, a device, an open file by
    its number) is written to directly, for it must not be replaced.

    Raises:
        OSError: the folder or the file cannot be written; an older file of that name is then unchanged.
    """
    descriptor = descriptor_of(path)
    if descriptor is not None:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(data)
        return
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        Path(path).write_bytes(data)
        return
    target = Path(path).resolve()
    # as short as it may be: the target's own name can be as long as the file system allows
    part = target.with_name(f".{os.urandom(8).hex()}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if old is not None:
            _pass_on(old, part)
        part.replace(target)
    except BaseException:  # also Ctrl-C must not leave the unfinished file behind
        part.unlink(missing_ok=True)
        raise


def _pass_on(old: os.stat_result, path: Path) -> None:
    """Give a file the permissions, and where that is allowed the owner, of another."""
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(path, old.st_uid, old.st_gid)
    path.chmod(stat.S_IMODE(old.st_mode))


def find_files(folder: Path, suffixes: Collection[str], *, recursive: bool) -> Iterator[Path]:
    """Yield the files of a folder whose names end in one of `suffixes`, sorted by path.

    Files and folders with a leading dot are left out, links to folders are not followed.

    Args:
        folder: where to look.
        suffixes: endings in small letters, with their dot; names are compared in small letters.
        recursive: whether to look into the folders below as well.

    Raises:
        OSError: the folder itself cannot be read; one below it is left out, with a line in the log.
    """
    names = sorted(os.listdir(folder))
    for name in names:
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir():
            if recursive and not path.is_symlink():
                try:
                    yield from find_files(path, suffixes, recursive=True)
                except OSError as error:
                    log.warning("left out the folder %s: %s", path, error.strerror or error)
        elif path.suffix.lower() in suffixes and path.is_file():
            yield path
