"""Images, and random crops that depend on (seed, step, part) alone, so that a run can resume.

A sampler draws from images in memory (`CropSampler`), decodes them as they are needed (`StreamSampler`)
or cuts them on the training device (`dlf.train.device_sampler`); all skip what cannot be read, and count it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.errors import DlfError, TrainingError
from dlf.geometry import CELL
from dlf.train.shards import ImageFile

log = logging.getLogger(__name__)

Shape = tuple[int, int]

FRUITLESS = 1000  # draws in a row without a usable image before a run gives up
PREFETCHED = 4  # batches decoded before they are asked for


def load_images(files: Iterable[ImageFile], smallest: int) -> list[NDArray[np.uint8]]:
    """Decode to uint8 (H, W, 3); unreadable ones and those with a side under `smallest` are counted.

    Raises:
        TrainingError: nothing is left.
    """
    images: list[NDArray[np.uint8]] = []
    skipped = 0
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="images") as threads:
        decoded = list(threads.map(_decode, files))
    for pixels in decoded:
        if pixels is None or min(pixels.shape[:2]) < smallest:
            skipped += 1
        else:
            images.append(pixels)
    log.info("%d images in memory, %d skipped", len(images), skipped)
    if not images and not skipped:
        msg = "there are no images (JPEG, PNG, WebP or tar shards of them) in that folder"
        raise TrainingError(msg)
    if not images:
        msg = f"no usable image with both sides of at least {smallest} pixels"
        raise TrainingError(msg)
    return images


def _decode(file: ImageFile) -> NDArray[np.uint8] | None:
    """Pixels, or None with a line in the log."""
    try:
        return file.pixels()
    except (DlfError, OSError) as error:
        log.warning("skipping %s: %s", file, error)
        return None


@dataclass(frozen=True)
class Crop:
    """Where a crop was cut: image, top and left in latent cells, size in pixels, whether mirrored."""

    image: int
    top: int
    left: int
    height: int
    width: int
    mirrored: bool


@dataclass(frozen=True)
class Batch:
    """One step's crops.

    pixels: float32 (B, 3, height, width) in [0, 1], channels_last.  crops: their origins, or nothing where
    those are no cells of an image.
    rng: further random numbers of this step.
    """

    pixels: Tensor
    crops: tuple[Crop, ...]
    rng: np.random.Generator


class Sampler(Protocol):
    """Where a run takes its batches from."""

    @property
    def skipped(self) -> int:
        """How many images were left out so far because they cannot be read."""
        ...

    def __call__(self, step: int, part: int = 0) -> Batch:
        """One of the batches of a step; the same for the same seed, step and part."""
        ...


@dataclass(frozen=True)
class Draws:
    """Random choices of a batch: `rng`, the shape of its crops (one for all parts of a step), how many."""

    rng: np.random.Generator
    shape: Shape
    count: int

    @classmethod
    def of(cls, shapes: Sequence[Shape], pixels: int, key: tuple[int, int, int]) -> Draws:
        """key: seed, step, part."""
        seed, step, part = key
        rng = _generator(seed, step, 0)
        shape = shapes[int(rng.integers(len(shapes)))]
        if part:
            rng = _generator(seed, step, part)
        return cls(rng, shape, max(1, pixels // (shape[0] * shape[1])))

    def crop(self, image: int, size: tuple[int, ...]) -> Crop:
        """A place for a crop in an image of this size (height, width, ...)."""
        top, left = (
            int(self.rng.integers((side - want) // CELL + 1))
            for side, want in zip(size, self.shape, strict=False)
        )
        return Crop(image, top, left, *self.shape, mirrored=bool(self.rng.integers(2)))


def _generator(seed: int, step: int, part: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=(step << 64) + (part << 128)))


def eligible_images(sizes: Iterable[tuple[int, ...]], shapes: Sequence[Shape]) -> dict[Shape, list[int]]:
    """Which images can fill a crop of each shape; TrainingError for a shape that none can.

    sizes: of the images, (height, width, ...).
    """
    # a shape that few images can fill would draw those few again and again
    sides = list(sizes)
    fitting_shape = {
        shape: [i for i, size in enumerate(sides) if _fits(size, shape)] for shape in set(shapes)
    }
    for shape, fitting in fitting_shape.items():
        if not fitting:
            msg = f"no image is large enough for crops of {shape[0]}x{shape[1]}"
            raise TrainingError(msg)
    return fitting_shape


class CropSampler:
    """Random crops of images in memory; see `Sampler`."""

    skipped = 0  # counted when they were loaded

    def __init__(
        self, images: Sequence[NDArray[np.uint8]], shapes: Sequence[Shape], pixels: int, seed: int
    ) -> None:
        self.images, self.shapes, self.pixels, self.seed = images, shapes, pixels, seed
        self.eligible = eligible_images((image.shape for image in images), shapes)

    def __call__(self, step: int, part: int = 0) -> Batch:
        """See `Sampler`."""
        draws = Draws.of(self.shapes, self.pixels, (self.seed, step, part))
        eligible = self.eligible[draws.shape]
        crops: list[Crop] = []
        for _ in range(draws.count):
            index = eligible[int(draws.rng.integers(len(eligible)))]
            crops.append(draws.crop(index, self.images[index].shape))
        pixels = to_float([cut(self.images[crop.image], crop) for crop in crops])
        return Batch(pixels, tuple(crops), draws.rng)


class StreamSampler:
    """Random crops of images that are decoded when they are drawn; see `Sampler`."""

    def __init__(self, files: Sequence[ImageFile], shapes: Sequence[Shape], pixels: int, seed: int) -> None:
        self.files, self.shapes, self.pixels, self.seed = files, shapes, pixels, seed
        self.sizes: dict[int, tuple[int, ...]] = {}  # of the images seen; () where unreadable

    @property
    def skipped(self) -> int:
        """See `Sampler`."""
        return sum(size == () for size in list(self.sizes.values()))

    def __call__(self, step: int, part: int = 0) -> Batch:
        """See `Sampler`; raises TrainingError where no image is usable."""
        draws = Draws.of(self.shapes, self.pixels, (self.seed, step, part))
        crops: list[Crop] = []
        cuts, fruitless = [], 0
        while len(crops) < draws.count:
            index = int(draws.rng.integers(len(self.files)))
            pixels = self._fitting(index, draws.shape)
            if pixels is not None:
                crops.append(draws.crop(index, pixels.shape))
                cuts.append(cut(pixels, crops[-1]))
            fruitless = 0 if pixels is not None else fruitless + 1
            if fruitless == FRUITLESS:
                msg = f"no image is usable for crops of {draws.shape[0]}x{draws.shape[1]}"
                raise TrainingError(msg)
        return Batch(to_float(cuts), tuple(crops), draws.rng)

    def _fitting(self, index: int, shape: Shape) -> NDArray[np.uint8] | None:
        """Pixels of an image that can fill the shape; known misfits are not read again."""
        size = self.sizes.get(index)
        if size is not None and not _fits(size, shape):
            return None
        pixels = _decode(self.files[index])
        self.sizes[index] = () if pixels is None else pixels.shape
        return pixels if pixels is not None and _fits(pixels.shape, shape) else None


class Prefetch:
    """Lets threads prepare the batches that will be asked for next; see `Sampler`.

    Threads and not torch's DataLoader: decoders release the interpreter's lock, and batches need not travel
    between processes (docs/training.md, section 11).

    parts: of a step, which this process computes.
    """

    def __init__(self, sampler: Sampler, parts: range) -> None:
        self.sampler, self.parts = sampler, parts
        self.threads = ThreadPoolExecutor(PREFETCHED, thread_name_prefix="images")
        self._batches: dict[tuple[int, int], Future[Batch]] = {}

    @property
    def skipped(self) -> int:
        """See `Sampler`."""
        return self.sampler.skipped

    def __call__(self, step: int, part: int = 0) -> Batch:
        """See `Sampler`."""
        key, batches = (step, part), {}
        for _ in range(1 + PREFETCHED):
            batches[key] = self._batches.get(key) or self.threads.submit(self.sampler, *key)
            key = self._following(*key)
        self._batches = batches
        return self._batches.pop((step, part)).result()

    def _following(self, step: int, part: int) -> tuple[int, int]:
        after = part + self.parts.step
        return (step, after) if after < self.parts.stop else (step + 1, self.parts.start)


def cut(image: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Pixels of a crop: uint8 (height, width, 3)."""
    top, left = crop.top * CELL, crop.left * CELL
    pixels = image[top : top + crop.height, left : left + crop.width]
    return pixels[:, ::-1] if crop.mirrored else pixels


def _fits(size: tuple[int, ...], shape: Shape) -> bool:
    return len(size) > 0 and size[0] >= shape[0] and size[1] >= shape[1]


def whole_cells(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut an image at the right and bottom to whole latent cells."""
    height, width = (side // CELL * CELL for side in image.shape[:2])
    return np.ascontiguousarray(image[:height, :width])


def to_float(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """uint8 (H, W, 3) images of one size to float32 (B, 3, H, W) in [0, 1], channels_last."""
    stacked = torch.from_numpy(np.stack(images))
    return (
        stacked.permute(0, 3, 1, 2).to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)
    )


def all_to_device(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Arrays of the host as tensors on a device; see `to_device`."""
    return {name: to_device(torch.from_numpy(array), device) for name, array in arrays.items()}


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, without waiting for what that still has to do."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # from other memory the copy would wait
    return tensor.to(device, non_blocking=True)
