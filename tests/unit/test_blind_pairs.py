"""The program that shows two models side by side without saying which is which."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tool_modules import load_tool


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("blind_pairs")


def test_sheets_and_their_key(
    tool: ModuleType, mock_models: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(photos / f"{name}.png")
    # the stand-in is the only model here, so both are the same one by two names
    command = [
        "make",
        str(out),
        "--folder",
        str(photos),
        "--models",
        "base",
        "default",
        "--bpp",
        "0.1",
        "0.2",
    ]
    monkeypatch.setattr(sys, "argv", ["blind_pairs.py", *command])
    assert tool.main() == 0
    key = json.loads((out / "key.json").read_text())
    assert [key[name]["image"] for name in ("00", "01")] == ["a.png", "c.png"]
    assert [key[name]["bpp"] for name in ("00", "01")] == [0.1, 0.2]
    assert all({sheet["A"], sheet["B"]} == {"base", "default"} for sheet in key.values())
    for name in key:
        with Image.open(out / f"{name}.png") as sheet:
            assert sheet.width >= 3 * 60


def test_answers_are_counted_by_model(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"00": {"bpp": 0.1, "A": "x", "B": "y"}, "01": {"bpp": 0.2, "A": "y", "B": "x"}}
    (tmp_path / "key.json").write_text(json.dumps(key))
    for number, answers in enumerate([{"00": "A", "01": "B"}, {"00": "B", "01": "="}]):
        (tmp_path / f"{number}.json").write_text(json.dumps(answers))
    files = [str(tmp_path / name) for name in ("key.json", "0.json", "1.json")]
    monkeypatch.setattr(sys, "argv", ["blind_pairs.py", "score", *files])
    assert tool.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "0.1 {'x': 1, 'y': 1}",
        "0.2 {'x': 1, '=': 1}",
        "all {'x': 2, 'y': 1, '=': 1}",
        "as unequal by chance: 1",
    ]


def test_chance(tool: ModuleType) -> None:
    assert tool.by_chance(2, 2) == 0.5
    assert tool.by_chance(9, 10) == pytest.approx(2 * 11 / 1024)
    assert tool.by_chance(5, 10) == 1


def test_a_folder_that_is_not_there(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["blind_pairs.py", "make", str(tmp_path / "out"), "--folder", str(tmp_path / "none")]
    monkeypatch.setattr(sys, "argv", command)
    assert tool.main() == 1
    assert "blind_pairs: " in capsys.readouterr().err
