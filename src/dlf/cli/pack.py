"""Pack photos into one tar shard of limited size, to train on where not all of them can go."""

from __future__ import annotations

import argparse
from pathlib import Path

from dlf.cli.jobs import bounded, complain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf pack``."""
    parser.add_argument("folder", type=Path, nargs="+", help="folder of pictures or tar shards")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="tar file to write")
    parser.add_argument(
        "--max-mb", type=_megabytes, default=40.0, metavar="N", help="size at most (default: %(default)g)"
    )
    parser.add_argument(
        "--short-side",
        type=lambda text: bounded(text, 32, 2**16),
        default=288,
        metavar="PIXELS",
        help="shrink pictures to this shorter side (default: %(default)s)",
    )
    parser.set_defaults(run=run, quiet=False, verbose=False)


def _megabytes(text: str) -> float:
    """Argument type of a size."""
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        msg = f"'{text}' is not a number of megabytes above 0"
        raise argparse.ArgumentTypeError(msg)
    return size


def run(args: argparse.Namespace) -> int:
    """Pack; returns the exit code."""
    from dlf.train.pack import pack

    try:
        found = pack(args.folder, args.output, max_bytes=int(args.max_mb * 1e6), short_side=args.short_side)
    except OSError as error:
        complain(f"{args.output} cannot be written: {error.strerror or error}")
        return 1
    print(found)
    return 0
