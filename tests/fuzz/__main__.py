"""Throw mutated inputs at what reads files: `cd tests && python -m fuzz coder decode --runs 100000`.

Every input must be read, or refused by an error of the package, within 5 seconds and 2 GiB of memory beyond
those at the start.  An input that is not is kept in the folder that --keep names, and the exit code is 1.  A
process of its own reads the inputs; if it dies, the one that it died of is kept, and the next process goes on
behind it.

Inputs depend on --seed and their number alone.  `python -m fuzz.guided` lets coverage guide them instead.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import mmap
import multiprocessing
import random
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType
from typing import Any

from dlf.errors import DlfError
from fuzz.targets import TARGETS, Target

SECONDS = 5  # of one input
MEMORY = 2**31  # beyond what the target has at its start
ROOM = 2**24  # bytes of the largest input


class TooSlow(Exception):
    """An input took longer than `SECONDS`."""


def one(target: Target, data: bytes) -> str:
    """Read one input; returns "read", the name of the package's error, or a line that begins with "FAULT"."""
    try:
        target.read(data)
    except DlfError as error:
        return type(error).__name__
    except Exception as error:
        return f"FAULT {type(error).__name__}: {error}"
    return "read"


def generated(target: Target, seed: int, number: int) -> bytes:
    """Return the input of a number: a seed of the target that is mutated once or several times."""
    rng = random.Random(f"{seed} {number}")
    data = rng.choice(target.seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = target.mutate(rng, data)
    return data[:ROOM]


def work(target: Target, seed: int, numbers: range, shared: mmap.mmap, results: SimpleQueue[Any]) -> None:
    """Read the inputs of some numbers; the number of the one that is read stands in `shared`."""
    signal.signal(signal.SIGALRM, _too_slow)
    most = _memory() + MEMORY
    counts: Counter[str] = Counter()
    for number in numbers:
        shared[:8] = number.to_bytes(8, "little")
        signal.alarm(SECONDS)
        outcome = one(target, generated(target, seed, number))
        signal.alarm(0)
        if _memory() > most:
            outcome, most = "FAULT more memory than allowed", _memory() + MEMORY
        if outcome.startswith("FAULT"):
            results.put((number, outcome))
        counts[outcome.split()[0]] += 1
    results.put((None, counts))


def _memory() -> int:
    """The most bytes of memory that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _too_slow(_: int, __: FrameType | None) -> None:
    msg = f"more than {SECONDS} s"
    raise TooSlow(msg)


def quiet() -> None:
    """Pictures with flaws are told about a line each; here they all have some."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def run(name: str, runs: int, seed: int, keep: Path | None) -> int:
    """Run one target; prints what came of it and returns how many faults there were."""
    target = TARGETS[name]()
    context = multiprocessing.get_context("fork")
    shared, results = mmap.mmap(-1, 8), context.SimpleQueue()
    start, first, done, faults = time.monotonic(), 0, 0, 0
    counts: Counter[str] = Counter()
    while first < runs:
        process = context.Process(target=work, args=(target, seed, range(first, runs), shared, results))
        process.start()
        while process.is_alive() or not results.empty():
            if results.empty():
                process.join(0.05)
                continue
            number, outcome = results.get()
            if number is None:
                counts, done, first = counts + outcome, done + outcome.total(), runs
            else:
                faults += 1
                report(name, number, outcome, generated(target, seed, number), keep)
        if first < runs:  # it died
            number, faults = int.from_bytes(shared[:8], "little"), faults + 1
            outcome = f"the process died, exit code {process.exitcode}"
            report(name, number, outcome, generated(target, seed, number), keep)
            done, first = done + number + 1 - first, number + 1
    told = ", ".join(f"{count:,} {what}" for what, count in counts.most_common())
    seconds = time.monotonic() - start
    print(f"{name}: {done:,} inputs in {seconds:.0f} s, {faults} faults ({told})", flush=True)
    return faults


def report(name: str, number: int, outcome: str, data: bytes, keep: Path | None) -> None:
    """Print a fault, and keep its input if there is a folder for it."""
    print(f"{name} {number}: {outcome}", flush=True)
    if keep is not None:
        (keep / name).mkdir(parents=True, exist_ok=True)
        (keep / name / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def main() -> int:
    """Run the targets that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, default=10_000, metavar="N", help="inputs of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where inputs go that are faults")
    args = parser.parse_args()
    quiet()
    names = args.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return int(sum(run(name, args.runs, args.seed, args.keep) for name in names) > 0)


if __name__ == "__main__":
    sys.exit(main())
