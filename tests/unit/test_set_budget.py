"""Images that share a number of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dlf
from cli_run import Done
from conftest import picture
from dlf.bitstream.header import Header
from dlf.cli import set_budget
from dlf.cli.names import Job
from dlf.codec.budget import encode_set
from dlf.codec.codec import StreamCodec
from dlf.errors import InvalidArgument, UnreachableSize
from dlf.records import UInt8

Load = Callable[[], tuple[UInt8, bytes]]


def loads(count: int, side: int = 260) -> list[Load]:
    """Images of different sizes; some have metadata."""

    def load(number: int) -> tuple[UInt8, bytes]:
        return picture(side + 32 * (number % 5), side), b"x" * (number % 3)

    return [lambda number=number: load(number) for number in range(count)]  # type: ignore[misc]


def qualities(files: list[bytes]) -> list[int]:
    return [Header.unpack(file)[0].quality for file in files]


def total_at(codec: StreamCodec, images: list[Load], quality: int) -> int:
    from dlf.bitstream import container

    return sum(len(container.dump(codec.encode_rgb(load()[0], quality, load()[1]))) for load in images)


@pytest.mark.parametrize(("count", "quality"), [(2, 3), (2, 17), (3, 8), (3, 30), (9, 12)])
def test_the_sum_is_near_and_never_above(codec: StreamCodec, count: int, quality: int) -> None:
    images = loads(count)
    total = total_at(codec, images, quality) + 5 * count
    files = encode_set(codec, images, total)
    assert 0.97 * total <= sum(map(len, files)) <= total
    assert len(files) == count
    if count > 3:  # else one of them may be encoded to what is left
        assert max(qualities(files)) - min(qualities(files)) <= 1
    for file, load in zip(files, images, strict=True):
        header = Header.unpack(file)[0]
        assert (header.height, header.width) == load()[0].shape[:2]


def test_one_image_is_a_file_of_that_size(codec: StreamCodec) -> None:
    (file,) = encode_set(codec, loads(1), 400)
    assert 388 <= len(file) <= 400


def test_totals_that_cannot_be(codec: StreamCodec) -> None:
    images = loads(3)
    low, high = total_at(codec, images, 0), total_at(codec, images, 100)
    with pytest.raises(UnreachableSize, match=rf"these 3 images .* the smallest have {low:,}"):
        encode_set(codec, images, low - 1)
    with pytest.raises(UnreachableSize, match=rf"these 3 images .* the largest have {high:,}"):
        encode_set(codec, images, 2 * high)
    assert sum(map(len, encode_set(codec, images, low - 1, best=True))) == low
    assert qualities(encode_set(codec, images, 2 * high, best=True)) == [100] * 3
    with pytest.raises(InvalidArgument, match="the files of 3 images have at least 36 bytes together"):
        encode_set(codec, images, 35)
    with pytest.raises(InvalidArgument, match="no image"):
        encode_set(codec, [], 1000)


def test_few_images_are_in_memory(codec: StreamCodec) -> None:
    """The first quality takes a few; then it is one at a time, whatever their number."""
    alive, most = set(), 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            alive.discard(id(self))

    def counting(load: Load) -> Load:
        def count() -> tuple[UInt8, bytes]:
            nonlocal most
            rgb, blob = load()
            counted = rgb.view(Counted)
            alive.add(id(counted))
            most = max(most, len(alive))
            return counted, blob

        return count

    images = loads(10, 100)
    encode_set(codec, [counting(load) for load in images], total_at(codec, images, 10))
    assert most <= 8


def test_front_door(mock_models: None, tmp_path: Path) -> None:
    pixels, _ = loads(2)[1]()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        files = dlf.Codec().encode_set([pixels, tmp_path / "a.png", file], 900)
    assert 873 <= sum(map(len, files)) <= 900
    assert dlf.decode(files[2]).size == (260, 292)


def test_command(dlf_beside: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, load in enumerate(loads(4)):
        Image.fromarray(load()[0]).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    done = dlf_beside("encode", "in", "-o", "out", "--total-bytes", 1600, "--json")
    assert done.code == 1  # for the one that is none
    assert done.err == "dlf: in/bad.png: this is not an image of a known format\n" + (
        "dlf: 1 of 5 inputs failed: in/bad.png\n"
    )
    rows = [json.loads(line) for line in done.text.splitlines()]
    assert sum("error" in row for row in rows) == 1
    sizes = [path.stat().st_size for path in (tmp_path / "out").iterdir()]
    assert sizes == [path.stat().st_size for path in (tmp_path / "out").glob("*.dlf")]
    assert 1552 <= sum(sizes) <= 1600
    assert sorted(row["bytes"] for row in rows if "bytes" in row) == sorted(sizes)

    again = dlf_beside("encode", "in/0.png", "in/1.png", "-o", "out", "--total-bytes", 900)
    assert again.code == 1
    assert "--overwrite replaces it" in again.err
    small = dlf_beside("encode", "in/0.png", "in/1.png", "-o", "new", "--total-bytes", 40)
    assert (small.code, small.err.count("\n")) == (1, 1)
    assert "these 2 images have about 40 bytes together" in small.err
    assert "(--best takes it)" in small.err
    assert not (tmp_path / "new").exists()
    for line in (["--total-bytes", 900, "-q", 3], ["--total-bytes", 900, "--jobs", 2], ["--total-bytes", 3]):
        assert dlf_beside("encode", "in", "-o", "new", *line).code == 2


def test_what_could_not_be_read_gets_no_file_beyond_the_total(
    dlf_beside: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that passes, such as a lack of memory, must not give it one of the usual quality later."""
    for number, load in enumerate(loads(2)):
        Image.fromarray(load()[0]).save(tmp_path / f"{number}.png")
    real = set_budget._source

    def source(job: Job, *others: Any, **options: Any) -> Any:
        if str(job.source) == "1.png":
            raise MemoryError
        return real(job, *others, **options)

    monkeypatch.setattr(set_budget, "_source", source)
    done = dlf_beside("encode", "0.png", "1.png", "-o", "out", "--total-bytes", 580)
    assert done.code == 1
    assert "1.png: there is not enough memory" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.dlf"]
