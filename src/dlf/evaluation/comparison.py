"""What an evaluation compares: codecs, targets and metrics, all opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlf.evaluation.codecs.protocols import ComparedCodec
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.metric import Metric


@dataclass(frozen=True)
class Target:
    """How large a file should be: `bpp` bits for each pixel, or what our own codec takes at `quality`."""

    bpp: float | None = None
    quality: int | None = None

    @property
    def label(self) -> str:
        """Short text, unique among targets."""
        return f"{self.bpp:g}" if self.bpp is not None else f"q{self.quality}"


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    codecs: each name once.  targets: each once; those of a quality need an own codec.
    metrics: at least one; `judge` names the one by which a scale is chosen.
    files: folder that keeps the files of all codecs; None keeps none.  crop: side of the square in the
    middle that stands for each image; None takes all of it.
    """

    codecs: tuple[ComparedCodec, ...]
    targets: tuple[Target, ...]
    metrics: tuple[Metric, ...]
    judge: str
    files: Path | None = None
    crop: int | None = None

    @property
    def judging(self) -> Metric:
        """The metric that `judge` names."""
        return next(metric for metric in self.metrics if metric.name == self.judge)

    @property
    def ordered(self) -> tuple[ComparedCodec, ...]:
        """The codecs, our own first, for the others may need the bytes that it took."""
        return tuple(sorted(self.codecs, key=lambda codec: not codec.own))

    def codec(self, name: str) -> ComparedCodec:
        """Return the codec of a name."""
        return next(codec for codec in self.codecs if codec.name == name)

    def place(self, row: Row) -> tuple[str, int, int]:
        """Sort key of rows: image, target, codec in the order of the comparison."""
        labels = [target.label for target in self.targets]
        names = [codec.name for codec in self.codecs]
        return row.picture, labels.index(row.target), names.index(row.codec)
