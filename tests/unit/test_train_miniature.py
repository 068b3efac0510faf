"""The README's commands turn a hundred photos into a model that codes pictures."""

# ruff: noqa: E402
from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from dlf.train import checkpoint

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "tests" / "data" / "astronaut.jpg"
MINUTES = 15


def readme_commands() -> list[list[str]]:
    """What the README's section on training says to type, but for what needs more than this checkout."""
    text = (ROOT / "README.md").read_text("utf-8").partition("## Train and evaluate")[2]
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("dlf ")]
    return [words for words in commands if words[1] != "eval"]


def make_photos(folder: Path, count: int) -> Path:
    """Parts of one photo, at many sizes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    with Image.open(PHOTO) as image:
        whole = image.convert("RGB")
    for number in range(count):
        side = int(rng.integers(288, whole.height + 1))
        left, top = (int(rng.integers(0, whole.height - side + 1)) for _ in "xy")
        part = whole.crop((left, top, left + side, top + side)).resize(
            (int(rng.integers(256, 400)), 256 + 32)
        )
        part.save(folder / f"{number:03d}.jpg", quality=90)
    return folder


@pytest.mark.slow
def test_readme_trains_a_model_that_encodes_and_decodes(tmp_path: Path) -> None:
    started = time.monotonic()
    make_photos(tmp_path / "photos" / "train", 100)
    make_photos(tmp_path / "photos" / "val", 2)
    Image.open(PHOTO).convert("RGB").resize((320, 288)).save(tmp_path / "photo.jpg")
    commands = readme_commands()
    assert [words[1] for words in commands] == ["train", "train", "train", "export", "encode"]
    for words in [*commands, ["dlf", "decode", "photo.dlf", "--model", "my-model"]]:
        line = [word.replace("configs/compact_", f"{ROOT}/configs/mini_") for word in words[1:]]
        if "--perceptual" in line:
            at = line.index("--perceptual")
            del line[at : at + 2]
        done = subprocess.run(
            [sys.executable, "-m", "dlf", *line], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
    stages = [
        checkpoint.load(tmp_path / "runs" / name / "last.pt") for name in ("tokenizer", "align", "joint")
    ]
    assert [state.config["stage"] for state in stages] == ["tokenizer", "align", "joint"]
    assert all(state.step == state.config["steps"] for state in stages)
    with Image.open(tmp_path / "photo.jpg") as before, Image.open(tmp_path / "photo.png") as after:
        assert before.size == after.size
        error = np.abs(np.asarray(before).astype(int) - np.asarray(after)).mean()
    assert error < 60  # colours are about right; a grey picture has 66
    assert (tmp_path / "photo.dlf").stat().st_size < (tmp_path / "photo.jpg").stat().st_size / 5
    assert time.monotonic() - started < MINUTES * 60
