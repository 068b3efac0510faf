"""Pictures from files and tar shards, decoded as they are drawn."""

# ruff: noqa: E402
from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

torch = pytest.importorskip("torch")

from dlf.errors import DlfError, TrainingError
from dlf.train.config import TrainConfig
from dlf.train.data import CropSampler, Prefetch, StreamSampler, load_images
from dlf.train.run import open_images
from dlf.train.shards import find_images

pytestmark = pytest.mark.torch

SHAPES = ((64, 64), (32, 96))


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def to_file(pixels: NDArray[np.uint8], kind: str = "png", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


PICTURES = {f"{n:04d}": picture(100 + 10 * n, 130, n) for n in range(5)}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards in the form of WebDataset: files of a sample share the name up to the first dot."""
    for shard, names in enumerate((["0000", "0001", "0002"], ["0003", "0004"])):
        members: dict[str, bytes] = {}
        for name in names:
            members[f"{name}.json"] = b'{"caption": "a picture"}'
            members[f"{name}.png"] = to_file(PICTURES[name])
            members[f"{name}.cls"] = b"7"
        write_shard(tmp_path / f"train-{shard:06d}.tar", members)
    return tmp_path


def test_shards_hold_the_pictures_of_files(shards: Path) -> None:
    found = find_images(shards)
    assert [file.name for file in found] == [f"{name}.png" for name in PICTURES]
    assert str(found[3]).endswith("train-000001.tar:0003.png")
    for file, pixels in zip(found, PICTURES.values(), strict=True):
        np.testing.assert_array_equal(file.pixels(), pixels)
    assert find_images(shards / "train-000001.tar") == found[3:]


def test_files_and_shards_of_a_folder_go_together(shards: Path) -> None:
    (shards / "more").mkdir()
    (shards / "more" / "extra.webp").write_bytes(to_file(picture(64, 64, 9), "webp"))
    assert [file.pixels().shape[0] for file in find_images(shards)] == [64, 100, 110, 120, 130, 140]


def test_a_damaged_shard_gives_what_lies_before(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = shards / "train-000000.tar"
    second = find_images(path)[1]
    data = bytearray(path.read_bytes())
    data[second.offset - 512 : second.offset] = b"x" * 512  # the header of that member
    path.write_bytes(data)
    assert [file.name for file in find_images(path)] == ["0000.png"]
    assert "damaged" in caplog.text
    path.write_bytes(data[: second.offset // 2])
    (only,) = find_images(path)
    with pytest.raises(DlfError):  # its second half is missing
        only.pixels()


def test_orientation_and_profile_are_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    pixels = picture(40, 64, 1)
    (tmp_path / "a.png").write_bytes(to_file(pixels, exif=exif))
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tmp_path / "b.png").write_bytes(to_file(pixels, icc_profile=srgb))
    (tmp_path / "c.png").write_bytes(to_file(pixels, icc_profile=linear))  # does not fit: ignored
    turned, plain, odd = load_images(find_images(tmp_path), 32)
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))
    assert np.abs(plain.astype(int) - pixels).max() <= 1
    np.testing.assert_array_equal(odd, pixels)


def stream(place: Path, seed: int = 0) -> StreamSampler:
    return StreamSampler(find_images(place), SHAPES, 2 * 64 * 64, seed)


def test_batches_depend_on_seed_step_and_part_alone(shards: Path) -> None:
    first, second = stream(shards), stream(shards)
    keys = [(5, 0), (0, 0), (5, 1), (7, 3), (5, 0), (10**6, 0)]
    for key in keys:
        a, b = first(*key), second(*key)
        assert a.crops == b.crops
        assert torch.equal(a.pixels, b.pixels)
        assert a.rng.integers(2**60) == b.rng.integers(2**60)
    assert len({first(5, part).crops for part in range(10)}) > 5
    for step in range(20):
        assert len({first(step, part).pixels.shape for part in range(3)}) == 1
    assert {crop.image for step in range(40) for crop in first(step).crops} == set(range(5))


def test_crops_are_those_of_pictures_in_memory(shards: Path) -> None:
    """All pictures can fill all shapes, so both samplers make the same choices."""
    memory = CropSampler(load_images(find_images(shards), 64), SHAPES, 2 * 64 * 64, 3)
    streamed = stream(shards, 3)
    for step in range(10):
        assert memory(step, 2).crops == streamed(step, 2).crops
        assert torch.equal(memory(step, 2).pixels, streamed(step, 2).pixels)


def test_what_cannot_be_used_is_skipped_and_counted(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = to_file(picture(96, 96, 3))
    write_shard(shards / "bad.tar", {"a.png": whole[:300], "b.jpg": b"no picture", "c.png": b""})
    (shards / "narrow.png").write_bytes(to_file(picture(200, 40, 2)))
    source = stream(shards)
    assert len(source.files) == 9
    with caplog.at_level(logging.WARNING, "dlf"):
        seen = {source.files[crop.image].name for step in range(60) for crop in source(step).crops}
    assert seen == {f"{name}.png" for name in PICTURES}
    assert source.skipped == 3
    assert sum("skipping" in record.message for record in caplog.records) == 3  # each read once


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(to_file(picture(40, 40, 0)))
    with pytest.raises(TrainingError, match="no image is usable for crops of 64x64"):
        StreamSampler(find_images(tmp_path), ((64, 64),), 4096, 0)(0)


def test_prepared_batches_are_the_same(shards: Path) -> None:
    direct = stream(shards)
    prefetch = Prefetch(stream(shards), range(1, 4, 2))
    for key in [(0, 1), (0, 3), (1, 1), (1, 3), (9, 0), (2, 1)]:
        assert torch.equal(prefetch(*key).pixels, direct(*key).pixels)
    assert len(prefetch._batches) <= 4
    prefetch.threads.shutdown()


def test_a_run_streams_where_its_configuration_says_so(shards: Path) -> None:
    config = TrainConfig("tiny", "joint", 4, SHAPES, 4096, None, None, stream=True, parts=2)  # type: ignore[arg-type]
    sampler, sample = open_images(config, shards, torch.device("cpu"))
    assert isinstance(sampler, Prefetch)
    assert len(sample) == 5
    assert sampler.parts == range(0, 2, 1)
    assert sampler(0, 1).pixels.shape[1] == 3
    sampler.threads.shutdown()
