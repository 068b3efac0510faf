"""What a run cannot start from, or go on with, is one sentence, and what lies there stays."""

# ruff: noqa: E402
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from PIL import Image

from dlf.cli.main import main
from dlf.nn.model_config import to_dict
from dlf.train.engine import CHECKPOINT
from tiny_runs import CONFIG, pictures

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(pictures()):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


def train(photos: Path, out: Path, *words: object, **changes: object) -> int:
    config = out.with_suffix(".json")
    config.write_text(json.dumps(to_dict(replace(CONFIG, steps=1, **changes))), encoding="utf-8")
    places = ["--data", str(photos), "--val", str(photos), "-o", str(out), "--threads", "1"]
    return main(["train", str(config), *places, "--device", "cpu", *map(str, words)])


def test_weights_of_another_model(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(photos, tmp_path / "tokenizer", stage="tokenizer") == 0
    assert train(photos, tmp_path / "joint", stage="joint") == 0
    capsys.readouterr()
    joint = tmp_path / "joint" / CHECKPOINT
    for name, changes in (
        ("a", {"stage": "tokenizer"}),  # from a whole codec
        ("b", {"stage": "joint", "preset": "tiny-v2"}),
    ):
        assert train(photos, tmp_path / name, "--init", joint, **changes) == 1
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith(f"dlf: the {changes['stage']} stage of the preset")
        assert f"cannot start from {joint}" in error
        assert not (tmp_path / name / CHECKPOINT).exists()


def test_the_folder_of_another_run(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(photos, tmp_path / "run", stage="tokenizer") == 0
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    capsys.readouterr()
    assert train(photos, tmp_path / "run", stage="joint") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be resumed with this configuration (it is tokenizer of tiny)" in error
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
