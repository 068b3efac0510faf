"""Photos on the training device as bytes; crops are cut, shrunk and mirrored there, a batch at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.errors import TrainingError
from dlf.train.data import Batch, Draws, Shape, eligible_images, to_device

log = logging.getLogger(__name__)


class DeviceSampler:
    """Random crops of images that lie on a device; see `dlf.train.data.Sampler`.

    The random numbers are the host's, a few for each crop, so that crops depend on seed, step and part
    alone, whatever the device.

    downscale: largest factor by which a crop is shrunk, 1 for none.  It is drawn for each crop,
    logarithmically even, as far as the image is large enough.
    """

    skipped = 0  # counted when they were loaded

    def __init__(
        self,
        images: Sequence[NDArray[np.uint8]],
        shapes: Sequence[Shape],
        pixels: int,
        seed: int,
        device: torch.device,
        downscale: float = 1.0,
    ) -> None:
        self.sizes = np.array([image.shape[:2] for image in images])
        self._choose(shapes, pixels, seed, downscale)
        counts = self.sizes.prod(1)
        self.starts = np.concatenate([[0], counts.cumsum()[:-1]])
        # one after the other, so that the host never holds them twice
        self.bytes = torch.empty(int(counts.sum()), 3, dtype=torch.uint8, device=device)
        for start, count, image in zip(self.starts, counts, images, strict=True):
            flat = torch.from_numpy(np.array(image)).reshape(-1, 3)  # a copy, for torch wants to write
            self.bytes[start : start + count].copy_(flat)
        log.info("%.1f MB of images on %s", self.bytes.numel() / 1e6, device)

    def _choose(self, shapes: Sequence[Shape], pixels: int, seed: int, downscale: float) -> None:
        self.shapes, self.pixels, self.seed, self.downscale = shapes, pixels, seed, downscale
        eligible = eligible_images(map(tuple, self.sizes), shapes)
        self.eligible = {shape: np.array(indices) for shape, indices in eligible.items()}

    def again(self, shapes: Sequence[Shape], pixels: int, seed: int, downscale: float) -> DeviceSampler:
        """Other crops of the same images, which stay where they lie."""
        other = copy(self)
        other._choose(shapes, pixels, seed, downscale)
        return other

    def __call__(self, step: int, part: int = 0) -> Batch:
        """See `Sampler`; `Batch.crops` is empty, for a crop may be a shrunk one."""
        draws = Draws.of(self.shapes, self.pixels, (self.seed, step, part))
        numbers = draws.rng.random((5, draws.count))
        eligible = self.eligible[draws.shape]
        index = eligible[(numbers[0] * len(eligible)).astype(np.int64)]
        sizes, shape = self.sizes[index], np.array(draws.shape)
        largest = np.minimum(self.downscale, (sizes / shape).min(1))
        factor = largest ** numbers[1]
        # whole rows and columns where nothing is shrunk
        corner = np.floor(numbers[2:4].T * (sizes - shape * factor[:, None] + 1).clip(1))
        corner = np.minimum(corner, sizes - shape * factor[:, None]).clip(0)
        table = np.stack([self.starts[index], *sizes.T, *corner.T, factor, numbers[4] < 0.5])
        # one small copy to the device
        where = to_device(torch.from_numpy(table), self.bytes.device)
        return Batch(self._cut(where, draws.shape), (), draws.rng)

    def _cut(self, where: Tensor, shape: Shape) -> Tensor:
        """Crops at starts, heights, widths, tops, lefts, factors, mirrored (7, B), float64."""
        start, _, width, _, _, factor, mirrored = where
        (rows, down), (cols, across) = (
            taps(where[1 + axis], where[3 + axis], factor, side, self.downscale)
            for axis, side in enumerate(shape)
        )
        place = start[:, None, None] + rows[:, :, None] * width[:, None, None] + cols[:, None, :]
        crops = self.bytes[place.long()].float()
        if self.downscale > 1:
            batch, height = crops.shape[:2]
            crops = torch.bmm(down, crops.reshape(batch, height, -1)).reshape(batch, shape[0], -1, 3)
            crops = torch.einsum("bhwc,bvw->bhvc", crops, across)
        mirror = mirrored.bool()[:, None, None, None]
        crops = torch.where(mirror, crops.flip(2), crops).div_(255).clamp_(0, 1)
        # channels last, as the networks want it
        return crops.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def taps(size: Tensor, first: Tensor, factor: Tensor, count: int, largest: float) -> tuple[Tensor, Tensor]:
    """Places along one side of an image that a crop needs, and their weights for each of its pixels.

    size: of the side (B,).  first: where the crop starts (B,), in pixels.  factor: of shrinking (B,), at
    most `largest`.  count: pixels of the crop.  Returns places (B, n), clamped to the side, and weights
    (B, count, n) float32: triangles as wide as the factor, so that nothing is aliased; each row sums to 1.
    """
    n = count if largest == 1 else int(np.ceil(count * largest)) + 2
    steps = torch.arange(n, device=size.device, dtype=torch.float64)
    places = first.floor()[:, None] + steps
    centres = first[:, None] + (torch.arange(count, device=size.device) + 0.5) * factor[:, None] - 0.5
    distance = (places[:, None, :] - centres[:, :, None]).abs() / factor[:, None, None]
    weights = (1 - distance).clamp(min=0) * (places < size[:, None])[:, None, :]
    places = torch.minimum(places, size[:, None] - 1)
    return places, (weights / weights.sum(-1, keepdim=True)).float()


def fits_device(images: Sequence[NDArray[np.uint8]], device: torch.device) -> None:
    """Raise TrainingError if a GPU has no room for the images and something beside them."""
    if device.type != "cuda":
        return
    needed, (free, _) = sum(image.nbytes for image in images), torch.cuda.mem_get_info(device)
    if needed > free / 2:
        msg = (
            f"the images take {needed / 1e9:.1f} GB and the GPU has {free / 1e9:.1f} GB free: "
            "set `sampler: host`, or train on fewer or smaller ones"
        )
        raise TrainingError(msg)
