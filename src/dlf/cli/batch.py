"""Encode or decode very many images, on all cores or on a Ray cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

import click

from dlf.cli.decode import output_format
from dlf.cli.display import Display
from dlf.cli.jobs import complain, tell
from dlf.cli.names import DLF, readable_suffixes
from dlf.cli.options import COUNT, ENGINES, gathered, limit_options, loudness_options
from dlf.cli.sizes import FileSize, batch_size_options
from dlf.cli.streams import OutputGone

if TYPE_CHECKING:
    from dlf.batch import Job, Summary, Task
    from dlf.batch.records import Row
    from dlf.batch.sources import Source

WHERE = ("folder", "tar", "parquet")
"""Those of `dlf.batch.sink`, which the parser does not import."""

DRIVERS = ("processes", "ray")


@click.group(
    "batch",
    no_args_is_help=False,
    subcommand_metavar="ACTION",
    short_help="Encode or decode very many images.",
)
def command() -> None:
    """Encode or decode very many images, and go on where an earlier run was ended.

    IN is a folder, a pattern in quotes ('photos/**/*.jpg'), a tar shard or a Parquet file, or a folder of
    such: a path, or a URL that fsspec knows, such as s3://bucket/photos.  OUT is a folder or URL for the
    results and their manifest.
    """


@dataclass(frozen=True)
class Places:
    """What both actions are told of the places and of who works.

    to: what the results are put into.  engine: processes or ray.  kernel: what runs the networks.
    """

    source: str
    out: str
    model: str | None
    to: str
    shard_size: int
    column: str | None
    key_column: str | None
    workers: int | None
    engine: str
    address: str | None
    kernel: str
    retry_errors: bool
    max_pixels: int
    max_seconds: float | None
    json: bool

    def __post_init__(self) -> None:
        if self.address is not None and self.engine != "ray":
            msg = "--address goes with --engine ray only"
            raise click.UsageError(msg)
        if "" in (self.source, self.out):  # from a variable of the shell that is not set
            msg = "the name of a place is empty"
            raise click.UsageError(msg)


batch_options = gathered(
    Places,
    "places",
    click.argument("source", metavar="IN"),
    click.argument("out", metavar="OUT"),
    click.option("--model", metavar="MODEL", help="Folder, name or role of another model; see dlf --help."),
    click.option(
        "--to",
        type=click.Choice(WHERE),
        default="folder",
        show_default=True,
        help="What the results are put into: a file each, tar shards, or Parquet files.",
    ),
    click.option(
        "--shard-size",
        type=click.IntRange(1, 10**6),
        default=1000,
        show_default=True,
        metavar="N",
        help="Images of a shard at most, and of a file of the manifest.",
    ),
    click.option("--column", metavar="NAME", help="Of Parquet inputs: the images.  [default: found]"),
    click.option("--key-column", metavar="NAME", help="Of Parquet inputs: their names.  [default: found]"),
    click.option("--workers", type=COUNT, metavar="N", help="Images at a time.  [default: one a core]"),
    click.option("--engine", type=click.Choice(DRIVERS), default="processes", show_default=True),
    click.option(
        "--address", metavar="HOST:PORT", help="Of a Ray cluster, or auto.  [default: one of this machine]"
    ),
    click.option(
        "--networks",
        "kernel",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="What runs the networks; see dlf engines.",
    ),
    click.option("--retry-errors", is_flag=True, help="Do again what failed in an earlier run."),
    *limit_options,
    click.option("--json", is_flag=True, help="Report each image as one JSON object a line."),
)


@command.command("encode", short_help="Compress images to .dlf files.")
@batch_options
@batch_size_options
@click.option("--keep-metadata", is_flag=True, help="Store ICC, EXIF and XMP as well.")
@loudness_options
def encode_command(places: Places, size: FileSize, keep_metadata: bool, quiet: bool) -> int:
    """Compress images to .dlf files: a.jpg becomes a.jpg.dlf."""
    if size.total_bytes is not None:
        msg = "--total-bytes goes with dlf encode, which has all images at hand; a batch takes --bpp or -q"
        raise click.UsageError(msg)
    from dlf.batch import Task

    task = Task(
        "encode",
        places.model,
        places.max_pixels,
        places.max_seconds,
        **size.arguments(),
        metadata=keep_metadata,
        engine=places.kernel,
    )
    return _run(places, task, readable_suffixes(), quiet)


@command.command("decode", short_help="Decode .dlf files to images.")
@batch_options
@click.option("--format", "kind", type=output_format, default="png", show_default=True, metavar="NAME")
@click.option("--output-quality", type=click.IntRange(1, 100), metavar="1..100", help="Of lossy formats.")
@loudness_options
def decode_command(places: Places, kind: str, output_quality: int | None, quiet: bool) -> int:
    """Decode .dlf files to images: a.jpg.dlf becomes a.jpg.png."""
    from dlf.batch import Task
    from dlf.imageio.formats import OUTPUTS

    output = OUTPUTS[kind]
    if output_quality is not None and output.quality is None:
        msg = f"--output-quality does not apply to {output.name}, which is lossless"
        raise click.UsageError(msg)
    output.need()
    task = Task(
        "decode",
        places.model,
        places.max_pixels,
        places.max_seconds,
        format=kind,
        output_quality=output_quality,
        engine=places.kernel,
    )
    return _run(places, task, frozenset((DLF,)), quiet)


def _run(places: Places, task: Task, suffixes: frozenset[str], quiet: bool) -> int:
    from dlf.batch import Job, run
    from dlf.batch.sources import Source
    from dlf.codec.bundle import find

    find(task.model)  # a model that is not there is said before anything starts
    address = (places.address or "local") if places.engine == "ray" else None
    source = Source(places.source, suffixes, places.column, places.key_column, but=places.out)
    job = Job(
        source, places.out, task, places.to, places.workers, places.shard_size, places.retry_errors, address
    )
    start = time.monotonic()
    with _following(Display(quiet=quiet), source, json=places.json) as progress:
        summary = run(job, progress)
    if not quiet and not places.json:
        tell(_told(job, summary, time.monotonic() - start))
    if summary.errors:
        where = f"{places.out.rstrip('/')}/errors.jsonl"
        complain(f"{_images(summary.errors)} failed; {where} says why (--retry-errors does them again)")
    if summary.twice:
        complain(f"{_images(summary.twice)} had the name of another and were left out")
    return 1 if summary.errors or summary.twice else 0


def _told(job: Job, summary: Summary, seconds: float) -> str:
    count, verb = summary.done, "encoded" if job.task.direction == "encode" else "decoded"
    bpp = 8 * summary.bytes / summary.pixels if summary.pixels else 0.0
    text = f"{_images(count)} {verb}, {summary.failed:,} failed, {summary.skipped:,} were done before"
    if count:
        rate = (count + summary.failed) / seconds
        text += f"; {summary.bytes:,} bytes, {bpp:.4f} bpp, {rate:.2f} images a second"
    return text


def _images(count: int) -> str:
    return f"{count:,} image" + "s" * (count != 1)


@contextmanager
def _following(display: Display, source: Source, *, json: bool) -> Iterator[Callable[[Row | None], None]]:
    """Give what tells of every row: a line each, or a bar with images a second and the time left."""
    if json or not display.shown:
        yield _tell_row if json else lambda row: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[rate]:.2f} images/s"),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    with bars:
        bar = bars.add_task("images", total=None, rate=0.0)
        start = time.monotonic()

        def count() -> None:
            """Count what there is beside the work; how much that is need not be known to begin."""
            from dlf.batch.sources import items
            from dlf.errors import DlfError

            try:
                bars.update(bar, total=sum(1 for _ in items(source)))
            except DlfError:
                return  # said by the run itself

        Thread(target=count, daemon=True).start()
        done = 0

        def follow(row: Row | None) -> None:
            nonlocal done
            done += row is not None
            bars.update(bar, advance=1, rate=done / max(time.monotonic() - start, 1e-3))
            if row is not None and row.error is not None:
                complain(f"{row.path}: {row.error}")

        yield follow


def _tell_row(row: Row | None) -> None:
    from dataclasses import asdict

    if row is not None:
        try:
            tell(json.dumps(asdict(row)))
        except OSError as error:
            raise OutputGone from error
