"""Bytes in and out of files, pipes and the standard streams."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, BinaryIO, cast

import click

from dlf.cli.names import STDIO, Job, JobError
from dlf.errors import LimitExceeded, reason
from dlf.files import descriptor_of, read_up_to, write_bytes

MAX_INPUT_BYTES = 2**30
"""Limit of what is read into memory of an image from a pipe."""


def hold_standard_streams() -> None:
    """Keep the numbers 0 to 2 from files that are opened later.

    Where a shell closed a standard stream (``2>&-``) the next file would get its number, and a library that
    warns on standard error would write into that file.
    """
    for number in (0, 1, 2):
        if not _is_open(number):
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one


def buffer_standard_output() -> None:
    """Give standard output a buffer, which ``python -u`` takes away.

    Without one a pipe or a disk that is nearly full takes a part of what is written, and nothing says so.
    """
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper) and isinstance(stream.buffer, io.RawIOBase):
        sys.stdout = open(  # noqa: SIM115 (it stays open, as the one before)
            stream.fileno(), "w", buffering=1, encoding=stream.encoding, errors=stream.errors, closefd=False
        )


class OutputGone(Exception):
    """Standard output cannot be written, where an OSError would be taken for one of the results' place."""


def drop_standard_output() -> None:
    """Send what is still in the buffer of standard output nowhere: Python flushes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def check_stdout(jobs: Sequence[Job], *, json: bool) -> None:
    """Raise click.UsageError if a result cannot go to standard output, where it should."""
    if all(job.target != STDIO for job in jobs):
        return
    if json:
        msg = "--json and the result cannot both go to standard output"
        raise click.UsageError(msg)
    if sys.stdout is None:
        msg = "the result cannot go to standard output, which is closed: use -o"
        raise click.UsageError(msg)
    if sys.stdout.isatty():
        msg = "the result is not text and will not be written to a terminal: use -o"
        raise click.UsageError(msg)


@contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """Open a file or standard input, which stays open afterwards; raises OSError."""
    if source == STDIO:
        if sys.stdin is None:
            raise OSError(errno.EBADF, "standard input is closed")
        yield sys.stdin.buffer
    else:
        with Path(source).open("rb") as file:
            yield file


@contextmanager
def opened_here(source: str) -> Iterator[IO[bytes]]:
    """Open the same for the API, which then reads standard input from where it stands; raises OSError."""
    with opened(source) as file:
        yield cast("IO[bytes]", SimpleNamespace(read=file.read))


def read_dlf(source: str, max_pixels: int) -> bytes:
    """Return the bytes of a .dlf file or of standard input; raises OSError and as `read_file`."""
    from dlf.bitstream.bounds import read_file  # brings numpy, which the parser does not need

    with opened(source) as file:
        return read_file(file, max_pixels)


def read(source: str) -> bytes:
    """Return the bytes of an image or of standard input, up to a limit; raises OSError, LimitExceeded."""
    with opened(source) as file:
        data = read_up_to(file, MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        msg = f"the input has more than {MAX_INPUT_BYTES:,} bytes"
        raise LimitExceeded(msg)
    return data


def image_source(source: str) -> str | bytes:
    """Return a path that an image can be read from, or the bytes of what can be read only once."""
    if source != STDIO and stat.S_ISREG(os.stat(source).st_mode) and descriptor_of(source) is None:
        return source
    return read(source)


def exists(job: Job) -> bool:
    """Whether a result would take the place of a file, or of a link to nowhere.

    Raises:
        JobError: nothing can be written under this name, which is worth knowing before the work.
    """
    target = str(job.target)
    if target == STDIO or descriptor_of(target) is not None:
        return False
    try:
        mode = os.lstat(target).st_mode
        return stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and not _is_special(target))
    except (FileNotFoundError, NotADirectoryError) as error:
        folder = os.path.dirname(target) or "."
        # beside an input that has no folder either, it is the input that is wrong
        if not job.make_folder and not job.derived and not os.path.isdir(folder):
            msg = f"cannot write {target}: there is no folder {folder}"
            raise JobError(msg) from error
        return False
    except OSError as error:
        raise _unwritable(target, error) from error


def _is_special(target: str) -> bool:
    """Whether a link leads to something that is not a regular file."""
    try:
        return not stat.S_ISREG(os.stat(target).st_mode)
    except FileNotFoundError:
        return False


def write(job: Job, data: bytes, *, replace: bool) -> None:
    """Write a result to its target, whole or not at all.

    Raises:
        FileExistsError: the target is there, which it was not before, and `replace` is not set.
        BrokenPipeError: whoever read standard output went away.
        JobError: it cannot be written.
    """
    target = str(job.target)
    try:
        if target == STDIO:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        if job.make_folder:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, data, replace=replace)
    except OSError as error:
        if isinstance(error, FileExistsError) and os.path.lexists(target):
            raise
        if target == STDIO:
            if isinstance(error, BrokenPipeError):
                raise
            drop_standard_output()  # what is left in the buffer would fail once more, and be told twice
        raise _unwritable(target, error) from error


def _unwritable(target: str, error: OSError) -> JobError:
    if target == STDIO:
        return JobError(f"cannot write to standard output: {error.strerror or error}")
    return JobError(f"cannot write {target}: {reason(error)}")
