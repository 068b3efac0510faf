"""List what can run a model's networks of pixels, with measured times."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from dlf.cli.jobs import tell
from dlf.cli.options import COUNT

if TYPE_CHECKING:
    from dlf.codec.engine_times import EngineTimes, Timing

MAX_SIDE = 1536  # of a tile, in pixels


def image_size(text: str) -> tuple[int, int]:
    """Argument type: width and height of an image that is one tile."""
    sides = [int(side) if side.isdecimal() else 0 for side in text.split("x")]
    if len(sides) != 2 or not all(0 < side <= MAX_SIDE for side in sides):
        msg = f"'{text}' is not WIDTHxHEIGHT with sides up to {MAX_SIDE}"
        raise click.BadParameter(msg)
    return sides[0], sides[1]


@click.command("engines")
@click.option("--model", metavar="MODEL", help="Folder, name or role of another model; see dlf --help.")
@click.option(
    "--size", type=image_size, metavar="WxH", default="768x512", show_default=True, help="Size of the image."
)
@click.option("--threads", type=COUNT, metavar="N", help="Processor threads to use.  [default: all]")
@click.option("--repeats", type=COUNT, default=5, show_default=True, help="Runs, of which the best counts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    model: str | None, size: tuple[int, int], threads: int | None, repeats: int, as_json: bool
) -> int:
    """List the engines for models of ONNX graphs, with the time that each takes for one image.

    Seconds are the best by the clock, and in brackets the median of processor time, all threads together.
    What decides the symbols of a file runs in ONNX Runtime whatever the engine.
    """
    from dlf.codec.bundle import find
    from dlf.codec.engine_times import measure

    results = measure(find(model), *size, threads=threads, repeats=repeats)
    if as_json:
        for row in results:
            tell(json.dumps(asdict(row)))
        return 0
    able = [row for row in results if row.version is not None]
    rows = [("engine", "version", "precision", "analysis", "synthesis"), *map(_cells, able)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        tell("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())
    for row in results:
        if row.missing is not None:
            tell(f"{row.engine}: {row.missing}")
    return 0


def _cells(row: EngineTimes) -> tuple[str, str, str, str, str]:
    return row.engine, row.version or "", row.precision, _seconds(row.analysis), _seconds(row.synthesis)


def _seconds(timing: Timing | None) -> str:
    return "" if timing is None else f"{timing.best:.3f} s ({timing.processor:.3f} s)"
