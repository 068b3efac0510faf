"""How fast batches run: ``python tools/batch_speed.py FOLDER --workers 1 2 --ray --rounds 2``.

The pictures of FOLDER are encoded into a temporary folder, by one engine and number of workers after the
other and then all of them again, so that whatever else the machine does meets each alike.  For every run:
images a second between a quarter of the way and the end, when all models are loaded, and the processor
seconds an image of all processes together in the same time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

import psutil

from dlf.batch import Job, Task, run
from dlf.batch.records import Row
from dlf.batch.sources import Source

SKIPPED = 4  # a quarter of the images, while workers start


class ProcessorClock:
    """Processor time of this process and all below it, looked at often enough to know those that end."""

    def __init__(self) -> None:
        self._known: dict[int, float] = {}
        self._end = Event()
        Thread(target=self._watch, daemon=True).start()

    def seconds(self) -> float:
        """Return what has been used until now."""
        this = psutil.Process()
        for process in [this, *this.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._known[process.pid] = times.user + times.system
        return sum(list(self._known.values()))

    def stop(self) -> None:
        """Look no more."""
        self._end.set()

    def _watch(self) -> None:
        while not self._end.wait(0.5):
            self.seconds()


def main() -> None:
    """Print a line for every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--ray", action="store_true", help="on Ray as well")
    parser.add_argument("--rounds", type=int, default=2, metavar="N")
    parser.add_argument("--part-size", type=int, default=8, metavar="N", help="images of a part (default: 8)")
    parser.add_argument("--model", metavar="MODEL", help="folder, name or role (default: the package's)")
    args = parser.parse_args()
    for _ in range(args.rounds):
        for workers in args.workers:
            for address in (None, "local") if args.ray else (None,):
                measure(args, workers, address)


def measure(args: argparse.Namespace, workers: int, address: str | None) -> None:
    """Run a batch and print how fast it was."""
    times: list[float] = []
    used: list[float] = []
    clock = ProcessorClock()

    def follow(row: Row | None) -> None:
        times.append(time.perf_counter())
        used.append(clock.seconds())

    with tempfile.TemporaryDirectory() as out:
        source = Source(str(args.folder), frozenset((".png", ".jpg", ".jpeg", ".webp")))
        job = Job(
            source,
            out,
            Task("encode", args.model),
            workers=workers,
            part_size=args.part_size,
            address=address,
        )
        run(job, follow)
    clock.stop()
    first = len(times) // SKIPPED
    rate = (len(times) - first - 1) / (times[-1] - times[first])
    each = (used[-1] - used[first]) / (len(times) - first - 1)
    name = "ray" if address else "processes"
    print(
        f"{name}, {workers} at a time: {rate:.2f} images a second, {each:.3f} processor seconds an image",
        flush=True,
    )


if __name__ == "__main__":
    main()
