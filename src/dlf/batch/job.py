"""A batch from its beginning, or from where it was left, to its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import IO

from dlf.batch.manifest import FOLDER, Manifest
from dlf.batch.processes import Processes
from dlf.batch.reader import Reader
from dlf.batch.records import Item, Made, Row
from dlf.batch.sink import KINDS, Sink
from dlf.batch.sources import Source, items, opened
from dlf.batch.stores import Store, unusable
from dlf.batch.worker import MakeWork, Task
from dlf.errors import BatchError, InvalidArgument

log = logging.getLogger(__name__)

PART_SIZE = 1000
"""Pictures of a part of the results: of a shard, and of a file of the manifest."""

Progress = Callable[[Row | None], None]
"""Told of every row, and with None of what an earlier run has done; called by one
thread at a time."""


@dataclass(frozen=True)
class Job:
    """A batch.

    source: what to take.  out: folder of the results, a path or a URL.  task: what to do with each.
    kind: "folder", "tar" or "parquet", what the results are put into.
    workers: how many at a time, None is one for each core.
    part_size: pictures of a shard.  retry_errors: do again what has failed in an earlier run.
    address: of a Ray cluster, "local" for one of this machine alone; None is processes without Ray.
    """

    source: Source
    out: str
    task: Task
    kind: str = "folder"
    workers: int | None = None
    part_size: int = PART_SIZE
    retry_errors: bool = False
    address: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            msg = f"the results can go to {', '.join(KINDS)}, not to '{self.kind}'"
            raise InvalidArgument(msg)
        if self.part_size < 1 or (self.workers is not None and self.workers < 1):
            msg = "a batch has at least one worker, and a part at least one picture"
            raise InvalidArgument(msg)

    @property
    def cores(self) -> int:
        """Workers at a time."""
        if hasattr(os, "sched_getaffinity"):  # what a container or a batch system allows
            return self.workers or len(os.sched_getaffinity(0))
        return self.workers or os.cpu_count() or 1


@dataclass
class Summary:
    """What a run has done.

    done, failed: pictures of this run.  skipped: done by an earlier one.  twice: names that came again.
    errors: pictures without a result, of all runs.  bytes, pixels: of the .dlf files of this run.
    """

    done: int = 0
    failed: int = 0
    skipped: int = 0
    twice: int = 0
    errors: int = 0
    bytes: int = 0
    pixels: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def count(self, row: Row | None, progress: Progress) -> None:
        """Add a row, None for what an earlier run has done, and tell of it."""
        with self._lock:
            if row is None:
                self.skipped += 1
                progress(None)
                return
            self.failed += row.error is not None
            self.done += row.error is None
            self.bytes += row.bytes
            self.pixels += row.pixels
            progress(row)


def run(job: Job, progress: Progress = lambda _: None, make: MakeWork | None = None) -> Summary:
    """Do what is left to do of a batch.

    progress: is told of every row.  make: gives what works on the pictures, the codec of the task if None.

    Raises:
        BatchError: there is nothing to take, or the places cannot be used.
        MissingExtra: fsspec, pyarrow or ray is needed and not installed.
        DlfError: the model cannot be used.
    """
    store = Store(job.out)
    if store.place() == opened(job.source.url)[0].place():
        msg = f"{job.out} cannot be both what is taken and where the results go"
        raise BatchError(msg)
    listed = items(job.source)
    first = next(listed)  # where there is nothing to take, nothing is written
    summary = Summary()
    try:
        with _alone(store):
            manifest = Manifest(store)
            manifest.start(job.task, job.kind)
            try:
                _work(job, manifest, chain((first,), listed), summary, progress, make or job.task)
                summary.errors = manifest.write_errors()
            finally:
                store.sweep()
    except OSError as error:
        raise unusable(job.out, error) from error
    return summary


def _work(
    job: Job,
    manifest: Manifest,
    listed: Iterator[Item],
    summary: Summary,
    progress: Progress,
    make: MakeWork,
) -> None:
    name = job.task.output_name
    if job.retry_errors:
        manifest.forget_errors()
    done = {name(row.path) for row in manifest.rows()}
    number = max((number for number, _ in manifest.parts()), default=-1) + 1
    left = _left(listed, name, done, summary, progress)
    if job.address is not None:
        from dlf.batch import ray_engine

        ray_engine.run(job, manifest, number, left, make, lambda row: summary.count(row, progress))
        return
    sink = Sink(manifest, job.kind, number, job.part_size)

    def take(made: Made) -> None:
        summary.count(sink.add(made), progress)

    try:
        Processes(make, job.cores, Reader(job.source).read, take).run(left)
    except OSError:
        sink.abandon()
        raise
    except BaseException:
        sink.close()  # what is done is done
        raise
    sink.close()


def _left(
    listed: Iterator[Item],
    output_name: Callable[[str], str],
    done: set[str],
    summary: Summary,
    progress: Progress,
) -> Iterator[Item]:
    """Yield what has no row yet; done: names of results, which are taken out of it as they are met."""
    seen: set[str] = set()
    for item in listed:
        name = output_name(item.key)  # a.dlf and a.DLF have one
        if name in seen:
            summary.twice += 1
            log.warning("%s is there twice; the first is taken", item.key)
            continue
        seen.add(name)
        if name in done:
            done.remove(name)
            summary.count(None, progress)
        else:
            yield item


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Refuse a second process at the same results, as far as that can be known; raises BatchError."""
    if not store.is_local:
        yield
        return
    file: IO[bytes]
    folder = Path(store.root, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another batch is at work on {store.root}"
            raise BatchError(msg) from error
        except OSError as error:
            log.debug("there are no locks on this file system: %s", error)
        yield
