"""Compress pictures to .dlf files."""

from __future__ import annotations

import time

import click

import dlf
from dlf.cli import jobs
from dlf.cli.display import Display
from dlf.cli.jobs import Job, Report
from dlf.cli.options import (
    Common,
    Engine,
    Outputs,
    common_options,
    engine_options,
    loudness_options,
    output_options,
)


@click.command("encode")
@common_options
@output_options
@click.option(
    "-q",
    "--quality",
    type=click.IntRange(0, 100),
    default=50,
    show_default=True,
    metavar="0..100",
    help="Higher is better and larger.",
)
@click.option(
    "--keep-metadata",
    is_flag=True,
    help="Store ICC, EXIF and XMP as well; they can be larger than the picture.",
)
@engine_options
@loudness_options
def command(
    common: Common, outputs: Outputs, engine: Engine, quality: int, keep_metadata: bool, quiet: bool
) -> int:
    """Compress pictures to .dlf files."""
    planned = jobs.plan(common, outputs.output, ".dlf")
    display = Display(quiet=quiet)
    codec = dlf.Codec(common.model, engine.threads, engine=engine.options(display.network))

    def work(job: Job) -> Report:
        jobs.check_target(job, overwrite=outputs.overwrite)
        start = time.perf_counter()
        source = jobs.read(job.source) if job.source == jobs.STDIO else job.source
        data = codec.encode(source, quality, metadata=keep_metadata)
        seconds = time.perf_counter() - start
        jobs.write(job, data)
        return _report(job, data, seconds)

    return jobs.run(display, common, planned, work)


def _report(job: Job, data: bytes, seconds: float) -> Report:
    from dlf.bitstream.header import Header

    header, _ = Header.unpack(data)
    bpp = 8 * len(data) / (header.width * header.height)
    text = (
        f"{job.source} -> {job.target}: {header.width}x{header.height}, quality {header.quality}, "
        f"{len(data):,} bytes, {bpp:.4f} bpp, {seconds:.2f} s"
    )
    fields: dict[str, object] = {
        "output": job.target,
        "width": header.width,
        "height": header.height,
        "quality": header.quality,
        "bytes": len(data),
        "bpp": bpp,
        "seconds": round(seconds, 3),
    }
    return Report(text, fields)
