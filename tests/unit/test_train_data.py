"""Pictures, crops, cached latents."""

# ruff: noqa: E402
from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")

from dlf.errors import TrainingError
from dlf.nn.build import TINY
from dlf.nn.model import Dlf
from dlf.train.align_stage import LatentCache
from dlf.train.data import Crop, CropSampler, cut, load_images, to_float
from dlf.train.shards import find_images

pytestmark = pytest.mark.torch


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blobs rather than white noise, so that the tokenizer finds several codes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    Image.fromarray(noise(96, 128)).save(tmp_path / "b.PNG")
    Image.fromarray(noise(64, 64)).save(tmp_path / "inner" / "a.jpg")
    Image.fromarray(noise(96, 96)).convert("L").save(tmp_path / "inner" / "grey.webp")
    Image.fromarray(noise(200, 40)).save(tmp_path / "narrow.png")
    whole = (tmp_path / "b.PNG").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "readme.txt").write_text("not even named like one")
    return tmp_path


def test_unusable_pictures_are_skipped_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = find_images(folder)
    assert paths == sorted(paths)
    assert len(paths) == 7
    with caplog.at_level(logging.INFO, "dlf"):
        images = load_images(paths, 64)
    assert sorted(image.shape for image in images) == [(64, 64, 3), (96, 96, 3), (96, 128, 3)]
    assert all(image.dtype == np.uint8 for image in images)
    assert "3 images in memory, 4 skipped" in caplog.text
    for name in ("cut.png", "text.jpg", "empty.png"):
        assert name in caplog.text


def test_no_picture_at_all_is_an_error(folder: Path) -> None:
    with pytest.raises(TrainingError, match="no usable image"):
        load_images(find_images(folder), 1000)


SHAPES = ((64, 64), (32, 96))


def sampler(seed: int = 0, pixels: int = 2 * 64 * 64) -> CropSampler:
    return CropSampler([noise(100, 130), noise(64, 64, 1), noise(250, 97, 2)], SHAPES, pixels, seed)


def test_batches_depend_on_seed_and_step_alone() -> None:
    first, second = sampler(), sampler()
    for step in (5, 0, 7, 5, 10**6):
        a, b = first(step), second(step)
        assert a.crops == b.crops
        assert torch.equal(a.pixels, b.pixels)
        assert a.rng.integers(2**60) == b.rng.integers(2**60)
    assert len({first(step).crops for step in range(20)}) > 15
    assert sum(first(step).crops == sampler(1)(step).crops for step in range(20)) < 5


def test_crops_lie_within_pictures_that_can_fill_them() -> None:
    source = sampler()
    seen = set()
    for step in range(80):
        batch = source(step)
        height, width = batch.pixels.shape[2:]
        seen.add((height, width))
        assert len(batch.crops) == 2 * 64 * 64 // (height * width)
        assert batch.pixels.dtype == torch.float32
        for crop, pixels in zip(batch.crops, batch.pixels, strict=True):
            image = source.images[crop.image]
            top, left = 32 * crop.top, 32 * crop.left
            cut = image[top : top + height, left : left + width]
            assert cut.shape[:2] == (height, width) == (crop.height, crop.width)
            cut = cut[:, ::-1] if crop.mirrored else cut
            np.testing.assert_array_equal((pixels * 255).round().permute(1, 2, 0).numpy(), cut)
    assert seen == set(SHAPES)
    crops = [crop for step in range(80) for crop in source(step).crops]
    assert {crop.mirrored for crop in crops} == {False, True}
    assert {crop.image for crop in crops} == {0, 1, 2}


def test_a_crop_larger_than_the_budget_still_comes_alone() -> None:
    assert len(sampler(pixels=1)(0).crops) == 1


def test_crops_that_no_picture_can_fill_are_an_error() -> None:
    with pytest.raises(TrainingError, match="256x32"):
        CropSampler([noise(100, 100)], [(64, 64), (256, 32)], 4096, 0)


@pytest.fixture(scope="module")
def tokenizer() -> Dlf:
    torch.manual_seed(9)
    model = Dlf(TINY).eval()
    with torch.no_grad():
        z = torch.cat(
            [model.vqgan.encode(to_float([noise(256, 256, i)]) * 2 - 1).reshape(-1, 8) for i in (1, 2)]
        )
        model.vqgan.quantize.seed(z)
    return model


IMAGE = noise(370, 460, 3)  # no multiple of a cell


def directly(model: Dlf, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    with torch.no_grad():
        z = model.vqgan.encode(to_float([np.ascontiguousarray(pixels)]) * 2 - 1)
    return model.vqgan.quantize.nearest(z)[0].numpy()


def test_cached_latents_are_those_of_the_whole_picture(tokenizer: Dlf) -> None:
    cache = LatentCache(tokenizer, [noise(64, 64), IMAGE], bf16=False)
    plain, mirrored = cache.maps[1]
    assert plain.shape == mirrored.shape == (352 // 16, 448 // 16)
    assert plain.dtype == np.uint16
    np.testing.assert_array_equal(plain, directly(tokenizer, IMAGE[:352, :448]))
    np.testing.assert_array_equal(mirrored, directly(tokenizer, IMAGE[:352, :448][:, ::-1]))
    assert len(np.unique(plain)) > 4


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (2, 3), (3, 6), (1, 0)])
def test_cut_of_cached_latents_fits_the_crop(top: int, left: int, mirrored: bool, tokenizer: Dlf) -> None:
    """Away from its borders, where the tokenizer sees more of the picture than of the crop."""
    cache = LatentCache(tokenizer, [IMAGE], bf16=False)
    crop = Crop(0, top, left, 256, 256, mirrored)
    found = cache([crop])
    assert found.shape == (1, 16, 16)
    assert found.dtype == torch.int64
    wanted = directly(tokenizer, cut(IMAGE, crop))
    inner = (slice(5, -5), slice(5, -5))
    np.testing.assert_array_equal(found[0].numpy()[inner], wanted[inner])
    # exactly the places of the picture's map; of the mirrored picture's map, counted from its right
    whole = directly(tokenizer, IMAGE[:352, :448][:, ::-1] if mirrored else IMAGE[:352, :448])
    start = 28 - 2 * left - 16 if mirrored else 2 * left
    np.testing.assert_array_equal(found[0].numpy(), whole[2 * top : 2 * top + 16, start : start + 16])
