"""Metrics by the names that the command line gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlf.evaluation.candidates import SpecError
from dlf.evaluation.metrics import MS_SSIM, PSNR, Metric


def _stem(argument: str | None) -> Metric:
    from dlf.evaluation.perceptual import stem_metric

    if argument is None:
        msg = "the metric stem needs a file of weights: stem:FILE"
        raise SpecError(msg)
    return stem_metric(Path(argument))


def _hed(argument: str | None) -> Metric:
    from dlf.evaluation.perceptual import hed_metric

    return hed_metric()


METRICS: dict[str, Callable[[str | None], Metric]] = {
    "psnr": lambda argument: PSNR,
    "msssim": lambda argument: MS_SSIM,
    "stem": _stem,
    "hed": _hed,
}
"""Every metric by name; each opener takes the part after the colon."""


def check_metric(text: str) -> str:
    """Return the name of a metric as METRICS has it, with its argument; raises SpecError."""
    name, colon, argument = text.partition(":")
    key = name.lower().replace("-", "").replace("_", "")
    if key not in METRICS:
        msg = f"'{name}' is not one of the metrics {', '.join(METRICS)}"
        raise SpecError(msg)
    return key + colon + argument


def open_metric(text: str) -> Metric:
    """Make the metric of ``NAME`` or ``NAME:ARGUMENT``.

    Raises:
        SpecError: there is no such metric.
        MissingExtra: something that it needs is not installed.
        WeightsError: its weights cannot be used.
    """
    name, _, argument = check_metric(text).partition(":")
    return METRICS[name](argument or None)
