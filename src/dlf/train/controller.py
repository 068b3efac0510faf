"""Rate control for a model of one rate: lambda climbs a ladder until the rate fits a window.

DLF (https://arxiv.org/abs/2503.01428) trains one model for each rate this way.  A model for all rates
has `dlf.train.codec_stage.rate_weight` instead.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ladder:
    """Weights of bits per pixel, and the rate that is wanted.

    lambdas: ascending; empty for a model that is not controlled.  low, high: window of validation bits
    per pixel, tokens included.
    """

    lambdas: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for lambdas that do not ascend or a window that is empty."""
        if list(self.lambdas) != sorted(set(self.lambdas)):
            msg = f"the lambdas of a ladder must ascend: {', '.join(map(str, self.lambdas))}"
            raise ValueError(msg)
        if self.low > self.high:
            msg = f"no rate is between {self.low} and {self.high}"
            raise ValueError(msg)


def next_rung(rung: int, bpp: float, ladder: Ladder) -> int:
    """Index of the lambda to train with after a validation that found `bpp`.

    One step up (bits cost more) above the window, one down below it, none inside or at the ladder's end.
    """
    if bpp > ladder.high:
        return min(rung + 1, len(ladder.lambdas) - 1)
    if bpp < ladder.low:
        return max(rung - 1, 0)
    return rung
