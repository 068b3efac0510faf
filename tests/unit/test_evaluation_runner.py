"""Rows, their table on disk, the summary and the sheets, with a codec that only counts."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlf.errors import FormatError, ImageError
from dlf.evaluation.codecs.fitting import SCALES, ScaledCodec
from dlf.evaluation.codecs.formats import DlfCodec
from dlf.evaluation.comparison import Comparison, Target
from dlf.evaluation.dataset import find_images
from dlf.evaluation.image_bench import ImageBench
from dlf.evaluation.ledger import Ledger, Row, table
from dlf.evaluation.metrics.fidelity import MS_SSIM, PSNR
from dlf.evaluation.metrics.metric import Metric
from dlf.evaluation.report.sheet import contact_sheet
from dlf.evaluation.report.tables import summary
from dlf.evaluation.results import gather
from dlf.evaluation.runner import run
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


def comparison(
    codec: Counting | None = None,
    *flats: Flat,
    identity: str = "a",
    bpp: tuple[float, ...] = (),
    metrics: tuple[Metric, ...] = (PSNR, MS_SSIM),
    judge: str = "ms_ssim",
    files: Path | None = None,
) -> Comparison:
    own = ScaledCodec("dlf", DlfCodec(codec or Counting(), identity), (Fraction(1),), own=True)
    others = [ScaledCodec(flat.name, flat, SCALES, classical=True) for flat in flats]
    targets = [Target(bpp=b) for b in bpp] or [Target(quality=10), Target(quality=50)]
    return Comparison((own, *others), tuple(targets), metrics, judge, files)


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
    assert [image.name for image in find_images(folder)] == ["a.webp", "b.png", "more/grey.PNG"]
    (tmp_path / "empty").mkdir()
    for bad in ("empty", "absent"):
        with pytest.raises(ImageError, match=bad):
            find_images(tmp_path / bad)


def test_every_row(folder: Path, tmp_path: Path) -> None:
    setup = comparison(None, Flat("small", 55), Flat("big", 80))
    rows = list(run(setup, find_images(folder), Ledger(tmp_path / "rows.jsonl")))
    assert [row.codec for row in rows] == ["dlf", "small", "big"] * 6
    assert [row.target for row in rows] == (["q10"] * 3 + ["q50"] * 3) * 3
    assert not any(row.error for row in rows)
    by_key = {row.key: row for row in rows}
    row = by_key["b.png", "q10", "dlf"]
    assert (row.width, row.height, row.size) == (64, 48, 60)
    assert row.bpp == pytest.approx(8 * 60 / (64 * 48))
    assert set(row.scores) == {"psnr", "ms_ssim"}
    assert by_key["b.png", "q10", "small"].setting == 4
    assert not by_key["b.png", "q10", "small"].over_budget
    over = by_key["b.png", "q10", "big"]
    assert (over.over_budget, over.size, over.setting) == (True, 80, 1)
    assert not by_key["b.png", "q50", "big"].over_budget


def test_a_second_run_computes_nothing(folder: Path, tmp_path: Path) -> None:
    path, codec, small = tmp_path / "rows.jsonl", Counting(), Flat("small", 55)
    pictures = find_images(folder)
    first = list(run(comparison(codec, small), pictures, Ledger(path)))
    assert codec.calls == 6
    assert list(run(comparison(codec, small), pictures, Ledger(path))) == first
    assert codec.calls == 6


def test_what_changed_is_computed_again(folder: Path, tmp_path: Path, picture: Picture) -> None:
    path, codec = tmp_path / "rows.jsonl", Counting()

    def calls(setup: Comparison) -> int:
        before = codec.calls
        assert all(not row.error for row in run(setup, find_images(folder), Ledger(path)))
        return codec.calls - before

    assert calls(comparison(codec)) == 6
    assert calls(comparison(codec, Flat("small", 55))) == 0
    Image.fromarray(picture(30, 30)).save(folder / "b.png")
    assert calls(comparison(codec)) == 2
    assert calls(comparison(codec, identity="another model")) == 6


def test_an_interrupted_run_goes_on(folder: Path, tmp_path: Path) -> None:
    path, codec = tmp_path / "rows.jsonl", Counting()
    rows = run(comparison(codec), find_images(folder), Ledger(path))
    assert [next(rows).picture for _ in range(3)] == ["a.webp", "a.webp", "b.png"]
    rows.close()
    assert len(list(run(comparison(codec), find_images(folder), Ledger(path)))) == 6
    assert codec.calls == 6


def test_failures_are_told_and_the_rest_goes_on(folder: Path, tmp_path: Path, picture: Picture) -> None:
    path = tmp_path / "rows.jsonl"
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n")
    Image.fromarray(picture(13, 20)).save(folder / "odd.png")
    Image.fromarray(picture(5, 5)).save(folder / "tiny.png")
    setup = comparison(None, Flat("small", 55))
    rows = list(run(setup, find_images(folder), Ledger(path)))
    errors = {row.key: row.error for row in rows if row.error}
    assert set(errors) == {
        (name, quality, codec)
        for name in ("broken.png", "odd.png")
        for quality in ("q10", "q50")
        for codec in ("dlf", "small")
    }
    assert "not an image" in errors["broken.png", "q10", "dlf"]
    sentence = "dlf cannot hold the picture at scale 1 (RuntimeError: thirteen)"
    assert errors["odd.png", "q10", "dlf"] == sentence
    assert "because dlf failed" in errors["odd.png", "q10", "small"]
    text = summary(gather(rows, setup, left_out=["heic is not there"]))
    assert f"- odd.png, dlf, q10, q50: {sentence}" in text
    assert "- heic is not there" in text
    assert "Means over 4 pictures" in text
    codec = Counting()  # what failed is tried again, what did not is not
    list(run(comparison(codec, Flat("small", 55)), find_images(folder), Ledger(path)))
    assert codec.calls == 2


def test_a_summary_compares_the_same_pictures() -> None:
    setup = comparison(None, Flat("small", 55))
    rows = [
        Row("a", "q10", "dlf", "", 10, 10, 100, scores={"psnr": 20, "ms_ssim": 0.5}),
        Row("a", "q10", "small", "", 10, 10, 50, over_budget=True, scores={"psnr": 22, "ms_ssim": 0.75}),
        Row("b", "q10", "dlf", "", 10, 10, 900, scores={"psnr": 99, "ms_ssim": 0.9}),
        Row("b", "q10", "small", "", error="no"),
    ]
    results = gather(rows, setup)
    assert results.pictures == 1
    lines = summary(results).splitlines()
    assert "| dlf | q10 | 8.0000 | 20.00 | 0.5000 |  |  |  |" in lines
    assert "| small | q10 | 4.0000 | 22.00 | 0.7500 | 1 |  |  |" in lines
    assert [line for line in lines if line.startswith("| best-of-formats | dlf |")] == [
        "| best-of-formats | dlf | – | – |"  # noqa: RUF001
    ]


ROWS = [
    Row('a, "b"\n.png', "q10", "dlf", "1f", 3, 4, 5, "3/16", 7, True, 0.5, 1, "", {"psnr": float("inf")}),
    Row("\udcff.png", "0.02", "avif", "", error="it, failed"),
]


def test_a_ledger_keeps_every_value(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    ledger = Ledger(path)
    for row in [*ROWS, ROWS[0]]:
        ledger.add(row)
    assert path.read_text().count("\n") == 2
    again = Ledger(path)
    assert again.find(ROWS[0].key, "1f") == ROWS[0]
    assert again.find(ROWS[0].key, "2f") is None
    assert again.find(ROWS[1].key, "") is None  # failed, so not finished


def test_a_row_cut_off_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [Row("a", "1", codec, "x", 1, 1, 1) for codec in "bcd"]
    ledger = Ledger(path)
    for row in rows[:2]:
        ledger.add(row)
    path.write_bytes(path.read_bytes()[:-9])
    ledger = Ledger(path)
    assert ledger.find(rows[0].key, "x") == rows[0]
    assert ledger.find(rows[1].key, "x") is None
    for row in rows[1:]:
        ledger.add(row)
    again = Ledger(path)
    assert [again.find(row.key, "x") for row in rows] == rows


def test_a_table(tmp_path: Path) -> None:
    text = table([*ROWS, Row("c", "1", "dlf", "", 8, 1, 3, scores={"x": 0.5})]).decode(
        "utf-8", "surrogateescape"
    )
    cells = list(csv.DictReader(io.StringIO(text)))
    assert [row["picture"] for row in cells] == [ROWS[0].picture, ROWS[1].picture, "c"]
    assert [row["bpp"] for row in cells] == ["3.333333", "", "3.000000"]
    assert [(row["psnr"], row["x"]) for row in cells] == [("inf", ""), ("", ""), ("", "0.5")]


@pytest.mark.parametrize("text", ["something else\n1\n", "[1]", '{"picture": 1}\n', '{"x": 1}', "\xff"])
def test_another_file_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match="does not hold the rows of an earlier run"):
        Ledger(path)
    assert path.read_text() == text


def test_rates_are_searched_for(folder: Path, tmp_path: Path) -> None:
    setup = comparison(None, Flat("small", 55), bpp=(0.2, 0.3))
    rows = list(run(setup, find_images(folder)[1:2], Ledger(tmp_path / "rows.jsonl")))  # 64 x 48
    assert [(row.target, row.codec, row.size, row.over_budget) for row in rows] == [
        ("0.2", "dlf", 76, False),  # 64 * 48 * 0.2 / 8 = 76.8
        ("0.2", "small", 55, False),
        ("0.3", "dlf", 115, False),
        ("0.3", "small", 55, False),
    ]
    assert rows[0].setting == 26
    rows = list(run(comparison(bpp=(0.01,)), find_images(folder), Ledger(tmp_path / "other.jsonl")))
    assert all(row.over_budget and row.size == 50 and row.setting == 0 for row in rows)


def test_several_pictures_at_a_time(folder: Path, tmp_path: Path) -> None:
    setup, pictures = comparison(None, Flat("small", 55)), find_images(folder)
    one = list(run(setup, pictures, Ledger(tmp_path / "a.jsonl")))
    three = list(run(setup, pictures, Ledger(tmp_path / "b.jsonl"), jobs=3))
    assert {(row.key, row.size, *row.scores.values()) for row in one} == {
        (row.key, row.size, *row.scores.values()) for row in three
    }


def test_a_new_metric_needs_no_new_files(folder: Path, tmp_path: Path) -> None:
    path, codec, files = tmp_path / "rows.jsonl", Counting(), tmp_path / "files"
    pictures = find_images(folder)
    setup = comparison(codec, Flat("small", 55), files=files)
    before = list(run(setup, pictures, Ledger(path)))
    assert codec.calls == 6
    other = Metric("other", "other", 2, PSNR.against, identity="other 1")
    wider = comparison(codec, Flat("small", 55), metrics=(PSNR, MS_SSIM, other), files=files)
    after = list(run(wider, pictures, Ledger(path)))
    assert codec.calls == 6
    assert [row.scores | {"other": row.scores["psnr"]} for row in before] == [row.scores for row in after]
    newer = Metric("other", "other", 2, MS_SSIM.against, identity="other 2")
    setup = comparison(codec, Flat("small", 55), metrics=(newer, MS_SSIM), files=files)
    assert all(row.scores["other"] == row.scores["ms_ssim"] for row in run(setup, pictures, Ledger(path)))


def test_files_are_kept(folder: Path, tmp_path: Path) -> None:
    codec, files = Counting(), tmp_path / "files"
    setup, pictures = comparison(codec, files=files), find_images(folder)
    rows = list(run(setup, pictures, Ledger(tmp_path / "rows.jsonl")))
    sizes = sorted(path.stat().st_size for path in files.rglob("*") if path.is_file())
    assert sizes == sorted(row.size for row in rows)
    bench = ImageBench(setup, pictures[1])
    row = next(row for row in rows if row.picture == "b.png")
    painted = bench.decoded(row)
    assert codec.calls == 6
    for path in files.rglob("*b.png*"):
        path.unlink()
    assert np.array_equal(bench.decoded(row), painted)
    assert codec.calls == 7


def test_a_sheet(folder: Path, tmp_path: Path) -> None:
    setup, pictures = comparison(None, Flat("small", 55), Flat("big", 80)), find_images(folder)
    rows = list(run(setup, pictures, Ledger(tmp_path / "rows.jsonl")))
    sheet = contact_sheet(gather(rows, setup, pictures), 2, "q50")
    assert sheet is not None
    pixels = np.asarray(sheet)
    with Image.open(folder / "b.png") as image:
        original = np.asarray(image)
    bottom, left = pixels[-54:-6], 70  # the last strip without its gap; the second column
    assert np.array_equal(bottom[:, :64], original)
    assert (bottom[:, left : left + 64] == int(original.mean())).all()
    assert (bottom[:, 2 * left : 2 * left + 64] == 100).all()
    assert sheet.width == 3 * 64 + 2 * 6
    assert contact_sheet(gather([], setup, pictures), 9, "q50") is None


def test_the_judge_chooses_the_scale(folder: Path, tmp_path: Path) -> None:
    reverse = Metric("stem", "stem distance", 4, PSNR.against, lower_is_better=True)
    chosen = []
    for judge in ("psnr", "stem"):
        setup = comparison(None, Flat("small", 55), metrics=(PSNR, reverse), judge=judge)
        rows = list(run(setup, find_images(folder)[:1], Ledger(tmp_path / f"{judge}.jsonl")))
        chosen.append(rows[1].scores["psnr"])
    assert chosen[0] >= chosen[1]
