"""How long a run is: so many steps, or so many minutes on whatever machine it meets.

Everything that changes over a run (rate of learning, weight of the rate, start of the adversarial term,
dropout of details) follows `place`, so that it fits a budget of either kind.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from dlf.errors import TrainingError
from dlf.train.config import TrainConfig

Work = Literal["validation", "checkpoint"]

OFTEN = 60.0  # a run of minutes saves and shows images this often, in seconds
MOST, LEAST = 30, 4  # but no more and no fewer times in a whole budget
SHARE = 10  # neither takes more than one part in so many of the time
MARGIN = 1.25  # of what is kept for the end


class Budget:
    """When a run does what, and when it is over: after `config.steps` steps."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.saved = time.monotonic()

    def place(self, step: int) -> float:
        """How far the run is before this step, in steps of the configuration: 0 to `config.steps`."""
        return step

    def over(self, step: int) -> bool:
        """Whether there is no time for another step."""
        return step >= self.config.steps

    def due(self, work: Work, step: int) -> bool:
        """Whether to do that after so many steps: images by the step, a checkpoint by the clock."""
        if work == "validation":
            return step % self.config.validate_every == 0
        return time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes

    def stepped(self, seconds: float, *, new: bool) -> None:
        """A step took so long; new: of a shape that was not met before, which may be compiled first."""

    def worked(self, work: Work, seconds: float) -> None:
        """Something beside the steps was done, and took so long."""
        if work == "checkpoint":
            self.saved = time.monotonic()

    def left(self, step: int, pace: float) -> float:
        """Seconds to the end at so many seconds a step."""
        return pace * (self.config.steps - step)

    def state(self) -> dict[str, float]:
        """What a resumed run must know beside its step."""
        return {}


class TimeBudget(Budget):
    """`config.minutes` minutes from the start of the run, all of its parts together; see `Budget`.

    What comes before the first step has ended (reading images, compiling) takes time but is no progress;
    neither is the first step of every other shape.  At the end there is time left for the last validation and
    checkpoint, as long as they took before.

    spent: `state` of the part before.  since: time.monotonic() when this part began.
    """

    def __init__(self, config: TrainConfig, spent: Mapping[str, float], since: float | None = None) -> None:
        super().__init__(config)
        self.seconds = 60 * config.minutes
        self.begun = (time.monotonic() if since is None else since) - spent.get("seconds", 0.0)
        self.reached = self.share = spent.get("progress", 0.0)
        self.fresh = not spent
        # elapsed when the first step of this part had ended, and what first steps of other shapes took
        self.first: float | None = None
        self.longest = 0.0  # of the latest steps
        often = min(max(OFTEN, self.seconds / MOST), self.seconds / LEAST)
        self.period = min(60 * config.checkpoint_minutes, often)
        works: tuple[Work, ...] = ("validation", "checkpoint")
        self.took: dict[Work, float] = {work: spent[work] for work in works if work in spent}
        self.last: dict[Work, float] = {}

    def elapsed(self) -> float:
        """Seconds of the budget that are spent."""
        return time.monotonic() - self.begun

    def reserve(self) -> float:
        """Seconds to keep for a step and what comes after the last one."""
        return MARGIN * (sum(self.took.values()) + self.longest)

    def place(self, step: int) -> float:
        """See `Budget`."""
        if self.first is not None:
            whole = max(self.seconds - self.reserve() - self.first, 1e-6)
            share = self.reached + (1 - self.reached) * (self.elapsed() - self.first) / whole
            self.share = min(1.0, max(self.share, share))  # a longer reserve does not turn time back
        return self.share * self.config.steps

    def over(self, step: int) -> bool:
        """See `Budget`; TrainingError if a new run has no time for a step and its checkpoint."""
        over = self.share >= 1 or self.elapsed() + self.reserve() >= self.seconds
        if over and self.fresh and step <= 1 and self.elapsed() > self.seconds:
            done = "a first step and its checkpoint" if step else "what comes before the first step"
            msg = f"a budget of {self.seconds:.3g} s is too small: {done} took until {self.elapsed():.3g} s"
            raise TrainingError(msg)
        return over

    def due(self, work: Work, step: int) -> bool:
        """A checkpoint after the first step tells how long one takes; then both by the clock."""
        if work == "checkpoint" and work not in self.took:
            return True
        since = self.elapsed() - self.last.get(work, self.first or 0.0)
        return since >= max(self.period, SHARE * self.took.get(work, 0.0))

    def stepped(self, seconds: float, *, new: bool) -> None:
        """See `Budget`."""
        if self.first is None:
            self.first = self.elapsed()
        elif new:  # tells nothing of other steps, and is no progress
            self.first += seconds
        else:
            self.longest = max(seconds, 0.9 * self.longest)

    def worked(self, work: Work, seconds: float) -> None:
        """See `Budget`."""
        self.took[work], self.last[work] = seconds, self.elapsed()

    def left(self, step: int, pace: float) -> float:
        """See `Budget`."""
        return max(0.0, self.seconds - self.elapsed())

    def state(self) -> dict[str, float]:
        """See `Budget`."""
        return {"seconds": self.elapsed(), "progress": self.share} | {str(k): v for k, v in self.took.items()}


def budget(config: TrainConfig, spent: Mapping[str, float], since: float | None) -> Budget:
    """Return the kind that the configuration asks for; see `TimeBudget` for the arguments."""
    return TimeBudget(config, spent, since) if config.minutes else Budget(config)
