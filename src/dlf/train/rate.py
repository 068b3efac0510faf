"""The weight of the bits: one for each quality, or for a model of one rate a lambda that is controlled."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class LambdaSchedule:
    """Weights of bits per pixel, one after the other until the rate fits a window.

    DLF (https://arxiv.org/abs/2503.01428) trains one model for each rate this way.

    lambdas: ascending; empty for a model that is not controlled.  low, high: window of validation bits
    per pixel, tokens included.
    """

    lambdas: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for lambdas that do not ascend or a window that is empty."""
        if list(self.lambdas) != sorted(set(self.lambdas)):
            msg = f"the lambdas of a schedule must ascend: {', '.join(map(str, self.lambdas))}"
            raise ValueError(msg)
        if self.low > self.high:
            msg = f"no rate is between {self.low} and {self.high}"
            raise ValueError(msg)

    def next_step(self, step: int, bpp: float) -> int:
        """Index of the lambda to train with after a validation that measured `bpp` with that of index `step`.

        One up (bits cost more) above the window, one down below it, none inside or at the schedule's end.
        """
        if bpp > self.high:
            return min(step + 1, len(self.lambdas) - 1)
        if bpp < self.low:
            return max(step - 1, 0)
        return step


@dataclass(frozen=True)
class Rate:
    """Weight of bits per pixel: `at_low` for quality 0 to `at_high` for quality 100 (geometric between).

    It starts at `initial` times that and grows geometrically to 1 times between the fractions
    `ramp_from` and `ramp_to` of the run: with the full weight from the start images stay grey.
    schedule: for a model of one rate, takes the place of all that.
    """

    at_low: float = 0.0
    at_high: float = 0.0
    initial: float = 0.05
    ramp_from: float = 0.0
    ramp_to: float = 0.25
    schedule: LambdaSchedule = field(default_factory=LambdaSchedule)

    def weight(self, quality: Tensor, progress: float) -> Tensor:
        """Weight for each sample's quality (B,) in [0, 100] at `progress` in [0, 1] of the run: (B,)."""
        span = max(self.ramp_to - self.ramp_from, 1e-9)
        ramp = min(1.0, max(0.0, (progress - self.ramp_from) / span))
        factor = self.initial ** (1 - ramp)
        share = quality / 100
        return factor * self.at_low ** (1 - share) * self.at_high**share
