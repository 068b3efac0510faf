"""Turn a training checkpoint into a model bundle that encodes and decodes."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import click

from dlf.cli.jobs import complain, tell
from dlf.cli.options import PATH, gathered
from dlf.errors import reason_of
from dlf.extras import need

STATISTICS_IMAGES = 600  # about 10^5 tokens: enough to tell common codes from rare ones


@dataclass(frozen=True)
class Arguments:
    """What the command line says; each field is the option of its name."""

    checkpoint: Path
    preset: str | None
    output: Path
    data: Path
    name: str
    id: int | None
    quality: int | None
    tokens: tuple[int, int] | None
    card: Path | None
    decoder_for: str | None
    encoder_for: str | None
    weights: str


export_options = gathered(
    Arguments,
    "args",
    click.argument("checkpoint", type=PATH, metavar="CHECKPOINT"),
    click.option("--preset", help="Of weights that do not say it."),
    click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Bundle folder."),
    click.option(
        "--data", type=PATH, required=True, metavar="DIR",
        help="Pictures to count tokens and to compare on.",
    ),
    click.option("--name", required=True, help="Name of the model."),
    click.option("--id", type=int, help="Number that streams name the model by."),
    click.option("--quality", type=int, metavar="0..100", help="Default quality.  [default: 50]"),
    click.option(
        "--tokens", type=int, nargs=2, metavar="AT_0 AT_50",
        help="Tokens that a window sends at quality 0, and from 50 on.  [default: half, all]",
    ),
    click.option("--card", type=PATH, metavar="JSON", help="What people should know about the model."),
    click.option(
        "--decoder-for", metavar="MODEL",
        help="Export a new decoder only: a model with the id of MODEL (name or folder) that decodes the "
        "files of MODEL anew; the checkpoint's encoder, quantisers and context network must be those "
        "of MODEL.",
    ),
    click.option(
        "--encoder-for", metavar="MODEL",
        help="Export a new encoder only: a model with the id of MODEL that writes other files for its "
        "decoders; with --decoder-for both ends are new, and of the checkpoint just the context network and "
        "the codes of the tokens must be those of MODEL.",
    ),
    click.option(
        "--weights", type=click.Choice(["float16", "int8"]), default="float16", show_default=True,
        help="What large weights of the pixel networks are stored in.",
    ),
)  # fmt: skip


@click.command("export", short_help="Turn a training checkpoint into a model.")
@export_options
def command(args: Arguments) -> int:
    """Turn a training checkpoint into a model bundle that encodes and decodes.

    CHECKPOINT is a checkpoint, or a folder of weights, of an align, joint or decoder stage.
    """
    need("torch", "torch")
    logging.getLogger("dlf").setLevel(logging.INFO)
    try:
        return _export(args)
    except (ValueError, OSError) as error:  # a wrong checkpoint, card or folder
        complain(reason_of(error))
        return 1


def _export(args: Arguments) -> int:
    from dlf.bundles.bundle_writer import BundleSpec
    from dlf.bundles.exporter import ExportJob, export
    from dlf.train.trained_model import load_model, sample_images

    if args.decoder_for is not None or args.encoder_for is not None:
        return _export_same_stream(args)
    if args.id is None:
        msg = "--id is needed: the number that streams name the model by"
        raise click.UsageError(msg)
    quality = 50 if args.quality is None else args.quality
    spec = BundleSpec(args.name, args.id, quality, _card(args))
    model, images = load_model(args.checkpoint, args.preset), sample_images(args.data, STATISTICS_IMAGES)
    tell(export(model, images, ExportJob(args.output, spec, args.tokens, args.weights)))
    return 0


def _export_same_stream(args: Arguments) -> int:
    from dlf.bundles.exporter import DECODER, ENCODER, PARITY_IMAGES, SameStreamJob, export_same_stream
    from dlf.codec.bundle import find
    from dlf.train.trained_model import load_model, sample_images

    bases = {"--decoder-for": args.decoder_for, "--encoder-for": args.encoder_for}
    ends = {option: model for option, model in bases.items() if model is not None}
    if len(set(ends.values())) > 1:
        msg = "--decoder-for and --encoder-for name two models: both ends are for the streams of one"
        raise click.UsageError(msg)
    given = {"--id": args.id, "--quality": args.quality, "--tokens": args.tokens}
    if fixed := [name for name, value in given.items() if value is not None]:
        msg = f"{', '.join(fixed)} cannot be chosen with {' and '.join(ends)}: it is that of the model"
        raise click.UsageError(msg)
    graphs = tuple({"--decoder-for": DECODER, "--encoder-for": ENCODER}[option] for option in ends)
    base = find(next(iter(ends.values())))
    job = SameStreamJob(args.output, args.name, _card(args), base, args.weights, graphs)
    model, images = load_model(args.checkpoint, args.preset), sample_images(args.data, PARITY_IMAGES)
    tell(export_same_stream(model, images, job))
    return 0


def _card(args: Arguments) -> dict[str, object]:
    card = json.loads(args.card.read_text(encoding="utf-8")) if args.card else {}
    if not isinstance(card, dict):
        msg = f"{args.card} holds no JSON object"
        raise ValueError(msg)
    return card
