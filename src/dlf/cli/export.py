"""Turn a training checkpoint into a model bundle that encodes and decodes."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from dlf.cli.jobs import UsageError, complain
from dlf.extras import need


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf export``."""
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoint, or folder of weights, of an align, joint or decoder stage"
    )
    parser.add_argument("--preset", help="of weights that do not say it")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="bundle folder")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="pictures to count tokens and to compare on"
    )
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--id", type=int, help="number that streams name the model by")
    parser.add_argument("--quality", type=int, metavar="0..100", help="default quality (default: 50)")
    parser.add_argument(
        "--tokens", type=int, nargs=2, metavar=("AT_0", "AT_50"),
        help="tokens that a window sends at quality 0, and from 50 on (default: half, all)",
    )  # fmt: skip
    parser.add_argument("--card", type=Path, metavar="JSON", help="what people should know about the model")
    parser.add_argument(
        "--painter-for", metavar="MODEL",
        help="export a new painter only: a model with the id of MODEL (name or folder) that paints the files "
        "of MODEL anew; the checkpoint's encoder, quantisers and context network must be those of MODEL",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=("float16", "int8"), default="float16",
        help="what large weights of the pixel networks are stored in (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=run, quiet=False, verbose=False)


def run(args: argparse.Namespace) -> int:
    """Export and check; returns the exit code."""
    need("torch", "torch")
    logging.getLogger("dlf").setLevel(logging.INFO)
    try:
        return _export(args)
    except (ValueError, OSError) as error:  # a wrong checkpoint, card or folder
        complain(str(error))
        return 1


def _export(args: argparse.Namespace) -> int:
    from dlf.bundles.export import ExportJob, export

    if args.painter_for is not None:
        return _export_painter(args)
    if args.id is None:
        msg = "--id is needed: the number that streams name the model by"
        raise UsageError(msg)
    ends = tuple(args.tokens) if args.tokens else None
    quality = 50 if args.quality is None else args.quality
    job = ExportJob(
        args.checkpoint, args.data, args.output, args.name, args.id, quality, _card(args), ends, args.weights,
        args.preset,
    )  # fmt: skip
    print(export(job))
    return 0


def _export_painter(args: argparse.Namespace) -> int:
    from dlf.bundles.export import PainterJob, export_painter
    from dlf.codec.bundle import find

    given = {"--id": args.id, "--quality": args.quality, "--tokens": args.tokens}
    if fixed := [name for name, value in given.items() if value is not None]:
        msg = f"{', '.join(fixed)} cannot be chosen with --painter-for: it is that of the model"
        raise UsageError(msg)
    base = find(args.painter_for)
    job = PainterJob(
        args.checkpoint, args.data, args.output, args.name, _card(args), base, args.weights, args.preset
    )
    print(export_painter(job))
    return 0


def _card(args: argparse.Namespace) -> dict[str, Any]:
    card = json.loads(args.card.read_text(encoding="utf-8")) if args.card else {}
    if not isinstance(card, dict):
        msg = f"{args.card} holds no JSON object"
        raise ValueError(msg)
    return card
