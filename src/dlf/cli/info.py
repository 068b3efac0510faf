"""Show what .dlf files hold: every field, with bytes and bits per pixel of each part."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

import click

import dlf
from dlf.cli import jobs, streams
from dlf.cli.display import Display
from dlf.cli.jobs import Report
from dlf.cli.names import DLF, STDIO, Job, expand
from dlf.cli.options import ENGINES, Common, common_options, loudness_options
from dlf.files import descriptor_of


@dataclass(frozen=True)
class Row:
    """One part of a file; its size is in bits, because tokens and details share bytes."""

    name: str
    value: str
    bits: float


@click.command("info", short_help="Show what .dlf files hold.")
@common_options
@click.option("--symbols", is_flag=True, help="Tell tokens and details apart, which runs networks.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    show_default=True,
    help="What reads the symbols; reference is a second decoder that needs no ONNX Runtime.",
)
@loudness_options
def command(common: Common, symbols: bool, engine: str, quiet: bool) -> int:
    """Show what .dlf files hold: every field, with bytes and bits per pixel of each part.

    IN is a .dlf file, a folder of them, or - for standard input.  The SHA-256 of symbols is shown in part,
    and in full with --json: machines and engines that read a file alike show the same.
    """
    names = tuple(STDIO if descriptor_of(name) == 0 else name for name in common.inputs)
    inputs = expand(names, lambda: (DLF,), recursive=common.recursive)
    planned = [Job(each.path) for each in inputs]
    if sys.stdout is None:
        msg = "standard output is closed, so nothing can be shown"
        raise click.UsageError(msg)
    codec = dlf.Codec(
        common.model,
        max_pixels=common.max_pixels,
        max_seconds=common.max_seconds,
        engine=dlf.EngineOptions(engine=engine),
    )

    def work(job: Job) -> Report:
        data = streams.read_dlf(job.source, common.max_pixels)
        info = codec.info(data, symbols=symbols)
        rows = _rows(data, info)
        text = "" if common.json else _table(jobs.one_line(job.source), rows, info)
        parts = {row.name: {"bytes": row.bits / 8, "bpp": info.bits_per_pixel(row.bits)} for row in rows}
        return Report(text, {**asdict(info), "bpp": info.bpp, "parts": parts})

    return jobs.run(Display(quiet=quiet), common, planned, work)


def _rows(data: bytes, info: dlf.StreamInfo) -> list[Row]:
    """Parts of the file in their order, tokens and details after the payload that holds them."""
    from dlf.codec.file_forms import load

    model = "not installed" if info.model_name is None else info.model_name
    values = {
        "magic": "DLF",
        "version_flags": f"version {info.version}, {'metadata' if info.metadata_bytes else 'no metadata'}",
        "model": f"{info.model} ({model})",
        "quality": str(info.quality),
        "width": str(info.width),
        "height": str(info.height),
        "checksum": f"{data[-4:][::-1].hex()} ({'good' if info.checked else 'not checked'})",
    }
    if info.packets:
        values["heads"] = (
            f"version {info.version}, {info.packets} packets, model {values['model']}, quality {info.quality}"
        )
        values["checksum"] = "see dlf verify"
    rows = []
    for name, part in load(data, info.width * info.height).parts():
        rows.append(Row(name, values.get(name, ""), 8 * len(part)))
        if name == "payload" and info.token_bits is not None and info.detail_bits is not None:
            rows += [Row("tokens", _shown(info.token_sha256), info.token_bits)]
            rows += [Row("details", _shown(info.detail_sha256), info.detail_bits)]
    return rows


def _shown(digest: str | None) -> str:
    return "in the payload" if digest is None else f"SHA-256 {digest[:16]}..."


def _table(source: str, rows: list[Row], info: dlf.StreamInfo) -> str:
    """Lay the rows out in columns."""
    lines = [(row.name, row.value, _bytes(row.bits), f"{info.bits_per_pixel(row.bits):.5f}") for row in rows]
    lines = [
        ("part", "value", "bytes", "bpp"),
        *lines,
        ("file", f"{info.width}x{info.height}", f"{info.file_bytes:,}", f"{info.bpp:.5f}"),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = "\n".join(
        f"  {name:<{widths[0]}}  {value:<{widths[1]}}  {size:>{widths[2]}}  {bpp:>{widths[3]}}"
        for name, value, size, bpp in lines
    )
    return f"{source}\n{body}{_settled(info)}"


def _settled(info: dlf.StreamInfo) -> str:
    """Say how much of the file must be there for each stage of the picture."""
    if info.settled is None:
        return ""
    tokens, *steps = info.settled
    stages = ", ".join(f"step {number} {size:,}" for number, size in enumerate(steps, 1))
    return f"\n  cut:  the tokens need {tokens:,} bytes of the file, the details up to {stages}"


def _bytes(bits: float) -> str:
    return f"{bits / 8:,.1f}" if bits % 8 else f"{bits / 8:,.0f}"
