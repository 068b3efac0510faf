"""Mean average precision of a detector on decoded pictures, against what it finds in the originals.

The average precision of COCO (overlaps 0.5 to 0.95, 101 recalls, mean over classes) through torchmetrics.
The truth are the objects of the original of which the detector is confident; on a decoded picture all that
it finds counts with its score.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dlf.evaluation.metrics.sets import SetMetric
from dlf.evaluation.metrics.tasks import CONFIDENT, Found, torchvision_detector
from dlf.extras import loaded
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "pip install torchmetrics pycocotools torchvision"
Find = Callable[[UInt8], list[Found]]


def objects_map_metric() -> SetMetric:
    """Precision of torchvision's Faster R-CNN over ResNet-50, 0..1.

    Raises:
        MissingExtra: a library or the weights are not there.
    """
    library = loaded("torchmetrics.detection", INSTALL)
    for module in ("pycocotools", "torchvision"):
        loaded(module, INSTALL)
    return map_metric(torchvision_detector(), library, f"fasterrcnn {version('torchvision')}")


def map_metric(find: Find, library: Any, identity: str) -> SetMetric:
    """Return the metric of a detector; library: the module `torchmetrics.detection`."""
    identity = f"objects_map {version('torchmetrics')} {identity}"
    make = lambda count: Agreement(find, library.MeanAveragePrecision)  # noqa: E731
    return SetMetric("objects_map", "objects mAP", 3, identity, make, lower_is_better=False, whole=True)


class Agreement:
    """Collects decoded pictures and their originals, as `SetMetric` says."""

    def __init__(self, find: Find, make: Callable[[], Any]) -> None:
        self._find, self._make = find, make
        self._truth: dict[str, list[Found]] = {}
        self._found: dict[str, list[Found]] = {}

    def update(self, name: str, rgb: UInt8, *, real: bool) -> None:
        """Look at a picture, uint8 (H, W, 3)."""
        found = self._find(rgb)
        if real:
            self._truth[name] = [one for one in found if one.score > CONFIDENT]
        else:
            self._found[name] = found

    def compute(self) -> float:
        """Return the mean average precision, 0..1; not a number if the originals hold no objects."""
        names = list(self._found)
        if not any(self._truth[name] for name in names):
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of more than 100 boxes
            judge = self._make()
            predictions = [_record(self._found[name], scored=True) for name in names]
            judge.update(predictions, [_record(self._truth[name], scored=False) for name in names])
            return float(judge.compute()["map"])

    def reset(self) -> None:
        """Forget the decoded pictures."""
        self._found = {}


def _record(found: list[Found], *, scored: bool) -> dict[str, Tensor]:
    import torch

    record = {
        "boxes": torch.tensor([one.box for one in found]).reshape(-1, 4),
        "labels": torch.tensor([one.label for one in found], dtype=torch.int64),
    }
    return record | {"scores": torch.tensor([one.score for one in found])} if scored else record
