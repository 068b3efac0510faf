"""Compare the training step of two versions of the source by turns, so that other work disturbs both alike.

python tools/bench_step.py configs/compact_joint.yaml --source src --against ../before/src --steps 8

Images are made up, weights are random.  A configuration is looked for beside each source first, as its keys
may have changed.  Each version has a process of its own with one thread, and they take one step after the
other.  Printed are medians: seconds, and seconds of the processor, which others disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARM_UP = 2
PICTURES = 8


def serve(arguments: argparse.Namespace) -> None:
    """Take a step for each line of standard input and print what it took."""
    from dataclasses import replace

    import numpy as np
    import torch

    from dlf.losses.adversarial import Adversarial
    from dlf.train.config import load_config
    from dlf.train.data import CropSampler
    from dlf.train.run import Sources, build_stage

    try:
        from dlf.train.engine import Run
    except ImportError:  # its name before
        from dlf.train.loop import Run

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = load_config(arguments.config)
    config = replace(config, shapes=(config.shapes[0],))
    if arguments.adversarial:
        config = replace(config, adversarial=Adversarial(weight=0.5, matching=1.0, width=32))
    if not arguments.perceptual:
        config = replace(config, weights=replace(config.weights, perceptual=0.0))
    rng = np.random.default_rng(0)
    pictures = [
        np.kron(rng.integers(0, 256, (32, 48, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        for _ in range(PICTURES)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage = build_stage(config, Sources(folder, folder, folder, None, arguments.perceptual), pictures, [])
        run = Run(config, stage, CropSampler(pictures, config.shapes, config.pixels, 0), folder)
        run.place = run.step = config.steps // 2
        print(json.dumps(config.pixels // np.prod(config.shapes[0]) * np.prod(config.shapes[0]), default=int))
        sys.stdout.flush()
        for _ in sys.stdin:
            wall, processor = time.perf_counter(), time.process_time()
            run.advance()
            print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]), flush=True)


def start(source: Path) -> subprocess.Popen[str]:
    """Run this file once more as a server over a version of the source."""
    environment = os.environ | {"PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
    own = source.parent / sys.argv[1]
    line = [sys.executable, __file__, str(own if own.exists() else sys.argv[1]), *sys.argv[2:], "--serve"]
    return subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(server: subprocess.Popen[str]) -> list[float]:
    """Seconds and processor seconds of a step."""
    assert server.stdin
    assert server.stdout
    server.stdin.write("step\n")
    server.stdin.flush()
    seconds: list[float] = json.loads(server.stdout.readline())
    return seconds


def main() -> None:
    """Print a line for each version, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--source", type=Path, default=Path("src"))
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--perceptual", help="as in `dlf train`; without it the term is left out")
    parser.add_argument("--adversarial", action="store_true", help="with a discriminator of width 32")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments)
        return
    servers = [start(arguments.source), start(arguments.against)]
    pixels = [int(server.stdout.readline()) for server in servers if server.stdout]
    took: list[list[list[float]]] = [[], []]
    for step in range(WARM_UP + arguments.steps):
        for i in (0, 1) if step % 2 else (1, 0):
            seconds = ask(servers[i])
            if step >= WARM_UP:
                took[i].append(seconds)
    medians = [[statistics.median(column) for column in zip(*rows, strict=True)] for rows in took]
    for source, count, (wall, processor) in zip(
        (arguments.source, arguments.against), pixels, medians, strict=True
    ):
        print(
            f"{source}: {wall:.3f} s a step, {processor:.3f} s of a processor, "
            f"{count / processor / 1e6:.3f} Mpixel a second of a processor"
        )
    ratios = [medians[1][i] / medians[0][i] for i in (0, 1)]
    print(f"{arguments.source} is {ratios[0]:.3f} times as fast, by processor time {ratios[1]:.3f}")
    for server in servers:
        server.communicate()


if __name__ == "__main__":
    main()
