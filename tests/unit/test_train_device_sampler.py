"""Crops that are cut on the device: the same pixels as on the host, and what shrinking does."""

# ruff: noqa: E402
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from dlf.errors import TrainingError
from dlf.train.device_sampler import DeviceSampler
from dlf.train.engine import Run
from dlf.train.run import open_images
from tiny_runs import CONFIG, make_stage

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]

CPU = torch.device("cpu")
SHAPES = ((64, 64), (32, 96))


def numbered() -> list[np.ndarray]:
    """Pictures whose pixels say where they are: (number and row, column, constant)."""
    images = []
    for number, (height, width) in enumerate(((96, 128), (64, 200), (70, 96))):
        rows, cols = np.mgrid[:height, :width]
        images.append(np.stack([rows + 100 * number // 2, cols, 0 * rows + number], -1).astype(np.uint8))
    return images


def test_without_shrinking_every_crop_is_a_part_of_its_picture() -> None:
    images = numbered()
    sampler = DeviceSampler(images, SHAPES, 8192, 3, CPU)
    seen, mirrored = set(), 0
    for step in range(12):
        batch = sampler(step)
        assert batch.pixels.dtype == torch.float32
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        assert tuple(batch.pixels.shape[2:]) in SHAPES
        assert len(batch.pixels) == 8192 // batch.pixels[0, 0].numel()
        assert batch.crops == ()
        for crop in (batch.pixels * 255).round().byte().permute(0, 2, 3, 1).numpy():
            number = int(crop[0, 0, 2])
            if crop[0, 0, 1] > crop[0, 1, 1]:
                crop, mirrored = crop[:, ::-1], mirrored + 1
            top, left = int(crop[0, 0, 0]) - 100 * number // 2, int(crop[0, 0, 1])
            height, width = crop.shape[:2]
            assert np.array_equal(crop, images[number][top : top + height, left : left + width])
            seen.add((number, top, left))
    assert {number for number, _, _ in seen} == {0, 1, 2}
    assert len({top for _, top, _ in seen}) > 5
    assert len({left for _, _, left in seen}) > 5
    assert 0 < mirrored < 12 * 2


def test_crops_depend_on_seed_step_and_part_alone() -> None:
    first, second = (DeviceSampler(numbered(), SHAPES, 8192, 3, CPU, 2.0) for _ in "ab")
    second(7)
    assert torch.equal(first(5).pixels, second(5).pixels)
    assert first(5).rng.random() == second(5).rng.random()
    assert not torch.equal(first(5, 1).pixels, first(5).pixels)
    other = DeviceSampler(numbered(), SHAPES, 8192, 4, CPU, 2.0)
    assert any(
        first(step).pixels.shape != other(step).pixels.shape
        or not torch.equal(first(step).pixels, other(step).pixels)
        for step in range(3)
    )


def test_shrinking_is_antialiased_and_what_pillow_does() -> None:
    """A whole picture shrunk three times: Pillow's bilinear filter has the same triangles."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (192, 192, 3), np.uint8)
    sampler = DeviceSampler([image], ((64, 64),), 4096, 0, CPU, 3.0)
    where = torch.tensor([[0.0], [192.0], [192.0], [0.0], [0.0], [3.0], [0.0]], dtype=torch.float64)
    found = (sampler._cut(where, (64, 64))[0] * 255).permute(1, 2, 0).numpy()
    wanted = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(found - wanted).max() <= 1.01  # Pillow rounds twice
    assert np.abs(found - image[1::3, 1::3]).mean() > 20  # one pixel in nine would be


def test_factors_are_drawn_as_far_as_pictures_allow() -> None:
    """A ramp over the columns has the factor as its slope."""
    ramp = np.zeros((400, 250, 3), np.uint8)
    ramp[:] = np.arange(250)[None, :, None]
    sampler = DeviceSampler([ramp], ((64, 64),), 64 * 64 * 32, 0, CPU, 8.0)
    slopes = (
        torch.cat([(p := sampler(s).pixels)[:, 0, 32, 40] - p[:, 0, 32, 20] for s in range(4)]) * 255 / 20
    )
    factors = slopes.abs()
    assert factors.min() == pytest.approx(1, abs=0.1)
    assert 3.3 < factors.max() <= 250 / 64 + 0.01
    assert 0.3 < float((factors < (250 / 64) ** 0.5).float().mean()) < 0.7
    assert (slopes < 0).any()
    assert (slopes > 0).any()


def test_no_picture_large_enough_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no image is large enough for crops of 256x256"):
        DeviceSampler(numbered(), ((256, 256),), 65536, 0, CPU)


def test_what_cannot_be_together_is_refused() -> None:
    with pytest.raises(ValueError, match="needs `sampler: device`"):
        replace(CONFIG, downscale=2.0, sampler="host")
    with pytest.raises(ValueError, match="must be at least 1"):
        replace(CONFIG, downscale=0.5)
    with pytest.raises(ValueError, match="streamed"):
        replace(CONFIG, stream=True, sampler="device")


@pytest.mark.parametrize("kind", ["tokenizer", "align"])
def test_a_run_takes_its_crops_from_the_device(kind: str, tmp_path: Path) -> None:
    """Chosen by the configuration; the align stage then computes its codes from the crops."""
    data = tmp_path / "data"
    data.mkdir()
    for number, pixels in enumerate(numbered()):
        Image.fromarray(pixels).save(data / f"{number}.png")
    changes = {"sampler": "device", "downscale": 1.5, "steps": 3}
    config, stage = make_stage(kind)
    config = replace(config, **changes)
    sampler, images = open_images(config, data, CPU)
    assert isinstance(sampler, DeviceSampler)
    assert len(images) == 3
    assert isinstance(open_images(replace(config, sampler="auto"), data, CPU)[0], DeviceSampler)
    plain = open_images(replace(config, sampler="auto", downscale=1.0), data, CPU)[0]
    assert not isinstance(plain, DeviceSampler)
    assert Run(config, stage, sampler, tmp_path / "run").train()
