"""Compress pictures to .dlf files."""

from __future__ import annotations

import argparse
import time

import dlf
from dlf.cli import jobs
from dlf.cli.jobs import Job, Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf encode``."""
    jobs.add_common_arguments(parser)
    jobs.add_codec_arguments(parser)
    parser.add_argument(
        "-q",
        "--quality",
        type=lambda text: jobs.bounded(text, 0, 100),
        metavar="0..100",
        help="higher is better and larger (default: the model's, 50 for those of the package)",
    )
    parser.add_argument(
        "--keep-metadata",
        action="store_true",
        help="store ICC, EXIF and XMP as well; they can be larger than the picture",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encode every input; returns the exit code."""
    planned = jobs.plan(args, ".dlf")
    codec = dlf.Codec(args.model, args.threads, engine=jobs.engine_options(args))

    def work(job: Job) -> Report:
        jobs.check_target(job, overwrite=args.overwrite)
        start = time.perf_counter()
        source = jobs.read(job.source) if job.source == jobs.STDIO else job.source
        data = codec.encode(source, args.quality, metadata=args.keep_metadata)
        seconds = time.perf_counter() - start
        jobs.write(job, data)
        return _report(job, data, seconds)

    return jobs.run(args, planned, work)


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
