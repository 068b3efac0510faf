"""Train several stages in a row within one budget of minutes, as a plan says."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlf.cli.jobs import complain, tell
from dlf.cli.options import COUNT, PATH, gathered, listed, minutes, needed, whole_numbers
from dlf.errors import reason_of
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


ALL_STAGES = "ALL"  # what --eager means without a value


def crop_sides(text: str) -> tuple[int, ...]:
    """Argument type: sides of crops in pixels, with commas between."""
    return whole_numbers(text, 32, 2**13)


@dataclass(frozen=True)
class Arguments:
    """What the command line says; each field is the option of its name.

    first: the stage of --from.  eager: None, or stages, or `ALL_STAGES` alone.
    """

    plan: Path
    overrides: tuple[str, ...]
    data: Path | None
    val: Path | None
    perceptual: Path | None
    features: Path | None
    output: Path | None
    minutes: float | None
    start: Path | None
    first: str | None
    eager: tuple[str, ...] | None
    pixels: int | None
    device: str
    profile: int | None
    seconds: int
    crops: tuple[int, ...]
    print_plan: bool
    threads: int


plan_options = gathered(
    Arguments,
    "args",
    click.argument("plan", type=PATH, metavar="PLAN"),
    click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
    *(
        click.option(
            f"--{key}", type=PATH, metavar="PATH", help=f"{text}.  [default: {DEFAULTS[key]} beside the plan]"
        )
        for key, text in (
            ("data", "Folder of training images or tar shards"),
            ("val", "Folder of validation images or tar shards"),
            ("perceptual", "Inception-v3 weights of the perceptual term"),
            ("features", "EfficientNet-lite0 weights of a discriminator"),
        )
    ),
    click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder for weights, images and log."),
    click.option("--minutes", type=minutes, metavar="N", help="Of the whole plan."),
    click.option(
        "--start", type=PATH, metavar="PATH",
        help="Checkpoint, or folder of weights, that the first stage starts from.",
    ),
    click.option(
        "--from", "first", metavar="STAGE", help="Leave out the stages before this one (such as joint)."
    ),
    click.option(
        "--eager", type=listed, is_flag=False, flag_value=ALL_STAGES, metavar="[STAGE,STAGE]",
        help="Neither record nor compile these stages (none named: all).",
    ),
    click.option(
        "--pixels", type=click.IntRange(1024, 2**28), metavar="N", help="Of a batch, in every stage."
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
        help="Where to train.",
    ),
    click.option("--profile", type=COUNT, metavar="STEPS", help="Measure steps of every stage instead."),
    click.option(
        "--seconds", type=COUNT, default=150, show_default=True, metavar="N", help="Of a profile at most."
    ),
    click.option(
        "--crops", type=crop_sides, default="128,256", show_default=True, metavar="PIXELS,PIXELS",
        help="Sides of a profile's crops.",
    ),
    click.option("--print-plan", is_flag=True, help="Print the plan with all its values, and train nothing."),
    click.option(
        "--threads", type=COUNT, default=os.cpu_count() or 1, metavar="N",
        help="Of the processor.  [default: all]",
    ),
)  # fmt: skip


@click.command("plan", short_help="Train several stages within one budget of minutes.")
@plan_options
def command(args: Arguments) -> int:
    """Train several stages in a row within one budget of minutes, as a plan says.

    PLAN is a JSON file, such as configs/gpu10_base.json; KEY=VALUE replaces a value in every stage, such as
    pixels=524288 or optimiser.lr=1e-4.  The exit code is 1 if a signal stopped the plan.
    """
    since = time.monotonic()  # to load torch takes a part of the minutes
    need("torch", "torch")
    need("safetensors", "torch")
    import torch

    from dlf.train.plan import as_json, from_stage, load_plan

    logging.getLogger("dlf").setLevel(logging.INFO)
    try:
        plan = load_plan(args.plan, args.overrides)
        if args.first:
            plan = from_stage(plan, args.first)
        plan = tuple(replace(p, config=_changed(args, p.config)) for p in plan)
        if args.print_plan:
            tell(as_json(plan))
            return 0
        torch.set_num_threads(args.threads)
        if args.profile:
            return _profile(args, plan, args.profile, since)
        return _train(args, plan, since)
    except (ValueError, OSError) as error:  # a wrong plan, network or folder
        complain(reason_of(error))
        return 1


def _changed(args: Arguments, config: TrainConfig) -> TrainConfig:
    """The configuration of a stage, with what the command line says of it."""
    if args.pixels:
        config = replace(config, pixels=args.pixels)
    if args.eager is not None and (args.eager == (ALL_STAGES,) or config.stage in args.eager):
        config = replace(config, compile=False, graph=False)
    return config


def _sources(args: Arguments) -> Sources:
    from dlf.train.run import Sources

    beside = args.plan.parent
    paths = {key: getattr(args, key) or beside / name for key, name in DEFAULTS.items()}
    for key in ("data", "val"):
        if not paths[key].exists():
            msg = f"there is no {paths[key]}: name the images with --{key}"
            raise click.UsageError(msg)
    perceptual = str(paths["perceptual"])
    return Sources(
        paths["data"], paths["val"], args.output or Path(), args.start, perceptual, features=paths["features"]
    )


def _train(args: Arguments, plan: Plan, since: float) -> int:
    from dlf.train.plan_run import run_plan

    output, limit = needed(args.output, "--output"), needed(args.minutes, "--minutes")
    if (output / CHECKPOINT).exists():
        msg = f"{output} is the folder of another run: take a new one"
        raise click.UsageError(msg)
    complete = run_plan(plan, _sources(args), minutes=limit, device=args.device, since=since)
    return 0 if complete else 1


def _profile(args: Arguments, plan: Plan, steps: int, since: float) -> int:
    from dlf.train.plan_profile import profile_plan

    lines = profile_plan(
        plan,
        _sources(args),
        steps,
        seconds=args.seconds,
        crops=args.crops,
        device=args.device,
        since=since,
    )
    for line in _kept(lines, args.output):
        tell(line)
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
