"""Decode .dlf files to images."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlf.cli import jobs, streams
from dlf.cli.display import Display
from dlf.cli.jobs import Report
from dlf.cli.names import DLF, STDIO, Input, Job, Naming, expand, in_and_out, plan
from dlf.cli.options import (
    Common,
    Engine,
    Outputs,
    common_options,
    engine_options,
    loudness_options,
    output_options,
)
from dlf.cli.process import import_numpy
from dlf.files import descriptor_of

if TYPE_CHECKING:
    from PIL import Image

    import dlf

FORMATS = ("png", "jpeg", "webp", "tiff", "avif", "ppm", "heic", "jxl")
"""Names of the output formats of `dlf.imageio`, which the parser does not import."""

DEFAULT = "png"


def output_format(text: str) -> str:
    """Argument type: the name of an output format, or one of its endings."""
    from dlf.errors import ImageError
    from dlf.imageio import format_named

    try:
        return format_named(text)
    except ImageError as error:
        raise click.BadParameter(str(error)) from error


@click.command("decode")
@common_options
@output_options
@click.option(
    "--format",
    "kind",
    type=output_format,
    metavar="NAME",
    shell_complete=lambda _context, _option, begun: [name for name in FORMATS if name.startswith(begun)],
    help=f"Image format, whatever the ending of OUT: {', '.join(FORMATS)}.  "
    "[default: by the ending of OUT, else png]",
)
@click.option(
    "--output-quality",
    type=click.IntRange(1, 100),
    metavar="1..100",
    help="Of lossy formats: higher is better and larger.  [default: 95 for jpeg, else 90]",
)
@click.option(
    "--allow-partial",
    is_flag=True,
    help="Paint a file whose end or packets are missing from what there is, with a warning.",
)
@click.option(
    "--best-effort",
    is_flag=True,
    help="Paint a damaged file as well, though nothing of it is sure; exit code 3 where one was.",
)
@engine_options
@loudness_options
def command(
    common: Common,
    outputs: Outputs,
    engine: Engine,
    kind: str | None,
    output_quality: int | None,
    allow_partial: bool,
    best_effort: bool,
    quiet: bool,
) -> int:
    """Decode .dlf files to images.

    IN is a .dlf file, a folder of them, or - for standard input.  The output of NAME.dlf is NAME.png beside
    it, or in the folder that -o names; below it the tree of an input folder is kept.  Beside the .dlf file
    it is NAME.dlf.png where there is a NAME.png, which may be the original, and always where a whole folder
    is decoded.  Of two names without -o the second is the output if it ends as an image does, is a folder
    (and the first is none) or is -.
    """
    import_numpy()
    from dlf.cli.codec import codec_to_decode  # brings what the parser does not need

    naming = Naming(
        lambda each, folder: _name(each, folder, kind, outputs),
        inputs=lambda: (DLF,),
        suffixes=_written_suffixes(),
        remedy="decode one after the other, with -o",
    )
    names, output = in_and_out(common.inputs, outputs, naming)
    planned = plan(list(expand(names, naming.inputs, recursive=common.recursive)), output, naming)
    streams.check_stdout(planned, json=common.json)
    kinds = {job: kind or _kind(job) for job in planned}
    _check_formats(kinds.values(), output_quality)
    display = Display(quiet=quiet)
    codec = codec_to_decode(common, outputs, engine, display, planned)

    def make(job: Job) -> tuple[bytes, Report]:
        from dlf.imageio import to_bytes

        start = time.perf_counter()
        if allow_partial or best_effort:
            image, damage = _salvage(codec, job.source, best_effort=best_effort)
        else:
            image, damage = _decode_whole(codec, streams.read_dlf(job.source, common.max_pixels)), None
        data = to_bytes(image, kinds[job], output_quality)
        seconds = time.perf_counter() - start
        text = f"{job.source} -> {job.target}: {image.width}x{image.height}, {seconds:.2f} s"
        fields: dict[str, object] = {
            "output": job.target,
            "format": kinds[job],
            "width": image.width,
            "height": image.height,
            "bytes": len(data),
            "seconds": round(seconds, 3),
        }
        report = Report(jobs.one_line(text), fields)
        return data, report if damage is None else _with_damage(report, damage)

    return jobs.run(display, common, planned, jobs.writing(outputs, make), workers=outputs.jobs)


def _salvage(codec: dlf.Codec, source: str, *, best_effort: bool) -> tuple[Image.Image, dlf.Damage | None]:
    """Decode what there is of a file; raises as `dlf.Codec.salvage`."""
    with streams.opened_here(source) as file:
        found = codec.salvage(file, best_effort=best_effort)
    return found.image, found.damage


def _with_damage(report: Report, damage: dlf.Damage) -> Report:
    """Add to a report what is wrong with its file."""
    code = jobs.DOUBTFUL if damage.kind == "damaged" else 0
    fields = {**report.fields, "damage": asdict(damage)}
    return Report(report.text, fields, damage.summary, code)


def _decode_whole(codec: dlf.Codec, content: bytes) -> Image.Image:
    """Decode a file that must be whole; an error names the options that show more of one that is not."""
    from dlf.errors import FormatError, UnsupportedVersion

    try:
        return codec.decode(content)
    except UnsupportedVersion:
        raise
    except FormatError as error:
        msg = f"{error} (--allow-partial shows what there is of a cut file, --best-effort of a damaged one)"
        raise type(error)(msg) from error


def _written_suffixes() -> frozenset[str]:
    from dlf.imageio.formats import SUFFIXES

    return frozenset(SUFFIXES)


def _check_formats(kinds: Iterable[str], quality: int | None) -> None:
    """Refuse before the work what cannot be written.

    Raises:
        click.UsageError: a quality for a format that is lossless.
        MissingExtra: the plugin of a format is not installed.
    """
    from dlf.imageio.formats import OUTPUTS

    for output in [OUTPUTS[kind] for kind in dict.fromkeys(kinds)]:
        if quality is not None and output.quality is None:
            msg = f"--output-quality does not apply to {output.name}, which is lossless"
            raise click.UsageError(msg)
        output.need()


def _name(each: Input, folder: Path, kind: str | None, outputs: Outputs) -> str:
    """Name of an image whose name is ours: never one that an original may have."""
    from dlf.imageio.formats import OUTPUTS

    source = Path(each.path)
    suffix = OUTPUTS[kind or DEFAULT].suffixes[0]
    name, other = source.stem + suffix, source.name + suffix
    if each.folder is not None:
        return other if _is_within(folder, each.folder) else name
    is_taken = os.path.lexists(folder / name) and not outputs.skip_existing
    return other if is_taken and _is_within(folder, source.parent) else name


def _is_within(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _kind(job: Job) -> str:
    """Image format by the ending of a name; what cannot be written is a mistake of the command line."""
    from dlf.errors import ImageError
    from dlf.imageio import format_of

    target = str(job.target)
    if target == STDIO or descriptor_of(target) is not None:
        return DEFAULT
    if os.path.exists(target) and not os.path.isfile(target):
        return DEFAULT  # a pipe or a device
    try:
        return format_of(target)
    except ImageError as error:
        msg = f"{error}; or say --format"
        raise click.UsageError(msg) from error
