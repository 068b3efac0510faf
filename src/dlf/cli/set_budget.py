"""``dlf encode --total-bytes``: the files of all inputs from one number of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from dlf.cli import streams
from dlf.cli.names import Job, JobError
from dlf.cli.options import Common, Outputs
from dlf.cli.sizes import FileSize
from dlf.errors import DlfError, UnreachableSize

if TYPE_CHECKING:
    import dlf


def check_options(size: FileSize, outputs: Outputs) -> None:
    """Refuse what does not go with a total; raises click.UsageError."""
    for option, given in (("--skip-existing", outputs.skip_existing), ("--jobs", outputs.jobs > 1)):
        if size.total_bytes is not None and given:
            msg = f"{option} is not allowed with --total-bytes"
            raise click.UsageError(msg)


def encode_jobs(
    codec: dlf.Codec,
    jobs: Sequence[Job],
    common: Common,
    outputs: Outputs,
    size: FileSize,
    *,
    metadata: bool,
    strict: bool,
    effort: int,
) -> dict[Job, bytes | Exception]:
    """Return the files of all jobs that can be done, and what is wrong with those that cannot be read.

    Nothing without a total; a job whose output may not be written is left out.

    Raises:
        UnreachableSize: there are no files of that total.
        InvalidArgument: there can be none.
    """
    if size.total_bytes is None:
        return {}
    sources: dict[Job, str | bytes] = {}
    unread: dict[Job, bytes | Exception] = {}
    for job in jobs:
        try:
            source = _source(job, common, outputs, strict=strict)
        except (DlfError, OSError, MemoryError) as error:
            unread[job] = error
            continue
        if source is not None:
            sources[job] = source
    if not sources:
        return unread
    try:
        files = codec.encode_set(
            list(sources.values()),
            size.total_bytes,
            best=size.best,
            metadata=metadata,
            strict=strict,
            effort=effort,
        )
    except UnreachableSize as error:
        msg = f"{error} (--best takes it)"
        raise UnreachableSize(msg) from error
    return unread | dict(zip(sources, files, strict=True))


def file_of(job: Job, files: Mapping[Job, bytes | Exception]) -> bytes | None:
    """Return what `encode_jobs` made of a job, None where it left it alone; raises what was wrong with it."""
    file = files.get(job)
    if isinstance(file, Exception):
        raise file
    return file


def _source(job: Job, common: Common, outputs: Outputs, *, strict: bool) -> str | bytes | None:
    """Return what an image can be read from again and again; None where its output may not be written.

    Raises what reading it raises.
    """
    from dlf.imageio import load_rgb

    try:
        if streams.exists(job) and not outputs.overwrite:
            return None
    except JobError:
        return None
    source = streams.image_source(job.source)
    load_rgb(source, max_pixels=common.max_pixels, strict=strict)
    return source
