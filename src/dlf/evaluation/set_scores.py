"""Scores of sets: every codec's decoded images at every target against the originals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlf.evaluation.comparison import Comparison
from dlf.evaluation.dataset import ImageFile
from dlf.evaluation.image_bench import ImageBench
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.sets import SetMetric, patch_count


@dataclass(frozen=True)
class SetScore:
    """Values of the set metrics, by name, for all images of a codec at a target."""

    codec: str
    target: str
    scores: dict[str, float]


def set_scores(
    comparison: Comparison, images: Sequence[ImageFile], rows: Sequence[Row], metrics: Sequence[SetMetric]
) -> list[SetScore]:
    """Return the values of all metrics, for each codec and target.

    rows: results to judge, without errors; every codec and target should have the same images.
    Metrics of patches are left out if there are too few.  Raises OSError.
    """
    sizes = {row.picture: (row.height, row.width) for row in rows}
    count = sum(patch_count(*size) for size in sizes.values())
    judges = {metric.name: metric.make(count) for metric in metrics if rows and count >= metric.fewest}
    if not judges:
        return []
    # an image is read again for each use, for many large ones do not fit into memory together
    by_name = {image.name: image for image in images}
    for name in sizes:
        original = ImageBench(comparison, by_name[name]).original
        for judge in judges.values():
            judge.update(name, original, real=True)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.codec, row.target), []).append(row)
    scores = []
    for (codec, target), members in groups.items():
        for row in members:
            decoded = ImageBench(comparison, by_name[row.picture]).decoded(row)
            for judge in judges.values():
                judge.update(row.picture, decoded, real=False)
        scores.append(SetScore(codec, target, {name: judge.compute() for name, judge in judges.items()}))
        for judge in judges.values():
            judge.reset()
    return scores
