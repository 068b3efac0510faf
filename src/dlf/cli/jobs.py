"""What the commands share: names of outputs, reading and writing, one input after the other."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlf.errors import DlfError, LimitExceeded

if TYPE_CHECKING:
    from dlf.codec.engine import EngineOptions

log = logging.getLogger(__name__)

STDIO = "-"

_SHOW_EVERY = 0.5  # seconds

MAX_INPUT_BYTES = 2**30
"""Limit of what is read into memory from a pipe or a .dlf file."""


class UsageError(Exception):
    """The command line asks for something that cannot be; nothing was done."""


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


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every command has."""
    parser.add_argument("inputs", nargs="+", metavar="IN", help="input file, or - for standard input")
    parser.add_argument(
        "--model", metavar="MODEL", help="folder, name or role of another model (roles: see dlf --help)"
    )
    parser.add_argument("--json", action="store_true", help="report as one JSON object a line")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="report failures only")
    loudness.add_argument("--verbose", action="store_true", help="report every detail")


def add_codec_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the commands that run a model and write files."""
    parser.add_argument("-o", "--output", metavar="OUT", help="output file, folder, or - for standard output")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument("--threads", type=count, metavar="N", help="processor threads to use (default: all)")
    torch = parser.add_argument_group("models that torch runs")
    torch.add_argument("--device", default="cpu", help="where to run them, such as cuda")
    torch.add_argument(
        "--precision",
        metavar="TYPE",
        help="float32, bfloat16, float16 or int8: smaller is faster (default: as stored)",
    )
    torch.add_argument("--compile", action="store_true", help="compile them first, which takes minutes")


def engine_options(args: argparse.Namespace) -> EngineOptions:
    """What the arguments of `add_codec_arguments` say about the engine."""
    from dlf.codec.engine import EngineOptions  # brings numpy, which the parser does not need

    shown = sys.stderr.isatty() and not args.quiet and not args.json
    progress = _Countdown() if shown else None
    return EngineOptions(
        device=args.device, precision=args.precision, compiled=args.compile, progress=progress
    )


class _Countdown:
    """Tells on one line of standard error what runs and how long it may still take."""

    def __init__(self) -> None:
        self._label, self._start, self._shown = "", 0.0, 0.0

    def __call__(self, label: str, share: float) -> None:
        now = time.monotonic()
        if label != self._label or share == 0:
            self._label, self._start, self._shown = label, now, now
        left = (now - self._start) * (1 - share) / max(share, 1e-3)
        if share >= 1:
            self._label = ""  # the next tile counts anew
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        elif now - self._shown > _SHOW_EVERY:
            self._shown = now
            print(f"\r{label}: {share:.0%}, {left:.0f} s left\x1b[K", end="", file=sys.stderr, flush=True)


def count(text: str) -> int:
    """Argument type: a whole number of at least 1."""
    return bounded(text, 1, 1024)


def bounded(text: str, low: int, high: int) -> int:
    """Argument type: a whole number in low..high."""
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        msg = f"'{text}' is not a whole number from {low} to {high}"
        raise argparse.ArgumentTypeError(msg)
    return value


def plan(args: argparse.Namespace, suffix: str) -> list[Job]:
    """Give every input its output: `args.output`, or the input's name with another suffix.

    Raises:
        UsageError: two outputs would be one file, an output is an input, or it has no name.
    """
    inputs: list[str] = args.inputs
    output: str | None = args.output
    if inputs.count(STDIO) > 1:
        msg = "standard input can be read only once"
        raise UsageError(msg)
    if output == STDIO and len(inputs) > 1:
        msg = "several results cannot go to standard output"
        raise UsageError(msg)
    folder = output is not None and (
        len(inputs) > 1 or output.endswith(("/", os.sep)) or Path(output).is_dir()
    )
    jobs = [Job(source, _target(source, output, suffix, folder=folder), folder) for source in inputs]
    taken: dict[str, str] = {}
    for job in jobs:
        if job.target == STDIO:
            _check_stdout(args)
            continue
        place = os.path.realpath(str(job.target))
        if place in taken:
            msg = f"{taken[place]} and {job.source} would both be written to {job.target}"
            raise UsageError(msg)
        taken[place] = job.source
    for job in jobs:
        if job.source != STDIO and os.path.realpath(job.source) in taken:
            msg = f"{job.source} cannot be both an input and an output"
            raise UsageError(msg)
    return jobs


def _target(source: str, output: str | None, suffix: str, *, folder: bool) -> str:
    if output is not None and not folder:
        return output
    if source == STDIO:
        if folder:
            msg = "the result of standard input needs a file name: give -o a file"
            raise UsageError(msg)
        return STDIO
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        msg = f"{output} is not a folder, but several results go there"
        raise UsageError(msg)
    path = Path(source)
    return str((path.parent if output is None else Path(output)) / (path.stem + suffix))


def _check_stdout(args: argparse.Namespace) -> None:
    if args.json:
        msg = "--json and the result cannot both go to standard output"
        raise UsageError(msg)
    if sys.stdout.isatty():
        msg = "the result is not text and will not be written to a terminal: use -o"
        raise UsageError(msg)


def run(args: argparse.Namespace, jobs: Sequence[Job], work: Callable[[Job], Report]) -> int:
    """Do the jobs one after the other; a failed one does not stop the rest.  Returns the exit code."""
    failed = []
    with progress(args, len(jobs)) as advance:
        for job in jobs:
            result = _attempt(job, work)
            if isinstance(result, str):
                failed.append(job.source)
                complain(f"{job.source}: {result}")
            if args.json:
                fields = {"error": result} if isinstance(result, str) else result.fields
                print(json.dumps({"input": job.source, **fields}))
            elif isinstance(result, Report) and not args.quiet and job.target != STDIO:
                print(result.text)
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


@contextmanager
def progress(args: argparse.Namespace, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar while several things are done in front of a person; gives the function to move it."""
    if total < 2 or args.quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # loaded only where it is seen
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


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
    print(f"dlf: {sentence}", file=sys.stderr)


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
