"""One input after the other, or several at a time: what is said of each, and what becomes of a failure."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass

from dlf.cli import streams
from dlf.cli.display import Display
from dlf.cli.names import STDIO, Job, JobError
from dlf.cli.options import Common, Outputs
from dlf.errors import DlfError, explain

log = logging.getLogger(__name__)

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}

FAILED = 1
"""Exit code where an input failed."""

DOUBTFUL = 3
"""Exit code where none failed, but of a result nobody can say that it is right."""

_source: ContextVar[str | None] = ContextVar("source", default=None)
"""The input that is being worked on, in each thread."""


@dataclass(frozen=True)
class Report:
    """What to say about a finished job: for people, and for programs (JSON).

    text: one line or more; empty for none.
    complaint: a sentence for standard error, said even with --quiet.
    code: exit code of the command if no other job has a worse one: `FAILED`, `DOUBTFUL` or 0.
    """

    text: str
    fields: dict[str, object]
    complaint: str = ""
    code: int = 0


Work = Callable[[Job], Report]


def run(display: Display, common: Common, jobs: Sequence[Job], work: Work, *, workers: int = 1) -> int:
    """Do the jobs, and report in their order; a failed one does not stop the rest.  Returns the exit code."""
    failed, code = [], 0
    with display.counting(len(jobs)) as advance, closing(_results(jobs, work, workers)) as results:
        for job, result in results:
            report = Report("", {"error": result}, result, FAILED) if isinstance(result, str) else result
            if report.code == FAILED:
                failed.append(job.source)
            code = code if code == FAILED else report.code or code
            if report.complaint:
                complain(f"{job.source}: {report.complaint}")
            if common.json:
                tell(json.dumps({"input": job.source, **report.fields}))
            elif report.text and not display.quiet and job.target != STDIO:
                tell(report.text)
            advance()
    if len(jobs) > 1 and failed:
        complain(f"{len(failed)} of {len(jobs)} inputs failed: {', '.join(failed)}")
    return code


def _results(jobs: Sequence[Job], work: Work, workers: int) -> Generator[tuple[Job, Report | str]]:
    """Yield every job with its report, or with what went wrong.

    Threads suffice, for networks run outside of the interpreter's lock.  They hold an image each; where
    the generator is closed early they finish it, so that nothing is left half-written.
    """
    if workers == 1:
        for job in jobs:
            yield job, _attempt(job, work)
        return
    from concurrent.futures import ThreadPoolExecutor  # a few milliseconds, which one job at a time saves

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_attempt, job, work) for job in jobs]
        try:
            for job, future in zip(jobs, futures, strict=True):
                yield job, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _attempt(job: Job, work: Work) -> Report | str:
    """Do one job; whatever happens to it, the next gets its turn.  Returns what went wrong, if text."""
    token = _source.set(job.source)
    try:
        return work(job)
    except BrokenPipeError:
        raise
    except Exception as error:
        if not isinstance(error, (DlfError, OSError, MemoryError)):
            log.debug("this went wrong:", exc_info=True)
        return explain(error)
    finally:
        _source.reset(token)


class LogLines(logging.Handler):
    """Shows log records where complaints go, with the input that each is about."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        source = _source.get()
        complain(self.format(record) if source is None else f"{source}: {self.format(record)}")


def writing(outputs: Outputs, make: Callable[[Job], tuple[bytes, Report]]) -> Work:
    """Return the work of making a file and writing it, as far as `outputs` allows where one exists."""

    def work(job: Job) -> Report:
        target = str(job.target)
        is_there = streams.exists(job)  # asked before the work, so that nobody waits for a refusal
        if is_there and not outputs.overwrite:
            return _existing(job, outputs)
        data, report = make(job)
        try:
            streams.write(job, data, replace=outputs.overwrite)
        except FileExistsError:  # another process was quicker
            return _existing(job, outputs)
        log.debug("wrote %d bytes to %s%s", len(data), target, ", replacing a file" if is_there else "")
        return report

    return work


def _existing(job: Job, outputs: Outputs) -> Report:
    """Pass over an input whose output exists, or raise JobError."""
    target = str(job.target)
    if outputs.skip_existing:
        text = one_line(f"{job.source} -> {target}: skipped, {target} exists")
        return Report(text, {"output": target, "skipped": True})
    msg = f"{target} exists ({_remedy(job)})"
    raise JobError(msg)


def _remedy(job: Job) -> str:
    """What to do about an output that exists.

    An image whose name is ours may be the original, which nobody is to be talked into replacing.
    """
    is_stream = os.path.splitext(str(job.target))[1].lower() == ".dlf"
    return "--overwrite replaces it" if is_stream or not job.derived else "-o names another place"


def complain(sentence: str) -> None:
    """Print one line to standard error, unless that is closed."""
    tell(one_line(f"dlf: {sentence}"), error=True)


def one_line(text: str) -> str:
    """Spell line breaks out: a file may have one in its name."""
    return text.replace("\n", r"\n")


def tell(text: object, *, error: bool = False) -> None:
    """Print lines to standard output or error, unless that is closed.

    Control characters are spelled out, for a file's name must not work on the terminal.
    Not by `click.echo`: it writes past the streams by which rich keeps lines and bars apart.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is not None:
        print(str(text).translate(_CONTROLS), file=stream, flush=True)
