"""Turn a training checkpoint into a model bundle that encodes and decodes."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from dlf.cli.jobs import complain
from dlf.extras import need


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf export``."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint of an align or joint stage")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="bundle folder")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="pictures to count tokens on")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--id", type=int, required=True, help="number that streams name the model by")
    parser.add_argument("--quality", type=int, default=50, help="default quality")
    parser.add_argument(
        "--tokens", type=int, nargs=2, metavar=("AT_0", "AT_50"),
        help="tokens that a window sends at quality 0, and from 50 on (default: half, all)",
    )  # fmt: skip
    parser.add_argument("--card", type=Path, metavar="JSON", help="what people should know about the model")
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
    from dlf.export.run import ExportJob, export

    card = json.loads(args.card.read_text(encoding="utf-8")) if args.card else {}
    ends = tuple(args.tokens) if args.tokens else None
    job = ExportJob(args.checkpoint, args.data, args.output, args.name, args.id, args.quality, card, ends)
    print(export(job))
    return 0
