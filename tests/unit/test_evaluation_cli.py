"""``dlf eval`` as a person runs it, with a stand-in for the networks."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dlf.records import UInt8

MOCK = [sys.executable, str(Path(__file__).parents[1] / "mock_cli.py")]


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[[int, int], UInt8], write_bundle: Callable[..., Path]) -> Path:
    (tmp_path / "pictures").mkdir()
    for name, size in (("a", (96, 64)), ("b", (70, 90))):
        Image.fromarray(picture(*size)).save(tmp_path / "pictures" / f"{name}.png")
    write_bundle(tmp_path / "model")
    return tmp_path


def call(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [*MOCK, "eval", "pictures", "--model", "model", "-o", "out", *args]
    env = os.environ | {"DLF_MODELS": str(folder / "no-models")}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=120)


def test_rows_summary_and_sheets(folder: Path) -> None:
    done = call(folder, "--quality", "50,10,50", "--baseline", "webp", "--sheet", "1")
    assert done.returncode == 0, done.stderr
    with (folder / "out" / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["picture"], row["quality"], row["codec"]) for row in rows] == [
        (name, quality, codec)
        for name in ("a.png", "b.png")
        for quality in ("10", "50")
        for codec in ("dlf", "webp")
    ]
    with Image.open(folder / "pictures" / "a.png") as image:
        subprocess.run(
            [*MOCK, "encode", "pictures/a.png", "-q", "10", "--model", "model", "-o", "a.dlf"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        size = (folder / "a.dlf").stat().st_size
        assert int(rows[0]["size"]) == size
        assert float(rows[0]["bpp"]) == pytest.approx(8 * size / (image.width * image.height), abs=1e-6)
    summary = (folder / "out" / "summary.md").read_text()
    assert summary.count("| webp |") == 2
    assert done.stdout == summary
    assert "[8/8] b.png, quality 50, webp" in done.stderr
    assert {path.name for path in (folder / "out").iterdir()} == {
        "rows.csv",
        "summary.md",
        "sheet-q10.png",
        "sheet-q50.png",
    }
    before = (folder / "out" / "rows.csv").stat().st_mtime_ns
    assert call(folder, "--quality", "50,10", "--baseline", "webp", "--quiet").stdout == ""
    assert (folder / "out" / "rows.csv").stat().st_mtime_ns == before


def test_a_broken_picture_is_told(folder: Path) -> None:
    (folder / "pictures" / "c.png").write_bytes(b"nothing")
    done = call(folder, "--quality", "50", "--baseline", "none", "--quiet")
    assert done.returncode == 1
    assert "[3/3] c.png, quality 50, dlf: this is not an image of a known format" in done.stderr
    assert "| 50 | dlf | 2 |" in (folder / "out" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["--quality", "101"], 2, "'101' is not a whole number from 0 to 100"),
        (["--quality", ""], 2, "'' is not a whole number"),
        (["--baseline", "bmp"], 2, "'bmp' is not one of avif, webp, jxl, heic, none"),
        (["--perceptual", "absent"], 1, "absent"),
        (["--model", "absent"], 1, "'absent' is not installed"),
        (["-o", "pictures/a.png"], 1, "cannot write to 'pictures/a.png'"),
    ],
)
def test_bad_arguments(folder: Path, args: list[str], code: int, sentence: str) -> None:
    if args[0] == "--perceptual":
        pytest.importorskip("torch")
    done = call(folder, "--baseline", "none", *args)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out").exists()


def test_an_empty_folder(folder: Path) -> None:
    for path in (folder / "pictures").iterdir():
        path.unlink()
    done = call(folder)
    assert done.returncode == 1
    assert done.stderr == "dlf: the folder 'pictures' holds no pictures\n"
