"""Measure how fast this machine encodes and decodes, and in how much memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlf.cli.jobs import tell
from dlf.cli.options import COUNT, ENGINES, PATH, listed, whole_numbers

if TYPE_CHECKING:
    from dlf.benchmark import ProcessRow, Row, Spent

MAX_SIDE = 16384


def sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Argument type: sizes of images, such as 256x256,768x512."""
    found = []
    for word in listed(text):
        sides = [int(side) if side.isdecimal() else 0 for side in word.split("x")]
        if len(sides) != 2 or not all(0 < side <= MAX_SIDE for side in sides):
            msg = f"'{word}' is not WIDTHxHEIGHT with sides up to {MAX_SIDE}"
            raise click.BadParameter(msg)
        found.append((sides[0], sides[1]))
    return tuple(found)


def thread_counts(text: str) -> tuple[int, ...]:
    """Argument type: numbers of threads, such as 1,2."""
    return whole_numbers(text, 1, 1024)


@click.command("bench")
@click.option("--image", type=PATH, metavar="FILE", help="Image to resize.  [default: one made up]")
@click.option("--sizes", type=sizes, default="768x512", show_default=True, metavar="WxH,...")
@click.option("--models", type=listed, default="fast,base", show_default=True, metavar="MODEL,...")
@click.option("--threads", type=thread_counts, metavar="N,...", help="Processor threads.  [default: all]")
@click.option(
    "--engine", type=click.Choice(ENGINES), default="onnxruntime", show_default=True, help="See dlf engines."
)
@click.option("-q", "--quality", type=click.IntRange(0, 100), default=50, show_default=True)
@click.option("--repeats", type=COUNT, default=5, show_default=True, help="Runs after the first.")
@click.option("--operators", is_flag=True, help="List the kinds of operators that take most of each network.")
@click.option("--processes", is_flag=True, help="Time dlf encode and dlf decode as whole processes as well.")
@click.option("--others", is_flag=True, help="And cwebp, avifenc and cjxl, where these are installed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    image: Path | None,
    sizes: tuple[tuple[int, int], ...],
    models: tuple[str, ...],
    threads: tuple[int, ...] | None,
    engine: str,
    quality: int,
    repeats: int,
    operators: bool,
    processes: bool,
    others: bool,
    as_json: bool,
) -> int:
    """Measure how fast this machine encodes and decodes, and in how much memory.

    Every figure is a median.  Seconds are by the clock, and in brackets of the processors, all threads
    together, which other programs hardly change; "products" are processor time in products of two 2048x2048
    float32 matrices, timed by turns with it, by which machines compare.
    """
    from dlf.benchmark import (
        Settings,
        measure,
        measure_others,
        measure_processes,
        to_json,
    )
    from dlf.codec.machine import machine

    settings = Settings(models, sizes, threads or (None,), engine, quality, repeats, operators)
    here = machine()
    libraries = ", ".join(f"{name} {number}" for name, number in here.libraries.items())
    tell(
        to_json(here)
        if as_json
        else f"{here.system}, {here.processor}, {here.cores} cores ({' '.join(here.features)})\n"
        f"Python {here.python}, {libraries}"
    )
    for row in measure(settings, image):
        tell(to_json(row) if as_json else _text(row))
    if processes:
        for process in measure_processes(settings, image):
            tell(to_json(process) if as_json else _process_text(process))
    if others:
        for process in measure_others(settings, image):
            tell(to_json(process) if as_json else _process_text(process))
    return 0


def _seconds(spent: Spent) -> str:
    return f"{spent.wall:.3f} s ({spent.processor:.3f} s)"


def _text(row: Row) -> str:
    threads = "all" if row.threads is None else row.threads
    lines = [
        f"{row.task} {row.model} {row.width}x{row.height}, threads {threads}: {_seconds(row.median)}, "
        f"{row.products:.2f} products of {_seconds(row.product)}; first image {_seconds(row.first)}",
        *(f"  {name:<18} {_seconds(spent)}" for name, spent in row.stages.items()),
    ]
    for graph, kinds in row.operators.items():
        most = sorted(kinds.items(), key=lambda kind: -kind[1])[:6]
        lines.append(f"  {graph}: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in most))
    return "\n".join(lines)


def _process_text(row: ProcessRow) -> str:
    memory = "" if row.peak is None else f", {row.peak / 1e6:.0f} MB at most"
    name = f"{row.program} {row.task}" if row.program == "dlf" else f"{row.program} ({row.task})"
    model = f" {row.model}" if row.model else ""
    return (
        f"process {name}{model} {row.width}x{row.height}: {_seconds(row.median)}{memory}, {row.bytes:,} bytes"
    )
