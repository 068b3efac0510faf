"""Scores of sets: every codec's decoded images at every target against the originals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlf.evaluation.dataset import Picture
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.sets import FEWEST, SetMetric, patch_count, patches
from dlf.evaluation.runner import Bench, Experiment
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor


def set_scores(
    experiment: Experiment, pictures: Sequence[Picture], rows: Sequence[Row], metrics: Sequence[SetMetric]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return the values of all metrics by (codec, target).

    rows: results to judge, without errors; every codec and target should have the same pictures.
    Metrics of patches are left out if there are too few.  Raises OSError.
    """
    import torch

    # a picture is read again for each use, for many large ones do not fit into memory together
    by_name = {picture.name: picture for picture in pictures}
    sizes = {row.picture: (row.height, row.width) for row in rows}
    count = sum(patch_count(*size) for size in sizes.values())
    used = [metric for metric in metrics if metric.whole or count >= FEWEST]
    if not used or not rows:
        return {}
    judges = {metric.name: metric.make(count) for metric in used}
    whole = {metric.name: judges.pop(metric.name) for metric in used if metric.whole}

    def look(name: str, rgb: UInt8, *, real: bool) -> None:
        _update(judges, rgb, real=real)
        for judge in whole.values():
            judge.update(name, rgb, real=real)

    for name in sizes:
        look(name, Bench(experiment, by_name[name]).original, real=True)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.codec, row.target), []).append(row)
    values = {}
    for group, members in groups.items():
        for row in members:
            look(row.picture, Bench(experiment, by_name[row.picture]).paint(row), real=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            values[group] = {name: _value(name, judge) for name, judge in (judges | whole).items()}
        for judge in (judges | whole).values():
            judge.reset()  # forgets the decoded pictures, not the originals
    return values


def _update(judges: dict[str, Any], rgb: UInt8, *, real: bool) -> None:
    import torch

    cut = patches(rgb) if judges else rgb[:0]
    if len(cut):
        x: Tensor = torch.tensor(cut).permute(0, 3, 1, 2)
        for judge in judges.values():
            with torch.inference_mode():
                judge.update(x, real=real)


def _value(name: str, judge: Any) -> float:
    found = judge.compute()
    return 1000 * float(found[0]) if isinstance(found, tuple) else float(found)
