"""Train several stages in a row within one budget of minutes, as a plan says."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlf.cli.jobs import UsageError, bounded, complain, count
from dlf.cli.train import length_in_minutes
from dlf.extras import need

if TYPE_CHECKING:
    from dlf.train.config import TrainConfig
    from dlf.train.plan import Plan
    from dlf.train.run import Sources

# what lies beside a plan unless another place is named
DEFAULTS = {
    "data": "photos.tar",
    "val": "val.tar",
    "perceptual": "inception_v3_stem.safetensors",
    "features": "efficientnet_lite0.safetensors",
}
TABLE = "profile.txt"
CHECKPOINT = "last.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dlf plan``."""
    parser.add_argument("plan", type=Path, help="JSON file, such as configs/gpu10_base.json")
    for key, text in (
        ("data", "folder of training pictures or tar shards"),
        ("val", "folder of validation pictures or tar shards"),
        ("perceptual", "Inception-v3 weights of the perceptual term"),
        ("features", "EfficientNet-lite0 weights of a discriminator"),
    ):
        parser.add_argument(
            f"--{key}", type=Path, metavar="PATH", help=f"{text} (default: {DEFAULTS[key]} beside the plan)"
        )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder for weights, pictures and log"
    )
    parser.add_argument("--minutes", type=length_in_minutes, metavar="N", help="of the whole plan")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="PATH",
        help="checkpoint, or folder of weights, that the first stage starts from",
    )
    parser.add_argument(
        "--from", dest="first", metavar="STAGE", help="leave out the stages before this one (such as joint)"
    )
    parser.add_argument(
        "--eager",
        nargs="*",
        metavar="STAGE",
        help="neither record nor compile these stages (none named: all)",
    )
    parser.add_argument(
        "--pixels",
        type=lambda text: bounded(text, 1024, 2**28),
        metavar="N",
        help="of a batch, in every stage",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--profile", type=count, metavar="STEPS", help="measure steps of every stage instead")
    parser.add_argument(
        "--seconds", type=count, default=150, metavar="N", help="of a profile at most (default: %(default)s)"
    )
    parser.add_argument(
        "--crops",
        type=lambda text: bounded(text, 32, 2**13),
        nargs="+",
        default=[128, 256],
        metavar="PIXELS",
        help="sides of a profile's crops (default: 128 256)",
    )
    parser.add_argument(
        "--print-plan", action="store_true", help="print the plan with all its values, and train nothing"
    )
    parser.add_argument(
        "--threads", type=count, default=os.cpu_count() or 1, metavar="N", help="of the processor"
    )
    parser.set_defaults(run=run, quiet=False, verbose=False)


def run(args: argparse.Namespace) -> int:
    """Carry out; returns the exit code (1 if a signal stopped the plan)."""
    since = time.monotonic()  # to load torch takes a part of the minutes
    need("torch", "torch")
    need("safetensors", "torch")
    import torch

    from dlf.train.plan import as_json, from_stage, load_plan

    logging.getLogger("dlf").setLevel(logging.INFO)
    try:
        plan = load_plan(args.plan)
        if args.first:
            plan = from_stage(plan, args.first)
        plan = tuple(replace(p, config=replace(p.config, **_changes(args, p.config))) for p in plan)
        if args.print_plan:
            print(as_json(plan))
            return 0
        torch.set_num_threads(args.threads)
        if args.profile:
            return _profile(args, plan, since)
        return _train(args, plan, since)
    except (ValueError, OSError) as error:  # a wrong plan, network or folder
        complain(str(error))
        return 1


def _changes(args: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    """What the command line says of a stage."""
    changes: dict[str, Any] = {"pixels": args.pixels} if args.pixels else {}
    if args.eager is not None and (not args.eager or config.stage in args.eager):
        changes["compile"] = changes["graph"] = False
    return changes


def _sources(args: argparse.Namespace) -> Sources:
    from dlf.train.run import Sources

    beside = args.plan.parent
    found = {key: getattr(args, key) or beside / name for key, name in DEFAULTS.items()}
    for key in ("data", "val"):
        if not found[key].exists():
            msg = f"there is no {found[key]}: name the pictures with --{key}"
            raise UsageError(msg)
    perceptual = str(found["perceptual"])
    return Sources(
        found["data"], found["val"], args.output or Path(), args.start, perceptual, features=found["features"]
    )


def _train(args: argparse.Namespace, plan: Plan, since: float) -> int:
    from dlf.train.plan_run import run_plan

    missing = [f"--{key}" for key in ("output", "minutes") if getattr(args, key) is None]
    if missing:
        msg = f"the following arguments are required: {', '.join(missing)}"
        raise UsageError(msg)
    if (args.output / CHECKPOINT).exists():
        msg = f"{args.output} is the folder of another run: take a new one"
        raise UsageError(msg)
    complete = run_plan(
        plan, _sources(args), minutes=args.minutes, device=args.device, since=since
    )
    return 0 if complete else 1


def _profile(args: argparse.Namespace, plan: Plan, since: float) -> int:
    from dlf.train.plan_profile import profile_plan

    lines = profile_plan(
        plan,
        _sources(args),
        args.profile,
        seconds=args.seconds,
        crops=args.crops,
        device=args.device,
        since=since,
    )
    for line in _kept(lines, args.output):
        print(line, flush=True)
    return 0


def _kept(lines: Iterator[str], folder: Path | None) -> Iterator[str]:
    """The lines, each written to a file as soon as it is known, if there is a folder."""
    if folder is None:
        yield from lines
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
            file.flush()
            yield line
