"""Scores of sets: every codec's decoded images at every target against the originals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlf.evaluation.comparison import Comparison
from dlf.evaluation.dataset import ImageFile
from dlf.evaluation.image_bench import ImageBench
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.sets import FEWEST, SetMetric, patch_count, patches
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor


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
    # an image is read again for each use, for many large ones do not fit into memory together
    by_name = {image.name: image for image in images}
    sizes = {row.picture: (row.height, row.width) for row in rows}
    count = sum(patch_count(*size) for size in sizes.values())
    used = [metric for metric in metrics if metric.whole or count >= FEWEST]
    if not used or not rows:
        return []
    import torch

    judges = {metric.name: metric.make(count) for metric in used}
    whole = {metric.name: judges.pop(metric.name) for metric in used if metric.whole}

    def look(name: str, rgb: UInt8, *, real: bool) -> None:
        _update(judges, rgb, real=real)
        for judge in whole.values():
            judge.update(name, rgb, real=real)

    for name in sizes:
        look(name, ImageBench(comparison, by_name[name]).original, real=True)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.codec, row.target), []).append(row)
    values = []
    for group, members in groups.items():
        for row in members:
            look(row.picture, ImageBench(comparison, by_name[row.picture]).decoded(row), real=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            scores = {name: _value(judge) for name, judge in (judges | whole).items()}
        values.append(SetScore(*group, scores))
        for judge in (judges | whole).values():
            judge.reset()  # forgets the decoded images, not the originals
    return values


def _update(judges: dict[str, Any], rgb: UInt8, *, real: bool) -> None:
    import torch

    cut = patches(rgb) if judges else rgb[:0]
    if len(cut):
        x: Tensor = torch.tensor(cut).permute(0, 3, 1, 2)
        for judge in judges.values():
            with torch.inference_mode():
                judge.update(x, real=real)


def _value(judge: Any) -> float:
    value = judge.compute()  # KID's is a mean and a deviation
    return 1000 * float(value[0]) if isinstance(value, tuple) else float(value)
