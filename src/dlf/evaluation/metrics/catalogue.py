"""Metrics by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dlf.errors import SpecError
from dlf.evaluation.metrics.fidelity import MS_SSIM, PSNR
from dlf.evaluation.metrics.grid import PERIODS, grid_metric
from dlf.evaluation.metrics.metric import Metric

if TYPE_CHECKING:
    from dlf.evaluation.metrics.sets import SetMetric


def _stem(argument: str | None) -> Metric:
    from dlf.evaluation.metrics.feature_distance import stem_metric

    return stem_metric(_file("stem", argument))


def _hed(argument: str | None) -> Metric:
    from dlf.evaluation.metrics.feature_distance import hed_metric

    return hed_metric()


def _hed_dists(argument: str | None) -> Metric:
    from dlf.evaluation.metrics.feature_distance import hed_dists_metric

    return hed_dists_metric()


def _grid(argument: str | None) -> Metric:
    try:
        return grid_metric(None if argument is None else int(argument))
    except ValueError as error:
        periods = ", ".join(f"grid:{period}" for period in PERIODS)
        msg = f"grid:{argument} is not one of the metrics grid, {periods}"
        raise SpecError(msg) from error


def _lpips(network: str) -> Callable[[str | None], Metric]:
    def make(argument: str | None) -> Metric:
        from dlf.evaluation.metrics.learned import lpips_metric

        return lpips_metric(network)

    return make


def _dists(argument: str | None) -> Metric:
    from dlf.evaluation.metrics.learned import dists_metric

    return dists_metric()


def _ssimulacra2(argument: str | None) -> Metric:
    from dlf.evaluation.metrics.learned import ssimulacra2_metric

    return ssimulacra2_metric()


def _task(name: str) -> Callable[[str | None], Metric]:
    def make(argument: str | None) -> Metric:
        from dlf.evaluation.metrics import tasks

        makers: dict[str, Callable[[], Metric]] = {
            "faces": tasks.faces_metric,
            "text": tasks.text_metric,
            "classes": tasks.classes_metric,
            "objects": tasks.objects_metric,
        }
        return makers[name]()

    return make


def _fid(argument: str | None) -> SetMetric:
    from dlf.evaluation.metrics.sets import fid_metric

    return fid_metric()


def _kid(argument: str | None) -> SetMetric:
    from dlf.evaluation.metrics.sets import kid_metric

    return kid_metric()


def _stem_kid(argument: str | None) -> SetMetric:
    from dlf.evaluation.metrics.sets import stem_kid_metric

    return stem_kid_metric(_file("stemkid", argument))


def _objects_map(argument: str | None) -> SetMetric:
    from dlf.evaluation.metrics.detection import objects_map_metric

    return objects_map_metric()


def _file(name: str, argument: str | None) -> Path:
    if argument is None:
        msg = f"the metric {name} needs a file of weights: {name}:FILE"
        raise SpecError(msg)
    return Path(argument)


METRICS: dict[str, Callable[[str | None], Metric]] = {
    "psnr": lambda argument: PSNR,
    "msssim": lambda argument: MS_SSIM,
    "lpipsalex": _lpips("alex"),
    "lpipsvgg": _lpips("vgg"),
    "dists": _dists,
    "ssimulacra2": _ssimulacra2,
    "stem": _stem,
    "hed": _hed,
    "heddists": _hed_dists,
    "grid": _grid,
    **{name: _task(name) for name in ("faces", "text", "classes", "objects")},
}
"""Every metric of one image by name; each opener takes the part after the colon."""

SETS: dict[str, Callable[[str | None], SetMetric]] = {
    "fid": _fid,
    "kid": _kid,
    "stemkid": _stem_kid,
    "objectsmap": _objects_map,
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
