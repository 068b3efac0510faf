"""What survives for programs that look at the images: faces, text, classes, objects.

Each is a `Metric` whose truth is what the same program finds in the original; where that is nothing, the
value is not a number and the image does not count.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dlf.errors import MissingExtra
from dlf.evaluation.metrics.learned import with_weights
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.evaluation.metrics.pixels import png
from dlf.extras import loaded, need
from dlf.records import UInt8

CASCADE = "haarcascade_frontalface_default.xml"
NOTHING = float("nan")
SAME = 0.5
"""Overlap (intersection over union) from which two boxes are the same object."""

CONFIDENT = 0.5
FACE = 0  # label of the only class of a face detector
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Detection:
    """A box with an object of a class, and how sure the detector is, 0..1."""

    box: Box
    label: int
    score: float


def faces_metric() -> Metric:
    """Share of the faces of the original that are found again, 0..1, by the cascade that OpenCV has inside.

    Raises:
        MissingExtra: OpenCV is not installed or has no cascades (version 5 has none).
    """
    cv2 = loaded("cv2", "pip install 'opencv-python-headless<5'")
    path = Path(cv2.__file__).parent / "data" / CASCADE
    if not path.exists() or not hasattr(cv2, "CascadeClassifier"):
        msg = "this OpenCV has no cascade of faces; run: pip install 'opencv-python-headless<5'"
        raise MissingExtra(msg)

    def find(image: UInt8) -> list[Detection]:
        # made anew each time, for one cannot be used by two threads
        boxes = cv2.CascadeClassifier(str(path)).detectMultiScale(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
        return [
            Detection((float(x), float(y), float(x + w), float(y + h)), FACE, 1.0) for x, y, w, h in boxes
        ]

    return _recall("faces", "faces found", f"faces {cv2.__version__}", find)


def objects_metric() -> Metric:
    """Agreement (F1 at half overlap, same class) with the objects found in the original, 0..1.

    Faster R-CNN over ResNet-50 of torchvision.  Raises MissingExtra.
    """
    find = torchvision_detector()

    def confident(image: UInt8) -> list[Detection]:
        return [one for one in find(image) if one.score > CONFIDENT]

    identity = f"objects {version('torchvision')}"
    return _recall("objects", "objects F1", identity, confident, harmonic=True)


def torchvision_detector() -> Callable[[UInt8], list[Detection]]:
    """Return Faster R-CNN over ResNet-50 of torchvision, trained on COCO; raises MissingExtra."""
    detection = loaded("torchvision.models.detection", "pip install torchvision")
    model = with_weights(
        "torchvision's fasterrcnn_resnet50_fpn",
        lambda: detection.fasterrcnn_resnet50_fpn(weights="DEFAULT").eval(),
    )
    return detector(model)


def detector(model: Any) -> Callable[[UInt8], list[Detection]]:
    """Return the function that lists what a torchvision detector finds in uint8 (H, W, 3), best first."""
    import torch

    def find(image: UInt8) -> list[Detection]:
        with torch.inference_mode():
            output = model([torch.tensor(image).permute(2, 0, 1).float() / 255])[0]
        parts = (output[name].tolist() for name in ("boxes", "labels", "scores"))
        return [
            Detection((b[0], b[1], b[2], b[3]), label, score) for b, label, score in zip(*parts, strict=True)
        ]

    return find


def classes_metric() -> Metric:
    """Whether the most likely of 1000 classes is that of the original, 0 or 1; torchvision's ResNet-50.

    Raises:
        MissingExtra: torchvision or its weights are not there.
    """
    models = loaded("torchvision.models", "pip install torchvision")
    weights = models.ResNet50_Weights.DEFAULT
    model = with_weights("torchvision's resnet50", lambda: models.resnet50(weights=weights).eval())
    return classifier(model, weights.transforms(), f"classes {version('torchvision')}")


def classifier(model: Any, prepare: Any, identity: str) -> Metric:
    """Return the metric of a network that gives (1, classes); prepare: image (1, 3, H, W) to its input."""
    import torch

    def name(image: UInt8) -> int:
        with torch.inference_mode():
            return int(model(prepare(torch.tensor(image).permute(2, 0, 1)[None])).argmax())

    def against(original: UInt8) -> Score:
        original_class = name(original)
        return lambda image: float(name(image) == original_class)

    return Metric("classes", "same class", 3, against, identity=identity)


def text_metric() -> Metric:
    """Share of characters that tesseract reads otherwise than in the original, 0..1 (more count as 1).

    Raises:
        MissingExtra: the program or rapidfuzz is not installed.
    """
    need("rapidfuzz", "eval")
    program = shutil.which("tesseract")
    if program is None:
        msg = "the metric text needs the program tesseract: install tesseract-ocr"
        raise MissingExtra(msg)
    process = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace")
    release = process.stdout.partition("\n")[0]

    def against(original: UInt8) -> Score:
        text = read(program, original)
        return lambda image: character_error(text, read(program, image)) if text else NOTHING

    return Metric("text", "text error", 3, against, lower_is_better=True, identity=f"text 2 {release}")


def read(program: str, image: UInt8) -> str:
    """Return the text that tesseract finds, blanks as one; "" where it fails."""
    command = [program, "-", "-", "--psm", "11"]
    process = subprocess.run(command, input=png(image), capture_output=True)
    return " ".join(process.stdout.decode(errors="replace").split())


def character_error(truth: str, read: str) -> float:
    """Return Levenshtein's distance as a share of the characters of `truth`, at least one; 0..1.

    It is how many characters must be replaced, put in or left out at the least.  More than all count as 1.

    Raises:
        MissingExtra: rapidfuzz is not installed.
    """
    distance: int = need("rapidfuzz.distance", "eval").Levenshtein.distance(truth, read)
    return min(1.0, distance / len(truth))


def _recall(
    name: str,
    title: str,
    identity: str,
    find: Callable[[UInt8], list[Detection]],
    *,
    harmonic: bool = False,
) -> Metric:
    """Make the metric of a detector: recall, or F1 if harmonic."""

    def against(original: UInt8) -> Score:
        truth = find(original)

        def score(image: UInt8) -> float:
            if not truth:
                return NOTHING
            detections = find(image)
            same = matches(truth, detections)
            return 2 * same / (len(truth) + len(detections)) if harmonic else same / len(truth)

        return score

    return Metric(name, title, 3, against, identity=identity)


def matches(truth: Sequence[Detection], detections: Sequence[Detection]) -> int:
    """Return how many of `truth` have a box of the same class in `detections`, each used once, best first."""
    pairs = sorted(
        (
            (overlap(a.box, b.box), i, j)
            for i, a in enumerate(truth)
            for j, b in enumerate(detections)
            if a.label == b.label
        ),
        reverse=True,
    )
    left, right = set(), set()
    for value, i, j in pairs:
        if value >= SAME and i not in left and j not in right:
            left.add(i)
            right.add(j)
    return len(left)


def overlap(a: Box, b: Box) -> float:
    """Return the intersection of two boxes over their union, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [float(np.prod([box[2] - box[0], box[3] - box[1]])) for box in (a, b)]
    return width * height / (sum(areas) - width * height)
