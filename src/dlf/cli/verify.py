"""Check .dlf files: every part of each, as far as that can be done without the original."""

from __future__ import annotations

from dataclasses import asdict

import click

import dlf
from dlf.cli import jobs, streams
from dlf.cli.display import Display
from dlf.cli.jobs import Report
from dlf.cli.names import DLF, STDIO, Job, expand
from dlf.cli.options import Common, common_options, loudness_options
from dlf.files import descriptor_of


@click.command("verify", short_help="Check .dlf files for damage.")
@common_options
@click.option("--paint", is_flag=True, help="Run the network that paints as well, which takes seconds.")
@loudness_options
def command(common: Common, paint: bool, quiet: bool) -> int:
    """Check .dlf files: header, metadata, checksum, and that the payload is exactly its symbols.

    IN is a .dlf file, a folder of them, or - for standard input.  One line for each file; exit code 0 if
    all are good, else 1.  A file whose model is not installed cannot be checked and counts as bad.
    """
    names = tuple(STDIO if descriptor_of(name) == 0 else name for name in common.inputs)
    planned = [Job(each.path) for each in expand(names, lambda: (DLF,), recursive=common.recursive)]
    codec = dlf.Codec(common.model, max_pixels=common.max_pixels, max_seconds=common.max_seconds)

    def work(job: Job) -> Report:
        with streams.opened_here(job.source) as file:
            verdict = codec.verify(file, paint=paint)
        fields = {"good": verdict.good, **asdict(verdict)}
        if verdict.problem is not None:
            return Report("", fields, verdict.problem, jobs.FAILED)
        done = "painted, " if paint else ""
        text = f"{job.source}: good, {done}{verdict.file_bytes:,} bytes, model {verdict.model_name}"
        return Report(jobs.one_line(text), fields)

    return jobs.run(Display(quiet=quiet), common, planned, work)
