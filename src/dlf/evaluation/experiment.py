"""The front door: what is asked for, and the results of it.

results = evaluate(EvaluationRequest("photos", codecs=("dlf", "avif"), bpp=(0.02, 0.04)))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from dlf.errors import MissingExtra, SpecError
from dlf.evaluation.codecs.specs import CodecSpec, open_codec, parse_codec
from dlf.evaluation.comparison import Comparison, Target
from dlf.evaluation.complexity import measured
from dlf.evaluation.curves import HULL, common
from dlf.evaluation.dataset import ImageFile, check_set, find_images
from dlf.evaluation.ledger import Ledger, Row
from dlf.evaluation.metrics.catalogue import check_metric, key_of, open_metric
from dlf.evaluation.metrics.metric import Metric
from dlf.evaluation.metrics.sets import SetMetric
from dlf.evaluation.results import Results, gather
from dlf.evaluation.runner import run
from dlf.evaluation.set_scores import set_scores

T = TypeVar("T")

CODECS = ("dlf", "avif")
METRICS = ("psnr", "msssim")
RATES = (0.01, 0.015, 0.02, 0.03, 0.04)
JUDGES = ("stem", "ms_ssim")
"""Metrics that choose scales if none is asked for: the first that is there, else the first of all."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be compared, and how; docs/evaluation.md has the names of codecs and metrics.

    folder: of images.  codecs: ``[NAME=]KIND[:ARGUMENT][@SCALE]``.  metrics: ``NAME[:ARGUMENT]``.
    bpp: bits a pixel that no file may exceed.  quality: instead of bpp, qualities of dlf; the other codecs
    get as many bytes as the first dlf took.
    anchors: what BD-rates compare with, names of codecs or "best-of-formats"; none: the latter, if any.
    judge: metric that chooses scales; None is the first of JUDGES, else of metrics.
    output: folder that keeps rows and files, so that a later run goes on there; None keeps nothing.
    dataset: name of the data set that the folder should hold.  crop: side of the square in the middle
    that stands for each image, its shorter side scaled to that; None is all of it.
    complexity: measure what each codec costs.  jobs: images at a time, None is one for each processor.
    threads: processor threads for each image, None is all.
    """

    folder: str | os.PathLike[str]
    codecs: Sequence[str] = CODECS
    metrics: Sequence[str] = METRICS
    bpp: Sequence[float] = RATES
    quality: Sequence[int] = ()
    anchors: Sequence[str] = ()
    judge: str | None = None
    output: str | os.PathLike[str] | None = None
    dataset: str | None = None
    crop: int | None = None
    complexity: bool = False
    jobs: int | None = None
    threads: int | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """The sizes that files should have."""
        if self.quality:
            return tuple(Target(quality=quality) for quality in self.quality)
        return tuple(Target(bpp=bpp) for bpp in self.bpp)


@dataclass(frozen=True)
class Evaluation:
    """A request whose codecs and metrics are open; left_out: a sentence for each that is not installed."""

    request: EvaluationRequest
    images: tuple[ImageFile, ...]
    comparison: Comparison
    specs: tuple[CodecSpec, ...]
    set_metrics: tuple[SetMetric, ...]
    left_out: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many rows there will be."""
        return len(self.images) * len(self.comparison.targets) * len(self.comparison.codecs)

    def run(self, on_row: Callable[[Row], None] | None = None) -> Results:
        """Make every row, or take it from an earlier run; on_row: called with each, as they are made.

        What goes wrong with one image or codec is told by its row, and the rest goes on.
        Raises OSError if the output folder cannot be written to.
        """
        request, comparison = self.request, self.comparison
        folder = None if request.output is None else Path(request.output)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(None if folder is None else folder / "rows.jsonl")
        rows = []
        for row in run(comparison, self.images, ledger, request.jobs or os.cpu_count() or 1):
            rows.append(row)
            if on_row is not None:
                on_row(row)
        results = gather(
            rows,
            comparison,
            self.images,
            anchors=request.anchors,
            left_out=self.left_out,
            set_metrics=self.set_metrics,
            set_scores=set_scores(comparison, self.images, common(rows), self.set_metrics),
        )
        if not request.complexity:
            return results
        costs = measured(comparison, self.specs, self.images, results.rows, request.threads)
        return replace(results, complexity=costs.codecs, notes=(*results.notes, *costs.notes))


def evaluate(request: EvaluationRequest, on_row: Callable[[Row], None] | None = None) -> Results:
    """Compare codecs on a folder of images; on_row: called with each result, as they are made.

    Raises:
        SpecError: the request cannot be understood or contradicts itself.
        ImageError: the folder holds no images, or not those of the data set.
        MissingExtra: nothing is left to measure, for what it needs is not installed.
        DlfError: a model, a file of weights or a folder of decoded images cannot be used.
        OSError: the output folder cannot be written to.
    """
    return prepare(request).run(on_row)


def prepare(request: EvaluationRequest) -> Evaluation:
    """Find the images and open codecs and metrics, as far as they are installed; raises as `evaluate`."""
    images = find_images(Path(request.folder))
    if request.dataset is not None:
        check_set(request.dataset, images)
    specs = [parse_codec(text) for text in request.codecs]
    metric_names = [check_metric(text) for text in request.metrics]
    _check(request, specs)
    left_out: list[str] = []
    metrics = [m for name in metric_names for m in _if_there(partial(open_metric, name), left_out)]
    codecs = [c for spec in specs for c in _if_there(partial(open_codec, spec, request.threads), left_out)]
    of_images = tuple(metric for metric in metrics if isinstance(metric, Metric))
    if not of_images or not codecs:
        msg = f"there is nothing to measure: {'; '.join(left_out)}"
        raise MissingExtra(msg)
    _check_anchors(request.anchors, [codec.name for codec in codecs])
    return Evaluation(
        request=request,
        images=tuple(images),
        comparison=Comparison(
            codecs=tuple(codecs),
            targets=request.targets,
            metrics=of_images,
            judge=_judge(request.judge, [metric.name for metric in of_images]),
            files=None if request.output is None else Path(request.output) / "files",
            crop=request.crop,
        ),
        specs=tuple(specs),
        set_metrics=tuple(metric for metric in metrics if isinstance(metric, SetMetric)),
        left_out=tuple(left_out),
    )


def _check(request: EvaluationRequest, specs: Sequence[CodecSpec]) -> None:
    """Raise SpecError for what contradicts itself."""
    names = [spec.name for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        msg = f"two codecs are called '{twice[0]}': give one another name, as in other={twice[0]}"
        raise SpecError(msg)
    if request.quality and "dlf" not in [spec.kind for spec in specs]:
        msg = "a target quality needs the codec dlf; without it, say how many bits a pixel"
        raise SpecError(msg)
    if not all(0 <= quality <= 100 for quality in request.quality):
        msg = "a quality is a whole number from 0 to 100"
        raise SpecError(msg)
    if not request.targets or not all(0 < bpp <= 24 for bpp in request.bpp):
        msg = "bits a pixel are numbers above 0 and up to 24, at least one"
        raise SpecError(msg)
    if request.crop is not None and request.crop < 1:
        msg = "the square in the middle has at least one pixel a side"
        raise SpecError(msg)


def _check_anchors(anchors: Sequence[str], codecs: Sequence[str]) -> None:
    for anchor in anchors:
        if anchor not in (*codecs, HULL):
            msg = f"the anchor {anchor} is not one of {', '.join([*codecs, HULL])}"
            raise SpecError(msg)


def _judge(name: str | None, metrics: Sequence[str]) -> str:
    """Return the metric that chooses scales."""
    if name is None:
        return next((judge for judge in JUDGES if judge in metrics), metrics[0])
    for metric in metrics:
        if key_of(metric) == key_of(name):
            return metric
    msg = f"the judge {name} is not among the metrics {', '.join(metrics)}"
    raise SpecError(msg)


def _if_there(opener: Callable[[], T], left_out: list[str]) -> list[T]:
    """Return what `opener` gives, or nothing and a sentence in `left_out` if it is not installed."""
    try:
        return [opener()]
    except MissingExtra as error:
        left_out.append(f"left out: {error}")
        return []
