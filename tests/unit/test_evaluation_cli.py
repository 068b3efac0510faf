"""``dlf eval`` as a person runs it, with a stand-in for the networks."""

from __future__ import annotations

import csv
import json
import os
import shutil
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
    arguments = ["--quality", "50,10,50", "--codecs", "webp,dlf", "--jobs", "1"]
    done = call(folder, *arguments, "--sheet", "1")
    assert done.returncode == 0, done.stderr
    with (folder / "out" / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["picture"], row["target"], row["codec"]) for row in rows] == [
        (name, target, codec)
        for name in ("a.png", "b.png")
        for target in ("q10", "q50")
        for codec in ("webp", "dlf")
    ]
    with Image.open(folder / "pictures" / "a.png") as image:
        subprocess.run(
            [*MOCK, "encode", "pictures/a.png", "-q", "10", "--model", "model", "-o", "a.dlf"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        data = (folder / "a.dlf").read_bytes()
        assert int(rows[1]["size"]) == len(data)
        assert float(rows[1]["bpp"]) == pytest.approx(8 * len(data) / (image.width * image.height), abs=1e-6)
        kept = list((folder / "out" / "files" / "q10" / "dlf").glob("a.png.*"))
        assert [path.read_bytes() for path in kept] == [data]
    summary = (folder / "out" / "summary.md").read_text()
    assert summary.count("| webp |") == 3  # two targets and one rate difference
    assert done.stdout == summary
    assert "[8/8] b.png, q50, webp" in done.stderr
    found = json.loads((folder / "out" / "results.json").read_text())
    assert [point["target"] for point in found["curves"]["dlf"]] == ["q10", "q50"]
    assert len(found["rows"]) == 8
    psnr = {name: [p["scores"]["psnr"] for p in points] for name, points in found["curves"].items()}
    ratios = [ratio for ratio in found["hull_ratios"] if ratio["metric"] == "psnr"]
    assert [(ratio["codec"], ratio["target"], ratio["pictures"]) for ratio in ratios] == [
        ("dlf", "q10", 2),
        ("dlf", "q50", 2),
    ]
    wanted = [ours / theirs for ours, theirs in zip(psnr["dlf"], psnr["webp"], strict=True)]
    assert [ratio["ratio"] for ratio in ratios] == pytest.approx(wanted)
    assert f"| dlf | q50 | {wanted[1]:.3f} |" in summary
    names = {path.name for path in (folder / "out").iterdir()}
    assert {"rows.csv", "rows.jsonl", "summary.md", "results.json", "sheet-q10.png", "sheet-q50.png"} <= names
    before = (folder / "out" / "rows.jsonl").read_bytes()
    assert call(folder, *arguments, "--quiet").stdout == ""
    assert (folder / "out" / "rows.jsonl").read_bytes() == before


def test_rates_and_names(folder: Path) -> None:
    codecs = "dlf,other=dlf:model,webp@1/2,small=webp"
    done = call(folder, "--bpp", "0.5,8", "--codecs", codecs, "--anchor", "other", "--metrics", "ms-ssim")
    assert done.returncode == 0, done.stderr
    with (folder / "out" / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["codec"] for row in rows} == {"dlf", "other", "webp@1_2", "small"}
    assert {row["scale"] for row in rows if row["codec"] == "webp@1_2"} == {"1/2"}
    for row in rows:
        assert float(row["bpp"]) <= float(row["target"]) or row["over_budget"] == "True"
    assert "psnr" not in rows[0]
    assert "| other | small |" in done.stdout


def test_a_broken_picture_is_told(folder: Path) -> None:
    (folder / "pictures" / "c.png").write_bytes(b"nothing")
    done = call(folder, "--quality", "50", "--codecs", "dlf", "--quiet")
    assert done.returncode == 1
    assert "c.png, q50, dlf: this is not an image of a known format" in done.stderr
    assert "Means over 2 pictures" in (folder / "out" / "summary.md").read_text()
    for name in ("a", "b"):
        (folder / "pictures" / f"{name}.png").unlink()
    done = call(folder, "--bpp", "0.5,1", "--codecs", "dlf,webp", "--quiet", "--complexity")
    assert done.returncode == 1
    summary = (folder / "out" / "summary.md").read_text()
    assert "no picture has every result" in summary
    assert "- c.png, dlf, webp, 0.5, 1: this is not an image of a known format" in summary


@pytest.mark.skipif(shutil.which("vvencapp") is not None, reason="vvenc is installed")
def test_a_codec_that_is_not_there_is_told(folder: Path) -> None:
    Image.new("L", (5, 5), 90).save(folder / "pictures" / "grey.png")
    done = call(folder, "--quality", "50", "--codecs", "dlf,vvc,webp", "--quiet", "--examples", "0")
    assert done.returncode == 0, done.stderr
    assert "left out: the codec vvc needs the programs vvencapp and vvdecapp" in done.stderr
    summary = (folder / "out" / "summary.md").read_text()
    assert "- left out: the codec vvc" in summary
    assert "Means over 3 pictures" in summary


def test_the_spellings_of_before(folder: Path) -> None:
    done = call(folder, "--quality", "50", "--codecs", "dlf,webp", "--quiet", "--complexity")
    assert done.returncode == 0, done.stderr
    lines = (folder / "out" / "summary.md").read_text().splitlines()
    stages = [line.split(" | ")[1] for line in lines if line.startswith("| dlf |") and "q50" not in line]
    assert stages[-6:] == ["analysis", "prior", "context", "synthesis", "the rest", "all"]
    whole = [line.split(" | ") for line in lines if line.split(" | ")[1:2] == ["all"]]
    assert [cells[0] for cells in whole] == ["| (none)", "| dlf", "| webp"]
    assert all(float(cells[6]) > 0 and float(cells[7]) >= 0 for cells in whole[1:])  # seconds
    assert "| webp | q50 |" in (folder / "out" / "summary.md").read_text()


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["--quality", "101"], 2, "'101' is not a whole number from 0 to 100"),
        (["--quality", ""], 2, "'' is not a whole number"),
        (["--bpp", "0"], 2, "'0' is not a number of bits a pixel"),
        (["--bpp", "0.1", "--quality", "3"], 2, "not allowed with"),
        (["--codecs", "bmp"], 2, "'bmp' is not one of the codecs dlf, jpeg, webp, avif"),
        (["--codecs", "webp,,dlf"], 2, "has an empty part"),
        (["--codecs", "webp,webp=jpeg"], 2, "two codecs are called 'webp'"),
        (["--codecs", "webp@0"], 2, "is not a number above 0 and up to 1"),
        (["--codecs", "a/b=webp"], 2, "the name 'a/b' may hold"),
        (["--codecs", "webp", "--quality", "3"], 2, "a target quality needs the codec dlf"),
        (["--metrics", "beauty"], 2, "'beauty' is not one of the metrics psnr, msssim"),
        (["--anchor", "heic"], 2, "the anchor heic is not one of dlf, best-of-formats"),
        (["--judge", "stem"], 2, "the judge stem is not among the metrics psnr, ms_ssim"),
        (["--metrics", "stem:absent"], 1, "absent"),
        (["--model", "absent"], 1, "'absent' is not installed"),
        (["-o", "pictures/a.png"], 1, "cannot write to 'pictures/a.png'"),
    ],
)
def test_bad_arguments(folder: Path, args: list[str], code: int, sentence: str) -> None:
    if args[-1] == "stem:absent":
        pytest.importorskip("torch")
    done = call(folder, *([] if "--codecs" in args else ["--codecs", "dlf"]), *args)
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
