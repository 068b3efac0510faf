"""Import released checkpoints as models of this package; get a model's weights back to train them on."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlf.cli.jobs import tell
from dlf.cli.options import PATH, gathered
from dlf.errors import CheckpointError, reason, reason_of
from dlf.extras import need

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED = re.compile(r"dlf[-_]?(?:l[-_])?qp([0-3])")
FIRST_ID = 16  # of the four published rates

DTYPES = ("float32", "bfloat16", "float16")


@click.group(
    "weights",
    no_args_is_help=False,
    subcommand_metavar="ACTION",
    short_help="Import released weights; get a model's back.",
)
def command() -> None:
    """Import released checkpoints as models of this package; get a model's weights back to train them on."""


@dataclass(frozen=True)
class ImportArguments:
    """What the command line says; each field is the option of its name."""

    checkpoint: Path
    name: str | None
    id: int | None
    dtype: str
    output: Path | None
    overwrite: bool
    preset: str


import_options = gathered(
    ImportArguments,
    "args",
    click.argument("checkpoint", type=PATH, metavar="CHECKPOINT"),
    click.option("--name", help="Of the model.  [default: dlf-l-qp0..3 by the file's name]"),
    click.option("--id", type=click.IntRange(2, 2**35 - 1), help="Number that streams name it by."),
    click.option(
        "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True,
        help="Of the stored weights.",
    ),
    click.option(
        "-o", "--output", type=PATH, metavar="PATH", help="Model folder, or file to start training from."
    ),
    click.option("--overwrite", is_flag=True, help="Replace a model that exists."),
    click.option("--preset", default="dlf-l", hidden=True),
)  # fmt: skip


@command.command("import", short_help="Turn a checkpoint into a model folder.")
@import_options
def import_command(args: ImportArguments) -> int:
    """Turn a released DLF checkpoint into a model that encodes and decodes.

    A TiTok or VQGAN checkpoint becomes a file to start training from.

    CHECKPOINT is a .ckpt, .pth or .safetensors file.
    """
    need("torch", "torch")
    need("safetensors", "torch")
    from dlf.bundles import checkpoint_file, released
    from dlf.nn.build import PRESETS

    config = PRESETS[args.preset]
    try:
        stored = checkpoint_file.read(args.checkpoint)
        origin = released.kind(stored)
        tensors = released.match(config, stored, origin)
        return (_import_model if origin == released.DLF else _import_start)(args, tensors)
    except OSError as error:
        msg = f"the model cannot be written: {reason(error)}"
        raise CheckpointError(msg) from error


def _import_model(args: ImportArguments, tensors: dict[str, Tensor]) -> int:
    from dlf.bundles.bundle_writer import BundleSpec
    from dlf.bundles.torch_bundle import size_of, write_model
    from dlf.codec.bundle import MANIFEST, user_folder

    published = PUBLISHED.fullmatch(args.name or args.checkpoint.stem.lower())
    name = args.name or (published and f"dlf-l-qp{published[1]}")
    number = args.id or (published and FIRST_ID + int(published[1]))
    if not name or not number:
        msg = "the file's name does not say which model it is: give --name and --id"
        raise click.UsageError(msg)
    place = user_folder()
    if args.output is None and place is None:
        msg = "there is no home folder to put the model into: give -o"
        raise click.UsageError(msg)
    folder: Path = args.output or Path(place or "", name)
    if (folder / MANIFEST).exists() and not args.overwrite:
        msg = f"there is a model in {folder} (--overwrite replaces it)"
        raise click.UsageError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = size_of(tensors, args.dtype), shutil.disk_usage(folder).free
    if needed > free:
        msg = f"the model takes {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free in {folder}"
        raise CheckpointError(msg)
    spec = BundleSpec(name, number, card=_card(args))
    write_model(args.preset, tensors, folder, spec, args.dtype)
    tell(f"{args.checkpoint} -> {folder}: model {name}, number {number}, {args.dtype}")
    return 0


def _card(args: ImportArguments) -> dict[str, str]:
    return {
        "model": f"preset {args.preset}, imported from {args.checkpoint.name}",
        "source": "https://arxiv.org/abs/2503.01428",
    }


def _import_start(args: ImportArguments, tensors: dict[str, Tensor]) -> int:
    from dlf.bundles.torch_bundle import write_start

    if args.output is None:
        msg = "a TiTok or VQGAN checkpoint is no codec: give -o a file to start training from"
        raise click.UsageError(msg)
    _refuse_existing(args.output, overwrite=args.overwrite)
    write_start(tensors, args.output, args.dtype)
    tell(f"{args.checkpoint} -> {args.output}: {len(tensors)} tensors, {args.dtype}")
    return 0


def _refuse_existing(output: Path, *, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        msg = f"{output} exists (--overwrite replaces it)"
        raise click.UsageError(msg)


@command.command("recover", short_help="Turn a model into a checkpoint to train on.")
@click.argument("model", metavar="MODEL")
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="Checkpoint to write.")
@click.option("--preset", help="That it was trained as.  [default: one of its sizes]")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
def recover_command(model: str, output: Path, preset: str | None, overwrite: bool) -> int:
    """Turn a model of this package's own kind back into a checkpoint for `dlf train --init`.

    MODEL is its name, role (such as 'default') or folder.
    """
    need("torch", "torch")
    need("onnx", "torch")
    from dlf.bundles.recover import recover, recover_likely
    from dlf.codec.bundle import find
    from dlf.nn.build import PRESETS
    from dlf.train.checkpoint import Checkpoint, save

    if preset is not None and preset not in PRESETS:
        msg = f"there is no preset {preset}; there are {', '.join(PRESETS)}"
        raise click.UsageError(msg)
    _refuse_existing(output, overwrite=overwrite)
    bundle = find(model)
    recovered = recover(bundle, preset) if preset else recover_likely(bundle)
    try:
        save(output, Checkpoint(0, {"preset": recovered.preset}, recovered.tensors, recovered.tensors, {}))
    except OSError as error:
        msg = f"the checkpoint cannot be written: {reason(error)}"
        raise CheckpointError(msg) from error
    missing = len(recovered.guessed)
    held = len(recovered.tensors) - missing
    tell(f"{bundle.manifest.name} -> {output}: {held} tensors, {missing} that it does not hold")
    return 0


@command.command("split", short_help="Write a checkpoint's averaged weights as small files.")
@click.argument("checkpoint", type=PATH, metavar="CHECKPOINT")
@click.option(
    "--eight-bits", is_flag=True, help="Store large weights in 8 bits: half the size, to go on from."
)
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Folder to write to.")
def split_command(checkpoint: Path, eight_bits: bool, output: Path) -> int:
    """Write a checkpoint's averaged weights as small files, which `dlf train --init FOLDER` reads.

    They are float16 safetensors files of less than 16 MiB each.

    CHECKPOINT is last.pt of a run, or a folder of such files.
    """
    need("torch", "torch")
    need("safetensors", "torch")
    from dlf.train.weights import load_labelled, save_parts

    try:
        tensors, about = load_labelled(checkpoint)
        step = about.pop("step", "0")
        paths = save_parts(output, tensors, int(step), about, eight_bits=eight_bits)
    except (ValueError, OSError) as error:
        raise CheckpointError(reason_of(error)) from error
    size = sum(path.stat().st_size for path in paths) / 2**20
    tell(f"{checkpoint} -> {output}: {len(paths)} files, {size:.1f} MiB, step {step}")
    return 0
