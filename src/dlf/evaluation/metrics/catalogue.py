"""Metrics by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlf.errors import SpecError
from dlf.evaluation.metrics.detection import objects_map_metric
from dlf.evaluation.metrics.feature_distance import hed_dists_metric, hed_metric, stem_metric
from dlf.evaluation.metrics.fidelity import MS_SSIM, PSNR
from dlf.evaluation.metrics.grid import PERIODS, grid_metric
from dlf.evaluation.metrics.learned import dists_metric, lpips_metric, ssimulacra2_metric
from dlf.evaluation.metrics.metric import Metric
from dlf.evaluation.metrics.sets import SetMetric, fid_metric, kid_metric, stem_kid_metric
from dlf.evaluation.metrics.tasks import classes_metric, faces_metric, objects_metric, text_metric


def _grid(argument: str | None) -> Metric:
    try:
        return grid_metric(None if argument is None else int(argument))
    except ValueError as error:
        periods = ", ".join(f"grid:{period}" for period in PERIODS)
        msg = f"grid:{argument} is not one of the metrics grid, {periods}"
        raise SpecError(msg) from error


def _file(name: str, argument: str | None) -> Path:
    if argument is None:
        msg = f"the metric {name} needs a file of weights: {name}:FILE"
        raise SpecError(msg)
    return Path(argument)


METRICS: dict[str, Callable[[str | None], Metric]] = {
    "psnr": lambda _: PSNR,
    "msssim": lambda _: MS_SSIM,
    "lpipsalex": lambda _: lpips_metric("alex"),
    "lpipsvgg": lambda _: lpips_metric("vgg"),
    "dists": lambda _: dists_metric(),
    "ssimulacra2": lambda _: ssimulacra2_metric(),
    "stem": lambda argument: stem_metric(_file("stem", argument)),
    "hed": lambda _: hed_metric(),
    "heddists": lambda _: hed_dists_metric(),
    "grid": _grid,
    "faces": lambda _: faces_metric(),
    "text": lambda _: text_metric(),
    "classes": lambda _: classes_metric(),
    "objects": lambda _: objects_metric(),
}
"""Every metric of one image by name; each opener takes the part after the colon, and imports its library."""

SETS: dict[str, Callable[[str | None], SetMetric]] = {
    "fid": lambda _: fid_metric(),
    "kid": lambda _: kid_metric(),
    "stemkid": lambda argument: stem_kid_metric(_file("stem-kid", argument)),
    "objectsmap": lambda _: objects_map_metric(),
}
"""Every metric of a set of images."""


def key_of(name: str) -> str:
    """Return a name without what people write between words."""
    return name.lower().replace("-", "").replace("_", "")


def check_metric(text: str) -> str:
    """Return the name of a metric as METRICS or SETS has it, with its argument; raises SpecError."""
    name, colon, argument = text.partition(":")
    key = key_of(name)
    if key not in (*METRICS, *SETS):
        msg = f"'{name}' is not one of the metrics {', '.join([*METRICS, *SETS])}"
        raise SpecError(msg)
    return key + colon + argument


def open_metric(text: str) -> Metric | SetMetric:
    """Make the metric of ``NAME`` or ``NAME:ARGUMENT``.

    Raises:
        SpecError: there is no such metric, or a file is not named.
        MissingExtra: something that it needs is not installed.
        WeightsError: its weights cannot be used.
    """
    name, _, argument = check_metric(text).partition(":")
    openers: dict[str, Callable[[str | None], Metric | SetMetric]] = {**METRICS, **SETS}
    return openers[name](argument or None)
