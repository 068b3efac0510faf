"""Pack photos into one tar shard of limited size, to train on where not all of them can go."""

from __future__ import annotations

from pathlib import Path

import click

from dlf.cli.jobs import complain, tell
from dlf.cli.options import PATH, above_zero
from dlf.errors import reason


@click.command("pack", short_help="Pack photos into one tar shard of limited size.")
@click.argument("folders", nargs=-1, required=True, type=PATH, metavar="FOLDER...")
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="Tar file to write.")
@click.option(
    "--max-mb",
    type=lambda text: above_zero(text, "megabytes"),
    default="40",
    show_default=True,
    metavar="N",
    help="Size at most.",
)
@click.option(
    "--short-side",
    type=click.IntRange(32, 2**16),
    default=288,
    show_default=True,
    metavar="PIXELS",
    help="Shrink images to this shorter side.",
)
def command(folders: tuple[Path, ...], output: Path, max_mb: float, short_side: int) -> int:
    """Pack photos into one tar shard of limited size, to train on where not all of them can go.

    FOLDER is a folder of images or of tar shards.
    """
    from dlf.train.pack import pack

    try:
        packed = pack(folders, output, max_bytes=int(max_mb * 1e6), short_side=short_side)
    except OSError as error:
        complain(f"{output} cannot be written: {reason(error)}")
        return 1
    tell(packed)
    return 0
