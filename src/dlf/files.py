"""Files: written whole or not at all, and found in folders."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, BinaryIO

log = logging.getLogger(__name__)

_DESCRIPTORS = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")
_PART = 2**20  # bytes that are read at a time
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


def read_up_to(file: IO[bytes], most: int) -> bytes:
    """Read until so many bytes are there or no more come; a pipe gives them in parts.

    No more memory is taken than what is there needs, while `file.read(most)` takes it all beforehand.

    Raises:
        OSError: as the file's `read` does.
        TypeError: `read` gives no bytes.
    """
    parts: list[bytes] = []
    while most > 0 and (part := file.read(min(most, _PART))):
        given: object = part  # whatever the caller's file gives
        if not isinstance(given, bytes):
            msg = f"expected a file opened in binary mode, not one that gives {type(given).__name__}"
            raise TypeError(msg)
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def write_bytes(path: str | os.PathLike[str], data: bytes, *, replace: bool = True) -> None:
    """Write `data` to `path`; at no moment does a part of it stand under that name.

    The data goes to a new file in the same folder, which then takes the name, and the permissions of the
    file that had it.  Where the system can, the new file has no name until it is whole, so that nothing is
    left of it even if this process is killed.  A link is followed, and what is not a regular file (a pipe, a
    device, an open file by its number) is written to directly, for it must not be replaced.

    Args:
        path: name of the file.
        data: all that it will hold.
        replace: whether a file of that name gives way.  Of several that write one name at the same time and
            do not replace, one succeeds.

    Raises:
        FileExistsError: there is a file of that name, and it is not to be replaced.
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
    if old is not None and not replace:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
    if not _write_unnamed(target, data, old, replace=replace):
        _write_named(target, data, old, replace=replace)


def _write_unnamed(target: Path, data: bytes, old: os.stat_result | None, *, replace: bool) -> bool:
    """Write a file that has no name before it is whole; returns False where there is no such thing."""
    try:
        descriptor = os.open(target.parent, os.O_WRONLY | os.O_TMPFILE, 0o666)
    except (
        AttributeError,
        OSError,
    ):  # another system or file system; what else is wrong is said by the other way
        return False
    whole = f"/proc/self/fd/{descriptor}"
    with os.fdopen(descriptor, "wb") as file:
        if not os.path.exists(whole):
            return False
        _fill(file, data)
        if old is None:
            with suppress(FileExistsError) if replace else nullcontext():
                _name(whole, target)
                return True
        else:
            _pass_on(old, descriptor)
        part = _part(target)
        try:
            _name(whole, part)
            part.replace(target)
        except BaseException:  # also Ctrl-C must not leave the unfinished file behind
            part.unlink(missing_ok=True)
            raise
    return True


def _name(whole: str, name: Path) -> None:
    """Give a file that is known by its number a name that no other has; raises FileExistsError."""
    folder = os.open(name.parent, os.O_PATH)
    try:
        os.link(whole, name.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _write_named(target: Path, data: bytes, old: os.stat_result | None, *, replace: bool) -> None:
    """Write a file under a name of its own first."""
    part = _part(target)
    try:
        with part.open("xb") as file:
            _fill(file, data)
        if old is not None:
            _pass_on(old, part)
        if replace:
            part.replace(target)
        else:
            _rename_new(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _rename_new(part: Path, target: Path) -> None:
    """Give a file a name that no other has; raises FileExistsError."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # no second names on this file system
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target)) from None
        part.rename(target)
    else:
        part.unlink()


def _part(target: Path) -> Path:
    """Return the name of an unfinished file, as short as it may be: the target's can be as long as it may."""
    return target.with_name(f".{os.urandom(8).hex()}.part")


def _fill(file: BinaryIO, data: bytes) -> None:
    """Write data and wait until the disk has it."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _pass_on(old: os.stat_result, path: Path | int) -> None:
    """Give a file, by name or number, the permissions and where that is allowed the owner of another."""
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, stat.S_IMODE(old.st_mode))


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
