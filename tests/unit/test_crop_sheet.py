"""The tool that makes sheets of crops: places, captions, and a whole run with small stand-ins."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from dlf.evaluation.codecs.fitting import ScaledCodec
from dlf.evaluation.codecs.formats import PillowCodec
from dlf.evaluation.codecs.protocols import ComparedCodec
from dlf.evaluation.codecs.specs import CodecSpec
from tool_modules import load_tool

TOOL = Path(__file__).parents[2] / "tools" / "crop_sheet.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_tool("crop_sheet")

    def stand_in(spec: CodecSpec, threads: int | None = None) -> ComparedCodec:
        return ScaledCodec(spec.name, PillowCodec("JPEG", "jpeg", {}, range(1, 96)), (Fraction(1),))

    monkeypatch.setattr(module, "open_codec", stand_in)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (170, 340)), ("b", (200, 120))):
        rgb = np.full((*size, 3), 128, np.uint8)
        rgb[:, -100:] = rng.integers(0, 256, (size[0], 100, 3))
        Image.fromarray(rgb).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "pictures"


def test_crops_are_where_the_detail_is(tool: ModuleType) -> None:
    rgb = np.full((400, 600, 3), 90, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8)
    rgb[240:, 440:] = noise  # the last place, which is no multiple of the step
    rgb[40:200, 80:240] = noise // 2
    assert tool.detailed(rgb, 2) == [(440, 240), (80, 40)]
    many = tool.detailed(rgb, 99)
    assert len(many) >= 3
    assert not [(a, b) for a in many for b in many if a < b and max(map(abs, np.subtract(a, b))) < 160]
    assert tool.detailed(rgb[:50, :70], 3) == [(0, 0)]


def test_twelve_crops_of_a_folder(tool: ModuleType, folder: Path) -> None:
    works = tool.chosen(folder)
    assert [(work.name, len(work.places)) for work in works] == [("a.png", 2), ("b.png", 1)]
    assert works[0].places[0] == (180, 0)
    for number in range(30):
        Image.new("RGB", (161, 160)).save(folder / f"c{number:02}.png")
    assert len(tool.chosen(folder)) == 12


def test_the_places_lie_within_the_pictures(tool: ModuleType) -> None:
    pytest.importorskip("skimage")
    works = tool.fixed()
    assert sum(len(work.places) for work in works) == tool.COUNT
    for work in works:
        height, width = work.rgb.shape[:2]
        assert all(x + tool.SIDE <= width and y + tool.SIDE <= height for x, y in work.places)


@pytest.mark.parametrize(("zoom", "models", "tiles"), [(1, "x", 5), (2, "x,y", 7)])
def test_a_sheet(
    tool: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    zoom: int,
    models: str,
    tiles: int,
) -> None:
    output = folder.parent / "sheet.png"
    (folder / "b.png").unlink()
    command = ["crop_sheet", str(output), "--folder", str(folder), "--bpp", "2,4"]
    monkeypatch.setattr(sys, "argv", [*command, "--models", models, "--zoom", str(zoom)])
    assert tool.main() == 0
    with Image.open(output) as sheet:
        assert sheet.width == 2 * (tiles * (160 * zoom + 6) - 6) + 24
        assert sheet.height == 22 + 160 * zoom + 6
        original = np.asarray(sheet.convert("RGB"))[22 : 22 + 160 * zoom, : 160 * zoom]
    with Image.open(folder / "a.png") as picture:
        part = np.asarray(picture)[:160, 180:340]
    assert np.array_equal(original, part.repeat(zoom, 0).repeat(zoom, 1))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all(line.startswith("a  340x170  x  ") and "AVIF  " in line for line in said)


def test_a_bad_folder_is_told(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["crop_sheet", str(tmp_path / "x.png"), "--folder", str(tmp_path / "no")]
    )
    assert tool.main() == 1
    assert capsys.readouterr().err.startswith("crop_sheet: ")
