"""Image x target x codec -> rows; several images at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, Queue
from threading import Event

from dlf.errors import DlfError
from dlf.evaluation.codecs.protocols import ComparedCodec
from dlf.evaluation.comparison import Comparison, Target
from dlf.evaluation.dataset import ImageFile
from dlf.evaluation.image_bench import ImageBench
from dlf.evaluation.ledger import Ledger, Row

log = logging.getLogger(__name__)


def run(comparison: Comparison, images: Sequence[ImageFile], ledger: Ledger, jobs: int = 1) -> Iterator[Row]:
    """Yield every row of the comparison; finished ones come from the ledger, new ones go into it.

    jobs: images at a time.  The rows of one image come in order, those of several as they are made.
    What goes wrong with one image or codec is told by its row, and the rest goes on.
    Raises OSError if the ledger cannot be written.
    """
    results: Queue[Row | Exception] = Queue()
    stop = Event()

    def work(image: ImageFile) -> None:
        try:
            for row in _rows(ImageBench(comparison, image), ledger):
                results.put(row)
                if stop.is_set():
                    return
        except Exception as error:
            results.put(error)

    pool = ThreadPoolExecutor(jobs)
    try:
        for image in images:
            pool.submit(work, image)
        for _ in range(len(images) * len(comparison.targets) * len(comparison.codecs)):
            row = results.get()
            if isinstance(row, Exception):
                raise row
            ledger.add(row)
            yield row
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        for row in _drained(results):
            ledger.add(row)


def _drained(results: Queue[Row | Exception]) -> Iterator[Row]:
    """Yield what was finished but not asked for."""
    while True:
        try:
            row = results.get_nowait()
        except Empty:
            return
        if isinstance(row, Row):
            yield row


def _rows(bench: ImageBench, ledger: Ledger) -> Iterator[Row]:
    """Yield the rows of one image."""
    for target in bench.comparison.targets:
        reference: Row | None = None
        for codec in bench.comparison.ordered:
            row = _row(bench, ledger, codec, target, reference)
            yield row
            if reference is None:
                reference = row


def _row(
    bench: ImageBench, ledger: Ledger, codec: ComparedCodec, target: Target, reference: Row | None
) -> Row:
    """Find a row or make it; `reference` is the row of our own codec at this target."""
    blank = Row(bench.image.name, target.label, codec.name, "")
    try:
        if target.quality is not None and not codec.own:
            budget: int | None = _size_of(reference)
        else:
            budget = None if target.bpp is None else int(target.bpp * bench.pixels / 8)
        blank = replace(blank, identity=bench.identity(codec, target, budget))
        if finished := ledger.find(blank.key, blank.identity):
            return bench.completed(finished)
        return bench.measure(blank, target, budget)
    except Exception as error:  # whatever happens to one row, the next gets its turn
        log.debug("%s, %s", blank.picture, codec.name, exc_info=True)
        return replace(blank, error=_explain(error))


def _size_of(reference: Row | None) -> int:
    if reference is None or reference.error:
        msg = "there is no number of bytes to compare at, because dlf failed"
        raise DlfError(msg)
    return reference.size


def _explain(error: Exception) -> str:
    text = str(error) if isinstance(error, DlfError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
