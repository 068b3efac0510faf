"""Import released checkpoints as models of this package; get a model's weights back to train them on."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dlf.cli.jobs import UsageError, bounded
from dlf.errors import CheckpointError
from dlf.extras import need

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED = re.compile(r"dlf[-_]?(?:l[-_])?qp([0-3])")
FIRST_ID = 16  # of the four published rates

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf weights``."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    command = actions.add_parser(
        "import",
        help="turn a checkpoint into a model folder",
        description="Turn a released DLF checkpoint into a model that encodes and decodes, "
        "or a TiTok or VQGAN checkpoint into a file to start training from.",
    )
    command.add_argument("checkpoint", type=Path, help=".ckpt, .pth or .safetensors file")
    command.add_argument("--name", help="of the model (default: dlf-l-qp0..3 by the file's name)")
    command.add_argument(
        "--id", type=lambda text: bounded(text, 2, 2**35 - 1), help="number that streams name it by"
    )
    command.add_argument("--dtype", choices=DTYPES, default="float32", help="of the stored weights")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="model folder, or file to start training from",
    )
    command.add_argument("--overwrite", action="store_true", help="replace a model that exists")
    command.add_argument("--preset", default="dlf-l", help=argparse.SUPPRESS)
    command.set_defaults(run=run, quiet=False, verbose=False)
    command = actions.add_parser(
        "recover",
        help="turn a model into a checkpoint to train on",
        description="Turn a model of this package's own kind back into a checkpoint for `dlf train --init`.",
    )
    command.add_argument("model", help="its name, role (such as 'default') or folder")
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="checkpoint to write"
    )
    command.add_argument("--preset", default="compact", help="that it was trained as (default: %(default)s)")
    command.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    command.set_defaults(run=run_recover, quiet=False, verbose=False)
    command = actions.add_parser(
        "split",
        help="write a checkpoint's averaged weights as small files",
        description="Write a training checkpoint's averaged weights as float16 safetensors files of less "
        "than 16 MiB each, which `dlf train --init FOLDER` reads.",
    )
    command.add_argument("checkpoint", type=Path, help="last.pt of a run, or a folder of such files")
    command.add_argument(
        "--eight-bits",
        action="store_true",
        help="store large weights in 8 bits: half the size, to go on from",
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    command.set_defaults(run=run_split, quiet=False, verbose=False)


def run(args: argparse.Namespace) -> int:
    """Import; returns the exit code."""
    need("torch", "torch")
    need("safetensors", "torch")
    from dlf.bundles import checkpoint_file, released
    from dlf.nn.build import PRESETS

    config = PRESETS[args.preset]
    try:
        found = checkpoint_file.read(args.checkpoint)
        origin = released.kind(found)
        tensors = released.match(config, found, origin)
        return (_import_model if origin == released.DLF else _import_start)(args, tensors)
    except OSError as error:
        msg = f"the model cannot be written: {error.strerror or error}"
        raise CheckpointError(msg) from error


def _import_model(args: argparse.Namespace, tensors: dict[str, Tensor]) -> int:
    from dlf.bundles.torch_bundle import BundleSpec, size_of, write_model
    from dlf.codec.bundle import MANIFEST, user_folder

    published = PUBLISHED.fullmatch(args.name or args.checkpoint.stem.lower())
    name = args.name or (published and f"dlf-l-qp{published[1]}")
    number = args.id or (published and FIRST_ID + int(published[1]))
    if not name or not number:
        msg = "the file's name does not say which model it is: give --name and --id"
        raise UsageError(msg)
    folder: Path = args.output or user_folder() / name
    if (folder / MANIFEST).exists() and not args.overwrite:
        msg = f"there is a model in {folder} (--overwrite replaces it)"
        raise UsageError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = size_of(tensors, args.dtype), shutil.disk_usage(folder).free
    if needed > free:
        msg = f"the model takes {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free in {folder}"
        raise CheckpointError(msg)
    write_model(args.preset, tensors, folder, BundleSpec(name, number, args.dtype, _card(args)))
    print(f"{args.checkpoint} -> {folder}: model {name}, number {number}, {args.dtype}")
    return 0


def _card(args: argparse.Namespace) -> dict[str, str]:
    return {
        "model": f"preset {args.preset}, imported from {args.checkpoint.name}",
        "source": "https://arxiv.org/abs/2503.01428",
    }


def _import_start(args: argparse.Namespace, tensors: dict[str, Tensor]) -> int:
    from dlf.bundles.torch_bundle import write_start

    if args.output is None:
        msg = "a TiTok or VQGAN checkpoint is no codec: give -o a file to start training from"
        raise UsageError(msg)
    _refuse_existing(args)
    write_start(tensors, args.output, args.dtype)
    print(f"{args.checkpoint} -> {args.output}: {len(tensors)} tensors, {args.dtype}")
    return 0


def _refuse_existing(args: argparse.Namespace) -> None:
    if args.output.exists() and not args.overwrite:
        msg = f"{args.output} exists (--overwrite replaces it)"
        raise UsageError(msg)


def run_recover(args: argparse.Namespace) -> int:
    """Recover; returns the exit code."""
    need("torch", "torch")
    need("onnx", "torch")
    from dlf.bundles.recover import recover
    from dlf.codec.bundle import find
    from dlf.nn.build import PRESETS
    from dlf.train.checkpoint import Checkpoint, save

    if args.preset not in PRESETS:
        msg = f"there is no preset {args.preset}; there are {', '.join(PRESETS)}"
        raise UsageError(msg)
    _refuse_existing(args)
    bundle = find(args.model)
    found = recover(bundle, args.preset)
    try:
        save(args.output, Checkpoint(0, {"preset": args.preset}, found.tensors, found.tensors, {}))
    except OSError as error:
        msg = f"the checkpoint cannot be written: {error.strerror or error}"
        raise CheckpointError(msg) from error
    held = len(found.tensors) - len(found.guessed)
    print(
        f"{bundle.manifest.name} -> {args.output}: {held} tensors, {len(found.guessed)} that it does not hold"
    )
    return 0


def run_split(args: argparse.Namespace) -> int:
    """Split; returns the exit code."""
    need("torch", "torch")
    need("safetensors", "torch")
    from dlf.train.weights import load_labelled, save_parts

    try:
        found, about = load_labelled(args.checkpoint)
        step = about.pop("step", "0")
        paths = save_parts(args.output, found, int(step), about, eight_bits=args.eight_bits)
    except (ValueError, OSError) as error:
        raise CheckpointError(str(error)) from error
    size = sum(path.stat().st_size for path in paths) / 2**20
    print(f"{args.checkpoint} -> {args.output}: {len(paths)} files, {size:.1f} MiB, step {step}")
    return 0
