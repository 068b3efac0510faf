"""Several processes train what one would: the same losses, the same weights, one checkpoint."""

# ruff: noqa: E402
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
import yaml

from dlf.train import checkpoint
from dlf.train.board import LOG
from dlf.train.loop import CHECKPOINT

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]
STEPS = 6
PLAIN: dict[str, Any] = {
    "preset": "tiny", "stage": "joint", "steps": STEPS, "shapes": [[64, 64], [32, 96]], "pixels": 8192,
    "parts": 2, "lr": 0.002, "lr_end": 0.0001, "warmup": 2, "precision": "float32", "validate_every": 3,
    "log_every": 1, "weights": {"l1": 1.0, "low": 1.0, "vq": 1.0, "latent": 1.0, "code": 0.25},
    "rate": {"at_low": 4.0, "at_high": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(4)
    for number in range(4):
        small = rng.integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(small).resize((160, 128), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def command(processes: int, config: Path, photos: Path, out: Path) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    paths = ["--data", str(photos), "--val", str(photos), "-o", str(out)]
    return [*start, "-m", "dlf", "train", str(config), *paths, "--threads", "1", "--device", "cpu"]


def train(processes: int, folder: Path, photos: Path, **changes: object) -> list[dict[str, float]]:
    """Train in processes of their own; returns the rows of the log."""
    folder.mkdir()
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(PLAIN | changes), encoding="utf-8")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    line = command(processes, config, photos, folder / "run")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [json.loads(row) for row in (folder / "run" / LOG).read_text("utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "align", "joint"])
def test_two_processes_have_the_loss_curve_of_one(stage: str, photos: Path, tmp_path: Path) -> None:
    alone = train(1, tmp_path / "one", photos, stage=stage)
    together = train(2, tmp_path / "two", photos, stage=stage)
    assert [(row["kind"], row["step"]) for row in together] == [(r["kind"], r["step"]) for r in alone]
    assert len([row for row in alone if row["kind"] == "train"]) == STEPS
    for one, two in zip(alone, together, strict=True):
        assert one.keys() == two.keys()
        for key in one.keys() - {"kind", "seconds"}:
            assert two[key] == pytest.approx(one[key], rel=2e-3, abs=2e-4), (key, one["step"])
    first, second = (checkpoint.load(tmp_path / name / "run" / CHECKPOINT) for name in ("one", "two"))
    for key, value in first.model.items():
        torch.testing.assert_close(second.model[key], value, rtol=0.02, atol=2e-3, msg=key)
