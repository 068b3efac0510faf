"""Rows, their table on disk, the summary and the sheets, with a codec that only counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlf.errors import FormatError, ImageError
from dlf.evaluation.dataset import find_pictures
from dlf.evaluation.ledger import Ledger, Row
from dlf.evaluation.metrics import MS_SSIM, PSNR, Metric
from dlf.evaluation.report import contact_sheet, summary
from dlf.evaluation.runner import Experiment, evaluate
from dlf.records import UInt8

Picture = Callable[[int, int], UInt8]


class Counting:
    """The codec under test: a file has 50 bytes and one for each step of quality."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, image: UInt8, quality: int) -> bytes:
        self.calls += 1
        if image.shape[0] == 13:
            msg = "thirteen"
            raise RuntimeError(msg)
        return bytes((*image.shape[1::-1], int(image.mean()))) + bytes(47 + quality)

    def decode(self, data: bytes) -> Image.Image:
        return Image.new("RGB", (data[0], data[1]), (data[2], data[2], data[2]))


class Flat:
    """A baseline of one size."""

    qualities = range(1, 5)

    def __init__(self, name: str, size: int) -> None:
        self.name, self.identity, self._size = name, f"{name} {size}", size

    def encode(self, image: Image.Image, quality: int) -> bytes:
        return bytes((image.width, image.height)) + bytes(self._size - 2)

    def decode(self, data: bytes) -> Image.Image:
        return Image.new("RGB", (data[0], data[1]), (100, 100, 100))


def experiment(codec: Counting | None = None, *baselines: Flat, identity: str = "a") -> Experiment:
    metrics = (PSNR, MS_SSIM)
    return Experiment(codec or Counting(), identity, (10, 50), baselines, metrics, "ms_ssim")


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(picture(48, 64)).save(folder / "b.png")
    Image.fromarray(picture(40, 40)[..., 0]).save(folder / "more" / "grey.PNG")
    Image.fromarray(picture(20, 30)).save(folder / "a.webp", lossless=True)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def test_pictures_of_a_folder(folder: Path, tmp_path: Path) -> None:
    assert [picture.name for picture in find_pictures(folder)] == ["a.webp", "b.png", "more/grey.PNG"]
    (tmp_path / "empty").mkdir()
    for bad in ("empty", "absent"):
        with pytest.raises(ImageError, match=bad):
            find_pictures(tmp_path / bad)


def test_every_row(folder: Path, tmp_path: Path) -> None:
    setup = experiment(None, Flat("small", 55), Flat("big", 80))
    rows = list(evaluate(setup, find_pictures(folder), Ledger(tmp_path / "rows.csv")))
    assert [row.codec for row in rows] == ["dlf", "small", "big"] * 6
    assert [row.quality for row in rows] == ([10] * 3 + [50] * 3) * 3
    assert not any(row.error for row in rows)
    by_key = {row.key: row for row in rows}
    row = by_key["b.png", 10, "dlf"]
    assert (row.width, row.height, row.size) == (64, 48, 60)
    assert row.bpp == pytest.approx(8 * 60 / (64 * 48))
    assert set(row.scores) == {"psnr", "ms_ssim"}
    assert by_key["b.png", 10, "small"].setting == 4
    assert not by_key["b.png", 10, "small"].over_budget
    over = by_key["b.png", 10, "big"]
    assert (over.over_budget, over.size, over.setting) == (True, 80, 1)
    assert not by_key["b.png", 50, "big"].over_budget


def test_a_second_run_computes_nothing(folder: Path, tmp_path: Path) -> None:
    path, codec, small = tmp_path / "rows.csv", Counting(), Flat("small", 55)
    pictures = find_pictures(folder)
    first = list(evaluate(experiment(codec, small), pictures, Ledger(path)))
    assert codec.calls == 6
    assert list(evaluate(experiment(codec, small), pictures, Ledger(path))) == first
    assert codec.calls == 6


def test_what_changed_is_computed_again(folder: Path, tmp_path: Path, picture: Picture) -> None:
    path, codec = tmp_path / "rows.csv", Counting()

    def calls(setup: Experiment) -> int:
        before = codec.calls
        assert all(not row.error for row in evaluate(setup, find_pictures(folder), Ledger(path)))
        return codec.calls - before

    assert calls(experiment(codec)) == 6
    assert calls(experiment(codec, Flat("small", 55))) == 0
    Image.fromarray(picture(30, 30)).save(folder / "b.png")
    assert calls(experiment(codec)) == 2
    assert calls(experiment(codec, identity="another model")) == 6
    assert path.read_text().count("\n") == 1 + 6 + 6  # replaced, not added; those of small stay


def test_an_interrupted_run_goes_on(folder: Path, tmp_path: Path) -> None:
    path, codec = tmp_path / "rows.csv", Counting()
    rows = evaluate(experiment(codec), find_pictures(folder), Ledger(path))
    assert [next(rows).picture for _ in range(3)] == ["a.webp", "a.webp", "b.png"]
    rows.close()
    assert len(list(evaluate(experiment(codec), find_pictures(folder), Ledger(path)))) == 6
    assert codec.calls == 6


def test_failures_are_told_and_the_rest_goes_on(folder: Path, tmp_path: Path, picture: Picture) -> None:
    path = tmp_path / "rows.csv"
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    Image.fromarray(picture(13, 20)).save(folder / "odd.png")
    Image.fromarray(picture(5, 5)).save(folder / "tiny.png")
    setup = experiment(None, Flat("small", 55))
    rows = list(evaluate(setup, find_pictures(folder), Ledger(path)))
    errors = {row.key: row.error for row in rows if row.error}
    assert set(errors) == {
        (name, quality, codec)
        for name in ("broken.png", "odd.png")
        for quality in (10, 50)
        for codec in ("dlf", "small")
    }
    assert "not an image" in errors["broken.png", 10, "dlf"]
    assert errors["odd.png", 10, "dlf"] == "RuntimeError: thirteen"
    assert "because dlf failed" in errors["odd.png", 10, "small"]
    text = summary(rows, setup, ["heic is not there"])
    assert "odd.png, dlf, quality 10: RuntimeError: thirteen" in text
    assert "heic is not there" in text
    assert "| 10 | dlf | 4 |" in text
    codec = Counting()  # what failed is tried again, what did not is not
    list(evaluate(experiment(codec, Flat("small", 55)), find_pictures(folder), Ledger(path)))
    assert codec.calls == 2


def test_a_summary_compares_the_same_pictures() -> None:
    setup = experiment(None, Flat("small", 55))
    rows = [
        Row("a", 10, "dlf", "", 10, 10, 100, scores={"psnr": 20, "ms_ssim": 0.5}),
        Row("a", 10, "small", "", 10, 10, 50, over_budget=True, scores={"psnr": 22, "ms_ssim": 0.75}),
        Row("b", 10, "dlf", "", 10, 10, 900, scores={"psnr": 99, "ms_ssim": 0.9}),
        Row("b", 10, "small", "", error="no"),
    ]
    lines = summary(rows, setup).splitlines()
    assert "| 10 | dlf | 1 | 8.0000 | 20.00 | 0.5000 |  |" in lines
    assert "| 10 | small | 1 | 4.0000 | 22.00 | 0.7500 | 1 |" in lines
    assert "| 50 | dlf | 0 |  |  |  |  |" in lines


def test_a_table_keeps_every_value(tmp_path: Path) -> None:
    rows = [
        Row('a, "b"\n.png', 10, "dlf", "1f", 3, 4, 5, "3/16", 7, True, "", {"psnr": float("inf"), "x": 0.1}),
        Row("\udcff.png", 20, "avif", "", error="it, failed"),
    ]
    ledger = Ledger(tmp_path / "rows.csv")
    for row in rows:
        ledger.add(row)
    again = Ledger(tmp_path / "rows.csv")
    assert again.find(rows[0].key, "1f") == rows[0]
    assert again.find(rows[0].key, "2f") is None
    assert again.find(rows[1].key, "") is None  # failed, so not finished


@pytest.mark.parametrize("text", ["something else\n1\n", "picture,quality\na,b\n", "\0"])
def test_another_file_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match="not a table of an earlier run"):
        Ledger(path)
    assert path.read_text() == text


def test_a_sheet(folder: Path, tmp_path: Path) -> None:
    setup, pictures = experiment(None, Flat("small", 55), Flat("big", 80)), find_pictures(folder)
    rows = list(evaluate(setup, pictures, Ledger(tmp_path / "rows.csv")))
    sheet = contact_sheet(setup, pictures[:2], rows, 50)
    assert sheet is not None
    pixels = np.asarray(sheet)
    with Image.open(folder / "b.png") as image:
        original = np.asarray(image)
    bottom, left = pixels[-54:-6], 70  # the last strip without its gap; the second column
    assert np.array_equal(bottom[:, :64], original)
    assert (bottom[:, left : left + 64] == int(original.mean())).all()
    assert (bottom[:, 2 * left : 2 * left + 64] == 100).all()
    assert sheet.width == 3 * 64 + 2 * 6
    assert contact_sheet(setup, pictures, [], 50) is None


def test_the_judge_chooses_the_scale(folder: Path, tmp_path: Path) -> None:
    reverse = Metric("stem", "stem distance", 4, PSNR.against, lower_is_better=True)
    metrics, flat = (PSNR, reverse), Flat("small", 55)
    chosen = []
    for judge in ("psnr", "stem"):
        setup = Experiment(Counting(), "a", (10,), (flat,), metrics, judge)
        rows = list(evaluate(setup, find_pictures(folder)[:1], Ledger(tmp_path / f"{judge}.csv")))
        chosen.append(rows[1].scores["psnr"])
    assert chosen[0] >= chosen[1]
