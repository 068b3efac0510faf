"""Packed photos: below the size, the same twice, and what training reads."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from dlf.cli.main import main
from dlf.errors import TrainingError
from dlf.train.pack import QUALITIES, pack
from dlf.train.shards import find_images

pytestmark = pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")

COUNT = 12


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of several sizes, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(2)
    for number in range(COUNT):
        small = rng.integers(0, 256, (40, 60 - number, 3), np.uint8)
        size = (90, 60) if number == 0 else (300 + 10 * number, 200)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:02d}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


def test_all_pictures_at_the_best_quality_that_fits(photos: Path, tmp_path: Path) -> None:
    found = pack([photos], tmp_path / "a.tar", max_bytes=2_000_000, short_side=100)
    assert (found.taken, found.whole, found.unread, found.quality) == (COUNT, COUNT, 1, QUALITIES[0])
    assert found.size == (tmp_path / "a.tar").stat().st_size
    members = find_images(tmp_path / "a.tar")
    sides = sorted(min(member.pixels().shape[:2]) for member in members)
    assert sides == [60] + [100] * (COUNT - 1)  # shrunk, never enlarged
    again = pack([photos], tmp_path / "b.tar", max_bytes=2_000_000, short_side=100)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert again.quality == found.quality
    worse = pack([photos], tmp_path / "c.tar", max_bytes=int(0.9 * found.size), short_side=100)
    assert worse.taken == COUNT
    assert worse.quality < found.quality
    assert worse.size <= 0.9 * found.size


def test_what_another_shard_has_is_left_out(photos: Path, tmp_path: Path) -> None:
    shards = [tmp_path / name for name in ("all.tar", "first.tar", "rest.tar")]
    pack([photos], shards[0], max_bytes=2_000_000, short_side=60)
    pack([photos], shards[1], max_bytes=2_000_000, short_side=60, most=3)
    pack([photos], shards[2], max_bytes=2_000_000, short_side=60, skip=3)
    pixels = [[m.pixels().tobytes() for m in find_images(shard)] for shard in shards]
    assert pixels[1] + pixels[2] == pixels[0]
    with pytest.raises(TrainingError, match="99 are to be left out"):
        pack([photos], tmp_path / "none.tar", max_bytes=2_000_000, short_side=60, skip=99)


def test_pictures_are_left_out_when_nothing_else_helps(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "few.tar"
    assert main(["pack", str(photos), "-o", str(target), "--max-mb", "0.03", "--short-side", "200"]) == 0
    said = capsys.readouterr().out
    assert target.stat().st_size <= 30_000
    with tarfile.open(target) as archive:
        names = archive.getnames()
    assert 0 < len(names) < COUNT
    assert names[0] == "000000.webp"
    assert f" {len(names)} of 1" in said  # whether the broken one was met is left to the order
    assert f"quality {QUALITIES[-1]}" in said
    assert said.count("\n") == 1
    assert [path.name for path in target.parent.iterdir()] == ["few.tar"]


def test_nothing_to_pack_is_a_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError, match=r"not one image fits into 0\.015 MB"):
        pack([photos], tmp_path / "x.tar", max_bytes=15_000, short_side=200)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    assert main(["pack", str(tmp_path / "empty"), "-o", str(tmp_path / "x.tar")]) == 1
    assert "there are no images in" in capsys.readouterr().err
    (tmp_path / "empty" / "bad.png").write_bytes(b"\x89PNG")
    assert main(["pack", str(tmp_path / "empty"), "-o", str(tmp_path / "x.tar")]) == 1
    assert "not one image can be read" in capsys.readouterr().err
    (tmp_path / "file").write_text("no folder")
    assert main(["pack", str(photos), "-o", str(tmp_path / "file" / "x.tar")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert main(["pack", str(photos), "-o", "x.tar", "--max-mb", "-2"]) == 2
    assert "megabytes" in capsys.readouterr().err
