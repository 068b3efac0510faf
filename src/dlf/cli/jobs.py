"""What the commands share: names of outputs, reading and writing, one input after the other."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from dlf.cli.display import Display
from dlf.cli.options import Common
from dlf.errors import DlfError, LimitExceeded

log = logging.getLogger(__name__)

STDIO = "-"

MAX_INPUT_BYTES = 2**30
"""Limit of what is read into memory from a pipe or a .dlf file."""


class JobError(DlfError):
    """One input cannot be handled, for a reason that lies outside of its contents."""


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; either may be "-"; target is None if there is no result.

    make_folder: the user named a folder for the results, which may have to be made.
    """

    source: str
    target: str | None = None
    make_folder: bool = False


@dataclass(frozen=True)
class Report:
    """What to say about a finished job: for people, and for programs (JSON)."""

    text: str
    fields: dict[str, object]


def plan(common: Common, output: str | None, suffix: str) -> list[Job]:
    """Give every input its output: `output`, or the input's name with another suffix.

    Raises:
        click.UsageError: two outputs would be one file, an output is an input, or it has no name.
    """
    inputs = common.inputs
    if inputs.count(STDIO) > 1:
        msg = "standard input can be read only once"
        raise click.UsageError(msg)
    if output == STDIO and len(inputs) > 1:
        msg = "several results cannot go to standard output"
        raise click.UsageError(msg)
    folder = output is not None and (
        len(inputs) > 1 or output.endswith(("/", os.sep)) or Path(output).is_dir()
    )
    jobs = [Job(source, _target(source, output, suffix, folder=folder), folder) for source in inputs]
    taken: dict[str, str] = {}
    for job in jobs:
        if job.target == STDIO:
            _check_stdout(common)
            continue
        place = os.path.realpath(str(job.target))
        if place in taken:
            msg = f"{taken[place]} and {job.source} would both be written to {job.target}"
            raise click.UsageError(msg)
        taken[place] = job.source
    for job in jobs:
        if job.source != STDIO and os.path.realpath(job.source) in taken:
            msg = f"{job.source} cannot be both an input and an output"
            raise click.UsageError(msg)
    return jobs


def _target(source: str, output: str | None, suffix: str, *, folder: bool) -> str:
    if output is not None and not folder:
        return output
    if source == STDIO:
        if folder:
            msg = "the result of standard input needs a file name: give -o a file"
            raise click.UsageError(msg)
        return STDIO
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        msg = f"{output} is not a folder, but several results go there"
        raise click.UsageError(msg)
    path = Path(source)
    return str((path.parent if output is None else Path(output)) / (path.stem + suffix))


def _check_stdout(common: Common) -> None:
    if common.json:
        msg = "--json and the result cannot both go to standard output"
        raise click.UsageError(msg)
    if sys.stdout.isatty():
        msg = "the result is not text and will not be written to a terminal: use -o"
        raise click.UsageError(msg)


def run(display: Display, common: Common, jobs: Sequence[Job], work: Callable[[Job], Report]) -> int:
    """Do the jobs one after the other; a failed one does not stop the rest.  Returns the exit code."""
    failed = []
    with display.counting(len(jobs)) as advance:
        for job in jobs:
            result = _attempt(job, work)
            if isinstance(result, str):
                failed.append(job.source)
                complain(f"{job.source}: {result}")
            if common.json:
                fields = {"error": result} if isinstance(result, str) else result.fields
                click.echo(json.dumps({"input": job.source, **fields}))
            elif isinstance(result, Report) and not display.quiet and job.target != STDIO:
                click.echo(result.text)
            advance()
    if len(jobs) > 1 and failed:
        complain(f"{len(failed)} of {len(jobs)} inputs failed: {', '.join(failed)}")
    return 1 if failed else 0


def _attempt(job: Job, work: Callable[[Job], Report]) -> Report | str:
    """Do one job; whatever happens to it, the next gets its turn.  Returns what went wrong, if text."""
    try:
        return work(job)
    except BrokenPipeError:
        raise
    except Exception as error:
        if not isinstance(error, (DlfError, OSError, MemoryError)):
            log.debug("%s", job.source, exc_info=True)
        return explain(error)


def explain(error: Exception) -> str:
    """Say in one sentence what went wrong."""
    if isinstance(error, DlfError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "not enough memory"
    return f"unexpected error, please report it: {type(error).__name__}: {error}".replace("\n", " ")


def complain(sentence: str) -> None:
    """Print one line to standard error."""
    click.echo(f"dlf: {sentence}", err=True)


def read(source: str) -> bytes:
    """Return the bytes of a file or of standard input, up to a limit."""
    if source == STDIO:
        data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    else:
        with Path(source).open("rb") as file:
            data = file.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        msg = f"the input has more than {MAX_INPUT_BYTES:,} bytes"
        raise LimitExceeded(msg)
    return data


def check_target(job: Job, *, overwrite: bool) -> None:
    """Refuse an output that exists; done before the work, so that nobody waits for a refusal."""
    target = job.target
    if target in (None, STDIO) or overwrite:
        return
    if os.path.lexists(str(target)) and (Path(str(target)).is_file() or not Path(str(target)).exists()):
        msg = f"{target} exists (--overwrite replaces it)"
        raise JobError(msg)


def write(job: Job, data: bytes) -> None:
    """Write a result to its target, whole or not at all."""
    from dlf.files import write_bytes

    path = Path(str(job.target))
    try:
        if job.target == STDIO:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        if job.make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = "to standard output" if job.target == STDIO else path
        msg = f"cannot write {where}: {error.strerror or error}"
        raise JobError(msg) from error
