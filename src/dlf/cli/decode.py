"""Paint the pictures of .dlf files."""

from __future__ import annotations

import argparse
import time

import dlf
from dlf.cli import jobs
from dlf.cli.jobs import Job, Report, UsageError

SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf decode``."""
    jobs.add_common_arguments(parser)
    jobs.add_codec_arguments(parser)
    parser.add_argument(
        "--format", choices=list(SUFFIX), help="picture format (default: by the ending of OUT, else png)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decode every input; returns the exit code."""
    from dlf.imageio import to_bytes

    planned = jobs.plan(args, SUFFIX[args.format or "png"])
    kinds = {job: _kind(job, args.format) for job in planned}

    codec = dlf.Codec(args.model, args.threads, engine=jobs.engine_options(args))

    def work(job: Job) -> Report:
        jobs.check_target(job, overwrite=args.overwrite)
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

    return jobs.run(args, planned, work)


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
        raise UsageError(str(error)) from error
    if wanted not in (None, kind):
        msg = f"--format {wanted} does not go with the name {target}"
        raise UsageError(msg)
    return kind
