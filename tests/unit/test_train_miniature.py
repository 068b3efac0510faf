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

import yaml

from dlf.nn.build import PRESETS
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


def dlf(folder: Path, *words: object) -> None:
    """Run the command in a folder."""
    # tests run side by side; two trainers that each take all processors slow each other many times over
    threads = ["--threads", "1"] if words[0] == "train" else []
    line = [sys.executable, "-m", "dlf", *map(str, words), *threads]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}: {done.stderr}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands were carried out."""
    folder = tmp_path_factory.mktemp("miniature")
    started = time.monotonic()
    make_photos(folder / "photos" / "train", 100)
    make_photos(folder / "photos" / "val", 2)
    with Image.open(PHOTO) as image:
        image.convert("RGB").resize((320, 288)).save(folder / "photo.jpg")
    commands = readme_commands()
    assert [words[1] for words in commands] == ["train"] * 3 + ["export", "train", "export", "encode"]
    for words in [*commands, ["dlf", "decode", "photo.dlf", "--model", "my-decoder"]]:
        line = [word.replace("configs/compact_", f"{ROOT}/configs/mini_") for word in words[1:]]
        for option in {"--perceptual", "--features"} & set(line):
            at = line.index(option)
            del line[at : at + 2]
        dlf(folder, *line)
    assert time.monotonic() - started < MINUTES * 60
    return folder


def assert_similar(before: Path, after: Path) -> None:
    """Colours are about right; a grey picture has an error of 66."""
    with Image.open(before) as first, Image.open(after) as second:
        assert first.size == second.size
        assert np.abs(np.asarray(first).astype(int) - np.asarray(second)).mean() < 60


@pytest.mark.slow
def test_readme_trains_a_model_that_encodes_and_decodes(trained: Path) -> None:
    names = ("tokenizer", "continuous", "joint", "decoder")
    stages = [checkpoint.load(trained / "runs" / name / "last.pt") for name in names]
    assert [state.config["stage"] for state in stages] == ["tokenizer", "tokenizer", "joint", "decoder"]
    assert all(state.step == state.config["steps"] for state in stages)
    assert_similar(trained / "photo.jpg", trained / "photo.png")
    assert (trained / "photo.dlf").stat().st_size < (trained / "photo.jpg").stat().st_size / 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no_details", "no_interaction", "vector_details"])
def test_ablations_train_and_code_by_the_same_commands(name: str, trained: Path) -> None:
    config = trained / f"{name}.yaml"
    base, changes = ROOT / "configs" / f"{name}_joint.yaml", ROOT / "configs" / "mini_joint.yaml"
    small = yaml.safe_load(changes.read_text("utf-8")) | {"base": str(base), "steps": 4}
    config.write_text(yaml.safe_dump(small), encoding="utf-8")
    data = ["--data", "photos/train", "--val", "photos/val"]
    dlf(trained, "train", config, *data, "--init", "runs/tokenizer/last.pt", "-o", f"runs/{name}")
    dlf(
        trained,
        "export",
        f"runs/{name}/last.pt",
        "--data",
        "photos/val",
        "--name",
        name,
        "--id",
        101,
        "-o",
        name,
    )
    dlf(trained, "encode", "photo.jpg", "-o", f"{name}.dlf", "--model", name)
    dlf(trained, "decode", f"{name}.dlf", "-o", f"{name}.png", "--model", name)
    if name != "no_details":  # which starts without a way from pixels to picture
        assert_similar(trained / "photo.jpg", trained / f"{name}.png")
    model = PRESETS[str(checkpoint.load(trained / "runs" / name / "last.pt").config["preset"])]
    assert model.name == f"compact-{name.replace('_', '-')}"
