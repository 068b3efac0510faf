"""What a metric is: its name, which way is better, and how an image is compared with its original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dlf.records import UInt8

Score = Callable[[UInt8], float]
"""Compares an image, uint8 (H, W, 3), with the original it was made for."""


class Measure(Protocol):
    """A number that says how good images are, one by one (`Metric`) or as a set; fields as there."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def title(self) -> str: ...  # noqa: D102

    @property
    def digits(self) -> int: ...  # noqa: D102

    @property
    def lower_is_better(self) -> bool: ...  # noqa: D102

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def ratio(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True)
class Metric:
    """One way to judge an image.

    name: column of the table.  title: heading for people.  digits: decimals shown to them.
    against: takes the original, uint8 (H, W, 3), and returns the function that compares with it; what
        depends on the original alone is computed once.
    lower_is_better: a distance, not a likeness.
    identity: changes when the numbers would; the name, unless the metric has weights.
    ratio: a positive number of which 1 is best and, say, 2 as good as 1/2: means are geometric, and there is
        no rate difference, because it may pass through 1.
    """

    name: str
    title: str
    digits: int
    against: Callable[[UInt8], Score]
    lower_is_better: bool = False
    identity: str = ""
    ratio: bool = False

    def better(self, a: float, b: float) -> bool:
        """Tell whether `a` is better than `b`."""
        return is_better(self, a, b)


def is_better(measure: Measure, a: float, b: float) -> bool:
    """Tell whether `a` is better than `b`; what is not a number is worse than any."""
    if np.isnan(b):
        return not np.isnan(a)
    if measure.ratio:
        return bool(abs(np.log(a)) < abs(np.log(b)))
    return a < b if measure.lower_is_better else a > b
