"""Whole commands of several versions: ``python tools/command_turns.py old=DIR new=DIR -- decode a.dlf``.

DIR is the folder ``src`` of a checkout.  Versions run the command by turns, so that what else the machine
does meets them alike.  What is printed, for each: processor time (median and least), the median of its ratio
to the first version in the same turn, the least time by the clock, and the peak of memory.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

from dlf.benchmark import Spent, run_process


def main() -> None:
    """Print a line for each version."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--repeats", type=int, default=9, help="turns after one to warm up")
    options, command = _split(sys.argv[1:])
    args = parser.parse_args(options)
    versions = dict(version.split("=", 1) for version in args.versions)
    if missing := [folder for folder in versions.values() if not Path(folder, "dlf").is_dir()]:
        parser.error(f"no dlf in {', '.join(missing)}")
    rows: dict[str, list[tuple[Spent, int | None]]] = {name: [] for name in versions}
    for _ in range(args.repeats + 1):
        for name, folder in versions.items():
            path = f"PYTHONPATH={Path(folder).resolve()}"
            rows[name].append(run_process(["env", path, sys.executable, "-m", "dlf", *command]))
    first = next(iter(rows.values()))
    for name, row in rows.items():
        print(describe(name, row[1:], first[1:]))


def describe(name: str, row: list[tuple[Spent, int | None]], first: list[tuple[Spent, int | None]]) -> str:
    """Return the line of a version."""
    times = [spent.processor for spent, _ in row]
    ratio = median(time / spent.processor for time, (spent, _) in zip(times, first, strict=True))
    clock = min(spent.wall for spent, _ in row)
    peak = max(peak or 0 for _, peak in row)
    return (
        f"{name:12} {median(times):.3f} s of processor time, {min(times):.3f} s at least, ratio {ratio:.2f}; "
        f"{clock:.2f} s by the clock at least; {peak / 1e6:.0f} MB"
    )


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """What comes before and after --."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


if __name__ == "__main__":
    main()
