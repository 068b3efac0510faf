"""Train one stage of a model from a configuration file; resumes what the output folder holds."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from dlf.cli.jobs import UsageError, complain, count
from dlf.extras import need


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf train``."""
    parser.add_argument(
        "config", type=Path, help="YAML file of the stage, such as configs/compact_joint.yaml"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder of training pictures or tar shards"
    )
    parser.add_argument(
        "--val", type=Path, required=True, metavar="DIR", help="folder of validation pictures or tar shards"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--init", type=Path, metavar="FILE", help="checkpoint of the stage before")
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
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's event files")
    parser.add_argument(
        "--threads", type=count, default=os.cpu_count() or 1, metavar="N", help="threads of each process"
    )
    parser.set_defaults(run=run, quiet=False, verbose=False)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code (1 if a signal stopped the run, which can then be resumed)."""
    need("torch", "torch")
    from dlf.train.run import Sources, run_stage

    logging.getLogger("dlf").setLevel(logging.INFO)
    if args.init and (args.titok or args.vqgan):
        msg = "--init starts from our own weights, --titok and --vqgan from others': name one"
        raise UsageError(msg)
    sources = Sources(
        args.data,
        args.val,
        args.output,
        args.init,
        args.perceptual,
        features=args.features,
        titok=args.titok,
        vqgan=args.vqgan,
    )
    try:
        complete = run_stage(
            args.config, sources, args.threads, device=args.device, tensorboard=args.tensorboard
        )
        return 0 if complete else 1
    except (ValueError, OSError) as error:  # a wrong configuration, checkpoint or folder
        complain(str(error))
        return 1
