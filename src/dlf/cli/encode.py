"""Compress images to .dlf files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlf.cli import jobs, set_budget, streams
from dlf.cli.display import Display
from dlf.cli.jobs import Report
from dlf.cli.names import DLF, STDIO, Job, Naming, expand, in_and_out, plan, readable_suffixes
from dlf.cli.options import (
    EFFORTS,
    FILE,
    Common,
    Engine,
    Outputs,
    common_options,
    engine_options,
    loudness_options,
    output_options,
)
from dlf.cli.process import import_numpy
from dlf.cli.sizes import FileSize, file_size_options
from dlf.errors import DlfError, UnreachableSize, explain
from dlf.extras import need

if TYPE_CHECKING:
    from dlf.records import UInt8


@click.command("encode")
@common_options
@output_options
@file_size_options
@click.option(
    "--keep-metadata",
    is_flag=True,
    help="Store ICC, EXIF and XMP as well; they can be larger than the image.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse files with a flaw that can be passed over, such as a JPEG without its end.",
)
@click.option(
    "--roi",
    type=FILE,
    metavar="MASK",
    help="Region that is to have more of the bytes: an image of the same size, white where it counts; or "
    "faces or text, to find them in each image.",
)
@click.option(
    "--resilient", is_flag=True, help="Make packets that can be read without each other, for lossy links."
)
@click.option(
    "--packet-bytes",
    type=click.IntRange(32, 2**20),
    metavar="N",
    help="Size of such a packet at most, unless a single window needs more.  [default: 256]",
)
@click.option(
    "--effort",
    type=click.Choice(EFFORTS),
    default=EFFORTS[0],
    show_default=True,
    help="How long to search for better symbols of the same bytes; above 0 it takes seconds to minutes and "
    "the extra torch.",
)
@click.option("--keep-suffix", is_flag=True, help="Call the output of a.png a.png.dlf instead of a.dlf.")
@engine_options
@loudness_options
def command(
    common: Common,
    outputs: Outputs,
    engine: Engine,
    size: FileSize,
    keep_metadata: bool,
    strict: bool,
    roi: str | None,
    resilient: bool,
    packet_bytes: int | None,
    effort: str,
    keep_suffix: bool,
    quiet: bool,
) -> int:
    """Compress images to .dlf files.

    IN is an image, a folder of images, or - for standard input.  The output of NAME.png is NAME.dlf beside
    it, or in the folder that -o names; below it the tree of an input folder is kept.  Of two names without -o
    the second is the output if it ends in .dlf, is a folder (and the first is none) or is -.  Images in a
    folder that are called like decoded ones, such as NAME.dlf.png, are left out.
    """
    import_numpy()
    from dlf.cli.codec import codec_to_encode  # brings what the parser does not need

    packets = _packets(size, resilient, packet_bytes, keep_metadata=keep_metadata, roi=roi)
    naming = Naming(
        lambda each, _: (Path(each.path).name if keep_suffix else Path(each.path).stem) + DLF,
        inputs=readable_suffixes,
        suffixes=(DLF,),
        remedy="--keep-suffix tells them apart",
    )
    set_budget.check_options(size, outputs)
    names, output = in_and_out(common.inputs, outputs, naming)
    inputs = list(expand(names, naming.inputs, recursive=common.recursive))
    planned = plan(inputs, output, naming)
    streams.check_stdout(planned, json=common.json)
    display = Display(quiet=quiet)
    region = None if roi is None else _region(roi, common.max_pixels)
    if int(effort):
        need("torch", "torch")
    codec = codec_to_encode(common, outputs, engine, display)
    plain: dict[str, Any] = {"metadata": keep_metadata, "strict": strict, "effort": int(effort)}
    arguments = plain | {"roi": region, "packet_bytes": packets}
    files = set_budget.encode_jobs(codec, planned, common, outputs, size, **plain)

    def make(job: Job) -> tuple[bytes, Report]:
        start = time.perf_counter()
        file = set_budget.file_of(job, files)
        if file is not None:
            return file, _report(job, file, 0.0)
        source = streams.image_source(job.source)
        try:
            data = codec.encode(source, **size.arguments(), **arguments)
        except UnreachableSize as error:
            msg = f"{error} (--best takes it)"
            raise UnreachableSize(msg) from error
        return data, _report(job, data, time.perf_counter() - start)

    return jobs.run(display, common, planned, jobs.writing(outputs, make), workers=outputs.jobs)


def _packets(
    size: FileSize, resilient: bool, packet_bytes: int | None, *, keep_metadata: bool, roi: str | None
) -> int | None:
    """Return the bytes of a packet, None without; raises click.UsageError for what does not go together."""
    from dlf.codec.resilient import PACKET_BYTES

    region = [] if roi is None else ["--roi"]
    unfit = [*(["--keep-metadata"] if keep_metadata else []), *size.given(), *region]
    msg = ""
    if packet_bytes is not None and not resilient:
        msg = "--packet-bytes goes with --resilient only"
    elif resilient and unfit:
        msg = f"--resilient is not allowed with {unfit[0]}"
    elif size.total_bytes is not None and region:
        msg = "--roi is not allowed with --total-bytes"
    if msg:
        raise click.UsageError(msg)
    return (packet_bytes or PACKET_BYTES) if resilient else None


def _region(roi: str, max_pixels: int) -> str | UInt8:
    """Return the name of a detector that works here, or a mask, which is read once for all images.

    Raises:
        click.UsageError: the file cannot be read as a mask.
        MissingExtra: the detector's library is not installed.
    """
    import numpy as np

    from dlf.roi.detect import DETECTORS
    from dlf.roi.mask import load_mask

    if roi in DETECTORS:
        DETECTORS[roi](np.zeros((64, 64, 3), np.uint8))
        return roi
    if roi == STDIO:
        msg = "--roi takes the name of a file, not -"
        raise click.UsageError(msg)
    try:
        return load_mask(streams.image_source(roi), max_pixels=max_pixels)
    except (DlfError, OSError) as error:
        msg = f"--roi {roi}: {explain(error)}"
        raise click.UsageError(msg) from error


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
    return Report(jobs.one_line(text), fields)
