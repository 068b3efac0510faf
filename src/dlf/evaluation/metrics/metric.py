"""What a metric is: its name, which way is better, and how an image is compared with its original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dlf.records import UInt8

Score = Callable[[UInt8], float]
"""Compares an image, uint8 (H, W, 3), with the original it was made for."""


@dataclass(frozen=True)
class Measure:
    """A number that says how good images are, one by one (`Metric`) or as a set (`SetMetric`).

    name: column of the table.  title: heading for people.  digits: decimals shown to them.
    lower_is_better: a distance, not a likeness.
    identity: changes when the numbers would; the name, unless the metric has weights.
    ratio: a positive number of which 1 is best and, say, 2 as good as 1/2: means are geometric, and there is
        no rate difference, because it may pass through 1.
    """

    name: str
    title: str
    digits: int
    lower_is_better: bool = field(default=False, kw_only=True)
    identity: str = field(default="", kw_only=True)
    ratio: bool = field(default=False, kw_only=True)

    def better(self, a: float, b: float) -> bool:
        """Tell whether `a` is better than `b`; what is not a number is worse than any."""
        if np.isnan(b):
            return not np.isnan(a)
        if self.ratio:
            return bool(abs(np.log(a)) < abs(np.log(b)))
        return a < b if self.lower_is_better else a > b


@dataclass(frozen=True)
class Metric(Measure):
    """One way to judge an image.

    against: takes the original, uint8 (H, W, 3), and returns the function that compares with it; what
        depends on the original alone is computed once.
    """

    against: Callable[[UInt8], Score]
