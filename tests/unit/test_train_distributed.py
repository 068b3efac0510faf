"""Several processes train what one would: the same losses, the same weights, one checkpoint."""

# ruff: noqa: E402
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
import yaml

from dlf.errors import TrainingError
from dlf.train import checkpoint, distributed
from dlf.train.engine import CHECKPOINT
from dlf.train.run_logger import LOG

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]
STEPS = 6
# only this machine talks to itself
INTERFACE = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
PLAIN: dict[str, Any] = {
    "preset": "tiny", "stage": "joint", "steps": STEPS, "shapes": [[64, 64], [32, 96]], "pixels": 8192,
    "parts": 2, "optimiser": {"lr": 0.002, "lr_end": 0.0001, "warmup": 2},
    "precision": "float32", "validate_every": 3,
    "log_every": 1, "weights": {"l1": 1.0, "low": 1.0, "vq": 1.0, "latent": 1.0, "code": 0.25},
    "rate": {"at_low": 4.0, "at_high": 1.0},
    "adversarial": {"weight": 0.5, "matching": 1.0, "width": 4, "layers": 2},
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
    environment = os.environ | INTERFACE
    line = command(processes, config, photos, folder / "run")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return [json.loads(row) for row in (folder / "run" / LOG).read_text("utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tolerance", "changes"),
    [
        (1e-3, {"stage": "tokenizer"}),
        (0.02, {"stage": "align"}),
        (0.01, {"stage": "joint", "recompute": True, "stream": True}),
    ],
    ids=["tokenizer", "align", "joint"],
)
def test_two_processes_have_the_loss_curve_of_one(
    tolerance: float, changes: dict[str, object], photos: Path, tmp_path: Path
) -> None:
    """Running statistics of tokens differ: one process moves them batch by batch, two side by side."""
    alone = train(1, tmp_path / "one", photos, **changes)
    together = train(2, tmp_path / "two", photos, **changes)
    assert [(row["kind"], row["step"]) for row in together] == [(r["kind"], r["step"]) for r in alone]
    assert len([row for row in alone if row["kind"] == "train"]) == STEPS
    for one, two in zip(alone, together, strict=True):
        assert one.keys() == two.keys()
        for key in one.keys() - {"kind", "seconds"}:
            assert two[key] == pytest.approx(one[key], rel=tolerance, abs=2e-4), (key, one["step"])
    first, second = (checkpoint.load(tmp_path / name / "run" / CHECKPOINT) for name in ("one", "two"))
    # Adam's first steps move a weight by the whole rate of learning: a gradient near 0 may move it either way
    near = 3 * PLAIN["optimiser"]["lr"] if changes["stage"] == "align" else 2e-3
    for key, value in first.model.items():
        torch.testing.assert_close(second.model[key], value, rtol=0.02, atol=near, msg=key)


@pytest.mark.slow
def test_a_signal_stops_all_processes_after_the_same_step(photos: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(PLAIN | {"steps": 10**6, "validate_every": 10**6}), encoding="utf-8")
    out = tmp_path / "run"
    environment = os.environ | INTERFACE
    with subprocess.Popen(command(2, config, photos, out), env=environment, cwd=ROOT) as launcher:
        deadline = time.monotonic() + 120
        while not (out / LOG).exists() and launcher.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=60) != 0
    state = checkpoint.load(out / CHECKPOINT)
    rows = (out / LOG).read_text("utf-8").splitlines()
    assert state.step == json.loads(rows[-1])["step"] >= 1


def test_alone_everything_is_as_it_was() -> None:
    rows = [torch.arange(6.0).reshape(3, 2), torch.ones(3, 2)]
    assert torch.equal(distributed.all_gather_rows(rows), torch.cat(rows))
    assert distributed.all_reduce_mean({"a": 2.0}) == {"a": 2.0}
    assert distributed.all_reduce_sum(3) == 3
    assert distributed.broadcast("x") == "x"
    assert distributed.all_reduce_max(0.5, True) == [0.5, True]
    assert list(distributed.own_parts(3)) == [0, 1, 2]


def test_batches_that_cannot_be_shared_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 4)
    with pytest.raises(TrainingError, match="multiple of 4"):
        distributed.own_parts(6)
    monkeypatch.setattr(distributed, "rank", lambda: 3)
    assert list(distributed.own_parts(8)) == [3, 7]


def test_a_process_without_a_gpu_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert distributed.choose_device("auto") == distributed.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(TrainingError, match="GPU"):
        distributed.choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(TrainingError, match="there are 1"):
        distributed.choose_device("auto")
