"""Paint the pictures of .dlf files."""

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

SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


@click.command("decode")
@common_options
@output_options
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(SUFFIX)),
    help="Picture format.  [default: by the ending of OUT, else png]",
)
@engine_options
@loudness_options
def command(common: Common, outputs: Outputs, engine: Engine, kind: str | None, quiet: bool) -> int:
    """Paint the pictures of .dlf files."""
    from dlf.imageio import to_bytes

    planned = jobs.plan(common, outputs.output, SUFFIX[kind or "png"])
    kinds = {job: _kind(job, kind) for job in planned}
    display = Display(quiet=quiet)
    codec = dlf.Codec(common.model, engine.threads, engine=engine.options(display.network))

    def work(job: Job) -> Report:
        jobs.check_target(job, overwrite=outputs.overwrite)
        start = time.perf_counter()
        image = codec.decode(jobs.read(job.source))
        data = to_bytes(image, kinds[job])
        seconds = time.perf_counter() - start
        jobs.write(job, data)
        text = f"{job.source} -> {job.target}: {image.width}x{image.height}, {seconds:.2f} s"
        fields: dict[str, object] = {
            "output": job.target,
            "format": kinds[job],
            "width": image.width,
            "height": image.height,
            "bytes": len(data),
            "seconds": round(seconds, 3),
        }
        return Report(text, fields)

    return jobs.run(display, common, planned, work)


def _kind(job: Job, wanted: str | None) -> str:
    """Picture format of one output; what cannot be written is a mistake of the command line."""
    from dlf.errors import ImageError
    from dlf.imageio import format_of

    target = str(job.target)
    if target == jobs.STDIO:
        return wanted or "png"
    try:
        kind = format_of(target)
    except ImageError as error:
        raise click.UsageError(str(error)) from error
    if wanted not in (None, kind):
        msg = f"--format {wanted} does not go with the name {target}"
        raise click.UsageError(msg)
    return kind
