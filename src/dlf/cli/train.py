"""Train one stage of a model from a configuration file; resumes what the output folder holds."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlf.cli.jobs import UsageError, complain, count
from dlf.extras import need

if TYPE_CHECKING:
    from dlf.train.config import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf train``."""
    parser.add_argument(
        "config", type=Path, help="YAML or JSON file of the stage, such as configs/compact_joint.yaml"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of training pictures or tar shards")
    parser.add_argument("--val", type=Path, metavar="DIR", help="folder of validation pictures or tar shards")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--init", type=Path, metavar="PATH", help="checkpoint, or folder of weights, of the stage before"
    )
    parser.add_argument(
        "--minutes",
        type=length_in_minutes,
        metavar="N",
        help="train for so long, however many steps that are",
    )
    parser.add_argument("--titok", type=Path, metavar="FILE", help="TiTok weights to start from")
    parser.add_argument("--vqgan", type=Path, metavar="FILE", help="VQGAN weights to start from")
    parser.add_argument(
        "--perceptual",
        metavar="NETWORK",
        help="of the perceptual term: lpips-vgg (downloads VGG-16), or a file of Inception-v3 weights",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="weights of EfficientNet-lite0, for a discriminator on frozen features",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the networks; eager where that fails")
    parser.add_argument(
        "--profile", type=count, metavar="STEPS", help="say what steps cost on this machine; no run is left"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the whole configuration as JSON, and train nothing"
    )
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's event files")
    parser.add_argument(
        "--threads", type=count, default=os.cpu_count() or 1, metavar="N", help="threads of each process"
    )
    parser.set_defaults(run=run, quiet=False, verbose=False)


def length_in_minutes(text: str) -> float:
    """Argument type of a length of time."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        msg = f"'{text}' is not a number of minutes above 0"
        raise argparse.ArgumentTypeError(msg)
    return minutes


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code (1 if a signal stopped the run, which can then be resumed)."""
    since = time.monotonic()  # to load torch takes a part of a run of minutes
    need("torch", "torch")
    from dlf.nn.config import to_dict
    from dlf.train.config import load_config

    logging.getLogger("dlf").setLevel(logging.INFO)
    if args.init and (args.titok or args.vqgan):
        msg = "--init starts from our own weights, --titok and --vqgan from others': name one"
        raise UsageError(msg)
    changes = {"minutes": args.minutes, "compile": args.compile}
    try:
        config = replace(load_config(args.config), **{key: value for key, value in changes.items() if value})
        if args.print_config:
            print(json.dumps(to_dict(config), indent=2))
            return 0
        return _train(args, config, since)
    except (ValueError, OSError) as error:  # a wrong configuration, checkpoint or folder
        complain(str(error))
        return 1


def _train(args: argparse.Namespace, config: TrainConfig, since: float) -> int:
    import torch

    from dlf.train.run import Sources, profile_stage, run_stage

    torch.set_num_threads(args.threads)
    missing = [f"--{key}" for key in ("data", "val") if getattr(args, key) is None]
    if args.output is None and not args.profile:
        missing.append("--output")
    if missing:
        msg = f"the following arguments are required: {', '.join(missing)}"
        raise UsageError(msg)
    sources = Sources(
        args.data,
        args.val,
        args.output or Path(),
        args.init,
        args.perceptual,
        features=args.features,
        titok=args.titok,
        vqgan=args.vqgan,
    )
    if args.profile:
        for line in profile_stage(config, sources, args.profile, device=args.device):
            print(line, flush=True)
        return 0
    complete = run_stage(
        config, sources, device=args.device, tensorboard=args.tensorboard, since=since
    )
    return 0 if complete else 1
