"""Train one stage of a model from a configuration file; resumes what the output folder holds."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlf.cli.jobs import complain, tell
from dlf.cli.options import COUNT, PATH, gathered, minutes, needed
from dlf.errors import reason_of
from dlf.extras import need

if TYPE_CHECKING:
    from dlf.train.config import TrainConfig


@dataclass(frozen=True)
class Arguments:
    """What the command line says; each field is the option of its name."""

    config: Path
    overrides: tuple[str, ...]
    data: Path | None
    val: Path | None
    output: Path | None
    init: Path | None
    teacher: Path | None
    minutes: float | None
    titok: Path | None
    vqgan: Path | None
    perceptual: str | None
    features: Path | None
    device: str
    compile: bool
    profile: int | None
    print_config: bool
    tensorboard: bool
    threads: int


training_options = gathered(
    Arguments,
    "args",
    click.argument("config", type=PATH, metavar="CONFIG"),
    click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
    click.option("--data", type=PATH, metavar="DIR", help="Folder of training images or tar shards."),
    click.option("--val", type=PATH, metavar="DIR", help="Folder of validation images or tar shards."),
    click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder of the run."),
    click.option(
        "--init", type=PATH, metavar="PATH", help="Checkpoint, or folder of weights, of the stage before."
    ),
    click.option(
        "--teacher", type=PATH, metavar="PATH",
        help="Checkpoint, or folder of weights, of a model for whose streams one end is trained.",
    ),
    click.option(
        "--minutes", type=minutes, metavar="N", help="Train for so long, however many steps that are."
    ),
    click.option("--titok", type=PATH, metavar="FILE", help="TiTok weights to start from."),
    click.option("--vqgan", type=PATH, metavar="FILE", help="VQGAN weights to start from."),
    click.option(
        "--perceptual", metavar="NETWORK",
        help="Of the perceptual term: lpips-vgg (downloads VGG-16), or a file of Inception-v3 weights.",
    ),
    click.option(
        "--features", type=PATH, metavar="FILE",
        help="Weights of EfficientNet-lite0, for a discriminator on frozen features.",
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
        help="Where to train.",
    ),
    click.option("--compile", is_flag=True, help="Compile the networks; eager where that fails."),
    click.option(
        "--profile", type=COUNT, metavar="STEPS",
        help="Say what steps cost on this machine; no run is left.",
    ),
    click.option(
        "--print-config", is_flag=True, help="Print the whole configuration as JSON, and train nothing."
    ),
    click.option("--tensorboard", is_flag=True, help="Also write TensorBoard's event files."),
    click.option(
        "--threads", type=COUNT, default=os.cpu_count() or 1, metavar="N",
        help="Threads of each process.  [default: processors]",
    ),
)  # fmt: skip


@click.command("train", short_help="Train one stage of a model; resumes.")
@training_options
def command(args: Arguments) -> int:
    """Train one stage of a model from a configuration file; resumes what the output folder holds.

    CONFIG is the YAML or JSON file of the stage, such as configs/compact_joint.yaml; KEY=VALUE replaces a
    value of it, such as steps=100 or optimiser.lr=1e-4.  The exit code is 1 if a signal stopped the run,
    which can then be resumed.
    """
    since = time.monotonic()  # to load torch takes a part of a run of minutes
    need("torch", "torch")
    from dlf.nn.model_config import to_dict
    from dlf.train.config import load_config

    first = os.environ.get("RANK", "0") == "0"  # of several processes, as torchrun counts them
    logging.getLogger("dlf").setLevel(logging.INFO if first else logging.WARNING)
    if args.init and (args.titok or args.vqgan):
        msg = "--init starts from our own weights, --titok and --vqgan from others': name one"
        raise click.UsageError(msg)
    try:
        config = load_config(args.config, args.overrides)
        config = replace(
            config, minutes=args.minutes or config.minutes, compile=args.compile or config.compile
        )
        if args.print_config:
            tell(json.dumps(to_dict(config), indent=2))
            return 0
        return _train(args, config, since)
    except (ValueError, OSError) as error:  # a wrong configuration, checkpoint or folder
        complain(reason_of(error))
        return 1


def _train(args: Arguments, config: TrainConfig, since: float) -> int:
    import torch

    from dlf.train.run import Sources, profile_stage, run_stage

    torch.set_num_threads(args.threads)
    sources = Sources(
        needed(args.data, "--data"),
        needed(args.val, "--val"),
        (args.output or Path()) if args.profile else needed(args.output, "--output"),
        args.init,
        args.perceptual,
        features=args.features,
        titok=args.titok,
        vqgan=args.vqgan,
        teacher=args.teacher,
    )
    if args.profile:
        for line in profile_stage(config, sources, args.profile, device=args.device):
            tell(line)
        return 0
    complete = run_stage(config, sources, device=args.device, tensorboard=args.tensorboard, since=since)
    return 0 if complete else 1
