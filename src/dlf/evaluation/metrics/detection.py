"""Mean average precision of a detector on decoded images, against what it finds in the originals.

The average precision of COCO (overlaps 0.5 to 0.95, 101 recalls, mean over classes) through torchmetrics.
The truth are the objects of the original of which the detector is confident; on a decoded image all that
it finds counts with its score.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dlf.evaluation.metrics.sets import SetMetric
from dlf.evaluation.metrics.tasks import CONFIDENT, Detection, torchvision_detector
from dlf.extras import loaded
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "pip install torchmetrics pycocotools torchvision"
Find = Callable[[UInt8], list[Detection]]


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
    return SetMetric("objects_map", "objects mAP", 3, make, fewest=0, identity=identity)


class Agreement:
    """A `SetJudge`: collects decoded images and their originals."""

    def __init__(self, find: Find, make: Callable[[], Any]) -> None:
        self._find, self._make = find, make
        self._truth: dict[str, list[Detection]] = {}
        self._decoded: dict[str, list[Detection]] = {}

    def update(self, name: str, rgb: UInt8, *, real: bool) -> None:
        """Look at an image, uint8 (H, W, 3)."""
        detections = self._find(rgb)
        if real:
            self._truth[name] = [one for one in detections if one.score > CONFIDENT]
        else:
            self._decoded[name] = detections

    def compute(self) -> float:
        """Return the mean average precision, 0..1; not a number if the originals hold no objects."""
        names = list(self._decoded)
        if not any(self._truth[name] for name in names):
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of more than 100 boxes
            judge = self._make()
            predictions = [_record(self._decoded[name], scored=True) for name in names]
            judge.update(predictions, [_record(self._truth[name], scored=False) for name in names])
            return float(judge.compute()["map"])

    def reset(self) -> None:
        """Forget the decoded images."""
        self._decoded = {}


def _record(detections: list[Detection], *, scored: bool) -> dict[str, Tensor]:
    import torch

    record = {
        "boxes": torch.tensor([one.box for one in detections]).reshape(-1, 4),
        "labels": torch.tensor([one.label for one in detections], dtype=torch.int64),
    }
    return record | {"scores": torch.tensor([one.score for one in detections])} if scored else record
