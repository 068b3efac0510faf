"""Pictures in memory and random crops that depend on (seed, step) alone, so that a run can resume."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dlf.geometry import CELL

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def find_images(folder: Path) -> list[Path]:
    """All pictures below `folder`, sorted by path."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def load_images(paths: Iterable[Path], smallest: int) -> list[NDArray[np.uint8]]:
    """Decode to uint8 (H, W, 3); unreadable ones and those with a side under `smallest` are counted."""
    images: list[NDArray[np.uint8]] = []
    skipped = 0
    for path in paths:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            log.warning("skipping %s: %s", path, error)
            skipped += 1
            continue
        if min(pixels.shape[:2]) < smallest:
            skipped += 1
            continue
        images.append(pixels)
    log.info("%d pictures in memory, %d skipped", len(images), skipped)
    if not images:
        msg = f"no usable picture with both sides of at least {smallest} pixels"
        raise ValueError(msg)
    return images


@dataclass(frozen=True)
class Crop:
    """Where a crop was cut: picture, top and left in latent cells, size in pixels, whether mirrored."""

    image: int
    top: int
    left: int
    height: int
    width: int
    mirrored: bool


@dataclass(frozen=True)
class Batch:
    """One step's crops.

    pixels: float32 (B, 3, height, width) in [0, 1], channels_last.  crops: their origins.
    rng: further random numbers of this step.
    """

    pixels: Tensor
    crops: tuple[Crop, ...]
    rng: np.random.Generator


class CropSampler:
    """Random crops of pictures in memory."""

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        shapes: Sequence[tuple[int, int]],
        pixels: int,
        seed: int,
    ) -> None:
        self.images, self.shapes, self.pixels, self.seed = images, shapes, pixels, seed
        # a shape that few pictures can fill would draw those few again and again
        self.eligible = {
            shape: [i for i, image in enumerate(images) if _fits(image, shape)] for shape in set(shapes)
        }
        for shape, fitting in self.eligible.items():
            if not fitting:
                msg = f"no picture is large enough for crops of {shape[0]}x{shape[1]}"
                raise ValueError(msg)

    def __call__(self, step: int) -> Batch:
        """The batch of one step; the same for the same seed and step."""
        rng = np.random.Generator(np.random.Philox(key=self.seed, counter=step << 64))
        shape = self.shapes[int(rng.integers(len(self.shapes)))]
        count = max(1, self.pixels // (shape[0] * shape[1]))
        crops = tuple(self._draw(rng, shape) for _ in range(count))
        return Batch(to_float([self.cut(c) for c in crops]), crops, rng)

    def _draw(self, rng: np.random.Generator, shape: tuple[int, int]) -> Crop:
        eligible = self.eligible[shape]
        index = eligible[int(rng.integers(len(eligible)))]
        top, left = (
            int(rng.integers((side - want) // CELL + 1))
            for side, want in zip(self.images[index].shape, shape, strict=False)
        )
        return Crop(index, top, left, *shape, mirrored=bool(rng.integers(2)))

    def cut(self, crop: Crop) -> NDArray[np.uint8]:
        """Pixels of a crop: uint8 (height, width, 3)."""
        top, left = crop.top * CELL, crop.left * CELL
        pixels = self.images[crop.image][top : top + crop.height, left : left + crop.width]
        return pixels[:, ::-1] if crop.mirrored else pixels


def _fits(image: NDArray[np.uint8], shape: tuple[int, int]) -> bool:
    return image.shape[0] >= shape[0] and image.shape[1] >= shape[1]


def whole_cells(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut a picture at the right and bottom to whole latent cells."""
    height, width = (side // CELL * CELL for side in image.shape[:2])
    return np.ascontiguousarray(image[:height, :width])


def to_float(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 (H, W, 3) pictures of one size to float32 (B, 3, H, W) in [0, 1], channels_last."""
    stacked = torch.from_numpy(np.stack(images))
    return (
        stacked.permute(0, 3, 1, 2).to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)
    )
