"""Distances between two sets of images, FID and KID, on patches as in HiFiC and MS-ILLM.

Every image is cut into patches of 256 pixels without overlap, once from the corner and once from 128
pixels right and down (Mentzer et al. 2020, appendix A.7).  Through torchmetrics.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dlf.errors import MissingExtra
from dlf.evaluation.metrics.learned import with_weights
from dlf.evaluation.metrics.metric import Measure
from dlf.extras import loaded
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import nn

PATCH, SHIFT = 256, 128
INSTALL = "pip install torchmetrics torch-fidelity"
FEWEST = 2
"""Patches below which a set has no covariance."""

SUBSETS, SUBSET = 50, 1000
"""Subsets for KID, and patches in each."""


class SetJudge(Protocol):
    """Compares the decoded images of a codec with their originals, as a set."""

    def update(self, name: str, rgb: UInt8, *, real: bool) -> None:
        """Look at an image, uint8 (H, W, 3); real: it is an original, of the name that it has decoded too."""
        ...

    def compute(self) -> float:
        """Return the value."""
        ...

    def reset(self) -> None:
        """Forget the decoded images, not the originals."""
        ...


@dataclass(frozen=True)
class SetMetric(Measure):
    """One way to judge a set of images.

    make: takes the number of patches of all originals.  fewest: of these, below which there is no value.
    """

    make: Callable[[int], SetJudge]
    fewest: int = FEWEST


class PatchJudge:
    """A `SetJudge` over a metric of torchmetrics that takes patches; factor: for the value."""

    def __init__(self, metric: Any, factor: float = 1) -> None:
        self.metric, self._factor = metric, factor

    def update(self, name: str, rgb: UInt8, *, real: bool) -> None:
        """Look at the patches of an image."""
        import torch

        cut = patches(rgb)
        if len(cut):
            with torch.inference_mode():
                self.metric.update(torch.tensor(cut).permute(0, 3, 1, 2), real=real)

    def compute(self) -> float:
        """Return the value; what is drawn at random is drawn in the same way each time."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            value = self.metric.compute()  # of KID a mean and a deviation
        return self._factor * float(value[0] if isinstance(value, tuple) else value)

    def reset(self) -> None:
        """Forget the decoded images."""
        self.metric.reset()


def fid_metric(features: nn.Module | None = None, identity: str = "") -> SetMetric:
    """Frechet distance; features: uint8 (N, 3, 256, 256) to (N, D), None is Inception-v3 of torch-fidelity.

    Raises:
        MissingExtra: the library or the weights are not there.
    """
    library = loaded("torchmetrics.image.fid", INSTALL)
    chosen = 2048 if features is None else features

    def make(count: int) -> PatchJudge:
        return PatchJudge(library.FrechetInceptionDistance(feature=chosen, reset_real_features=False))

    return _checked("fid", "FID", 2, make, features is None, identity)


def kid_metric(features: nn.Module | None = None, identity: str = "") -> SetMetric:
    """Kernel distance, times 1000; features as `fid_metric`.

    Up to SUBSET patches count all at once; of more, the mean over SUBSETS subsets of SUBSET, drawn with a
    fixed seed.

    Raises:
        MissingExtra: the library or the weights are not there.
    """
    library = loaded("torchmetrics.image.kid", INSTALL)
    chosen = 2048 if features is None else features

    def make(count: int) -> PatchJudge:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells at each start that it needs memory
            metric = library.KernelInceptionDistance(
                feature=chosen,
                reset_real_features=False,
                subsets=SUBSETS if count > SUBSET else 1,
                subset_size=min(SUBSET, count),
            )
        return PatchJudge(metric, 1000)

    return _checked("kid", "KID x1000", 3, make, features is None, identity)


def stem_kid_metric(weights: Path) -> SetMetric:
    """Kernel distance over the first layers of Inception-v3; under its own name, for it is not KID.

    Raises:
        MissingExtra: torchmetrics or torch is not installed.
        WeightsError: the weights cannot be used.
    """
    from dlf.evaluation.metrics.feature_distance import stem_vectors

    vectors = stem_vectors(weights)
    metric = kid_metric(vectors, f"{zlib.crc32(weights.read_bytes()):08x}")
    return replace(metric, name="stem_kid", title="stem KID x1000", identity=f"stem_{metric.identity}")


def _checked(
    name: str, title: str, digits: int, make: Callable[[int], SetJudge], default: bool, identity: str
) -> SetMetric:
    if default:
        try:
            with_weights(f"Inception-v3 for {title}", lambda: make(FEWEST))
        except ModuleNotFoundError as error:
            msg = f"{title} needs torch-fidelity; run: {INSTALL}"
            raise MissingExtra(msg) from error
    identity = f"{name} {version('torchmetrics')} {identity}"
    return SetMetric(name, title, digits, make, lower_is_better=True, identity=identity)


def patches(rgb: UInt8) -> UInt8:
    """Return the patches of an image at both offsets, uint8 (n, 256, 256, 3); n may be 0."""
    cut = []
    for start in (0, SHIFT):
        part = rgb[start:, start:]
        rows, cols = part.shape[0] // PATCH, part.shape[1] // PATCH
        if rows and cols:
            part = part[: rows * PATCH, : cols * PATCH].reshape(rows, PATCH, cols, PATCH, 3)
            cut.append(part.swapaxes(1, 2).reshape(-1, PATCH, PATCH, 3))
    return np.concatenate(cut) if cut else np.empty((0, PATCH, PATCH, 3), np.uint8)


def patch_count(height: int, width: int) -> int:
    """Return how many patches an image has."""
    return sum(
        (height - start) // PATCH * ((width - start) // PATCH)
        for start in (0, SHIFT)
        if start < min(height, width)
    )
