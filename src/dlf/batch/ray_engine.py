"""A Ray cluster: Ray Data hands parts of the batch to actors, each with one codec on one core.

What there is to do is written down first, a file for each part (a *plan*), so that neither the driver nor
Ray's object store ever holds more than numbers; actors read pictures and write results themselves.  Ray
restarts an actor that dies and repeats its part, and a part that is made twice is the same file twice.
"""

from __future__ import annotations

import logging
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from dlf.batch.manifest import Manifest
from dlf.batch.processes import TRIES
from dlf.batch.reader import Reader
from dlf.batch.records import Item, Made, Row, failed, items_of, to_lines
from dlf.batch.sink import Part, placed
from dlf.batch.stores import UNFINISHED, Store
from dlf.batch.worker import MakeWork
from dlf.errors import BatchError, explain
from dlf.extras import first_line, need

if TYPE_CHECKING:
    from dlf.batch.job import Job

PARTS_EACH = 4
"""Parts that every worker should have at least, so that none waits long for the last."""

BLOCKS = 10_000
"""Blocks of Ray Data at most, but for very large clusters; a driver holds something of each."""

_COLUMN = "item"  # of ray.data.from_items


def run(
    job: Job,
    manifest: Manifest,
    number: int,
    items: Iterator[Item],
    make: MakeWork,
    done: Callable[[Row], None],
) -> None:
    """Work on all items on a cluster.

    number: of the first part.  make: as for `dlf.batch.processes`.  done: is told of every row.

    Raises:
        MissingExtra: ray is not installed.
        BatchError: the cluster cannot be reached, or ended.
    """
    if "memory" in Store(job.out).protocols or "memory" in Store(job.source.url).protocols:
        msg = "memory:// is known to one process only, so that no cluster can use it"
        raise BatchError(msg)
    ray, data = need("ray", "ray"), need("ray.data", "ray")
    make()  # what is wrong with the model is said here, not by every actor
    with _cluster(ray, job) as workers:
        parts = _plan(job, manifest, number, items, workers)
        if parts == 0:
            return
        _quiet(data)
        attempts = ray.remote(num_cpus=0)(Attempts).remote()
        blocks = min(parts, max(BLOCKS, PARTS_EACH * workers))
        # no task makes these numbers: it would wait for a core, and the actors may have them all
        numbers = data.from_items(list(range(number, number + parts)), override_num_blocks=blocks)
        rows = numbers.map_batches(
            PartMaker,
            fn_constructor_args=(job, attempts, make),
            batch_size=1,
            num_cpus=1,
            compute=data.ActorPoolStrategy(size=min(workers, parts), max_tasks_in_flight_per_actor=2),
        )
        try:
            for batch in rows.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
                for part in batch[_COLUMN]:
                    for row in manifest.rows(int(part)):
                        done(row)
        except ray.exceptions.RayError as error:
            msg = f"the cluster could not go on: {first_line(error)}"
            raise BatchError(msg) from error


@contextmanager
def _cluster(ray: Any, job: Job) -> Iterator[int]:
    """Be in a cluster, which may have to be started; gives how many workers it is to have."""
    is_ours = not ray.is_initialized()
    if is_ours:
        local = job.address in (None, "local")
        options = {"num_cpus": job.cores, "include_dashboard": False} if local else {}
        try:
            with _own_handlers():
                ray.init(address=job.address, logging_level=logging.ERROR, log_to_driver=False, **options)
        except Exception as error:  # Ray raises bare ones too
            msg = f"the Ray cluster {job.address} cannot be reached: {first_line(error)}"
            raise BatchError(msg) from error
    try:
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield min(job.workers or cores, cores)  # more would wait for cores for ever
    finally:
        if is_ours:
            ray.shutdown()


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Put signal handlers back: Ray's end the process at once, with nothing cleaned up."""
    if current_thread() is not main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _quiet(data: Any) -> None:
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _plan(job: Job, manifest: Manifest, number: int, items: Iterator[Item], workers: int) -> int:
    """Write down what each part has to do; returns how many parts there are.

    A batch that is small for its cluster gets parts that are smaller than was asked for.
    """
    with tempfile.TemporaryFile() as listed:  # they may be too many for the memory
        count = 0
        for item in items:
            listed.write(to_lines([item]))
            count += 1
        size = max(1, min(job.part_size, -(-count // (PARTS_EACH * workers))))
        listed.seek(0)
        parts = -(-count // size)
        for part in range(parts):
            manifest.store.write(_plan_name(number + part), b"".join(islice(listed, size)))
    return parts


def _plan_name(number: int) -> str:
    return f"{UNFINISHED}/plan-{number:06d}.jsonl"


class Attempts:
    """Knows which picture each part is at, and so which one ended its actor; an actor of its own."""

    def __init__(self) -> None:
        self._at: dict[int, str] = {}
        self._ended: dict[tuple[int, str], int] = {}

    def begin(self, part: int, key: str | None, *, after_another: bool) -> int:
        """Note that a part goes on to a picture, None at its end; returns how often that ended its actor.

        after_another: the picture before was done by the same actor.
        """
        before = self._at.pop(part, None)
        if before is not None and not after_another:
            self._ended[part, before] = self._ended.get((part, before), 0) + 1
        if key is None:
            self._ended = {known: count for known, count in self._ended.items() if known[0] != part}
            return 0
        self._at[part] = key
        return self._ended.get((part, key), 0)


class PartMaker:
    """What an actor does: it has a codec, and makes one part after the other."""

    def __init__(self, job: Job, attempts: Any, make: MakeWork) -> None:
        self._job, self._attempts = job, attempts
        self._manifest = Manifest(Store(job.out))
        self._reader = Reader(job.source)
        self._work = make()
        self._get = need("ray", "ray").get

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make parts, given by their numbers; returns these numbers."""
        for number in map(int, batch[_COLUMN]):
            if not self._manifest.has(number):  # else the actor ended right after it
                self._make_part(number)
        return {_COLUMN: batch[_COLUMN]}

    def _make_part(self, number: int) -> None:
        part = Part(self._manifest, self._job.kind, number)
        try:
            planned = items_of(self._manifest.store.read(_plan_name(number)))
            for place, item in enumerate(planned):
                ended = self._begin(number, item.key, place > 0)
                made = self._made(item) if ended < TRIES else failed(item, "it ended its worker twice")
                part.add(placed(self._manifest.store, self._job.kind, made))
            part.commit()
            self._begin(number, None, True)
        except BaseException:
            part.abandon()
            raise

    def _begin(self, number: int, key: str | None, after_another: bool) -> int:
        return int(self._get(self._attempts.begin.remote(number, key, after_another=after_another)))

    def _made(self, item: Item) -> Made:
        try:
            data = self._reader.read(item)
        except Exception as error:  # of any file system
            return failed(item, explain(error))
        return self._work(item.key, data)
