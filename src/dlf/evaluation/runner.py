"""Codec x picture x quality -> rows: dlf at each quality, every baseline at the bytes that dlf took."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import numpy as np
from PIL import Image

from dlf.errors import DlfError
from dlf.evaluation.baselines import Baseline, Fitter
from dlf.evaluation.dataset import Picture
from dlf.evaluation.ledger import Ledger, Row
from dlf.evaluation.metrics import Metric, Score
from dlf.imageio import load_rgb
from dlf.records import UInt8

log = logging.getLogger(__name__)

DLF = "dlf"


class PictureCodec(Protocol):
    """What is evaluated; `dlf.Codec` is one."""

    def encode(self, image: UInt8, quality: int) -> bytes:
        """Compress uint8 (H, W, 3)."""
        ...

    def decode(self, data: bytes) -> Image.Image:
        """Paint the picture."""
        ...


@dataclass(frozen=True)
class Experiment:
    """What is compared, and how.

    codec, identity: under test; its identity changes when its files or pictures would.
    qualities: 0..100, each once.
    metrics: at least one; `judge` names the one by which a baseline's scale is chosen.
    """

    codec: PictureCodec
    identity: str
    qualities: tuple[int, ...]
    baselines: tuple[Baseline, ...]
    metrics: tuple[Metric, ...]
    judge: str

    @property
    def judging(self) -> Metric:
        """The metric that `judge` names."""
        return next(metric for metric in self.metrics if metric.name == self.judge)


def evaluate(experiment: Experiment, pictures: Sequence[Picture], ledger: Ledger) -> Iterator[Row]:
    """Yield every row of the experiment; finished ones come from the ledger, new ones go into it.

    What goes wrong with one picture or codec is told by its row, and the rest goes on.
    Raises OSError if the ledger cannot be written.
    """
    for picture in pictures:
        bench = Bench(experiment, picture)
        for quality in experiment.qualities:
            reference = _row(bench, ledger, DLF, quality, None)
            yield reference
            for baseline in experiment.baselines:
                yield _row(bench, ledger, baseline.name, quality, reference)


def _row(bench: Bench, ledger: Ledger, codec: str, quality: int, reference: Row | None) -> Row:
    """Find a row or make it; `reference` is the row of dlf that a baseline is compared with."""
    blank = Row(bench.picture.name, quality, codec, "")
    try:
        budget = None if reference is None else _budget(reference)
        blank = Row(bench.picture.name, quality, codec, bench.identity(codec, budget))
        if known := ledger.find(blank.key, blank.identity):
            return known
        row = bench.measure(blank, budget)
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # whatever happens to one row, the next gets its turn
        log.debug("%s, %s", blank.picture, codec, exc_info=True)
        row = Row(blank.picture, quality, codec, blank.identity, error=_explain(error))
    ledger.add(row)
    return row


def _budget(reference: Row) -> int:
    if reference.error:
        msg = "there is no number of bytes to compare at, because dlf failed"
        raise DlfError(msg)
    return reference.size


def _explain(error: Exception) -> str:
    text = str(error) if isinstance(error, DlfError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


class Bench:
    """One picture with all that is computed for it only once; nothing is before it is needed."""

    def __init__(self, experiment: Experiment, picture: Picture) -> None:
        self.picture, self._experiment = picture, experiment
        self._fitters: dict[str, Fitter] = {}

    def identity(self, codec: str, budget: int | None) -> str:
        """Return what changes with picture, codec, number of bytes or metrics; raises OSError."""
        chosen = self._experiment.identity if codec == DLF else self._baseline(codec).identity
        metrics = [metric.identity for metric in self._experiment.metrics]
        parts = [str(zlib.crc32(self._file)), chosen, str(budget), self._experiment.judge, *metrics]
        return f"{zlib.crc32(chr(10).join(parts).encode()):08x}"

    def measure(self, blank: Row, budget: int | None) -> Row:
        """Fill a row; raises nearly anything."""
        if budget is None:
            data = self._experiment.codec.encode(self.original, blank.quality)
            return self._judged(blank, np.asarray(self._experiment.codec.decode(data)), size=len(data))
        judging = self._experiment.judging
        fitted = self.fitter(blank.codec).fit(budget, judging, self._scores[judging.name])
        return self._judged(
            blank, fitted.rgb, fitted.size, str(fitted.scale), fitted.quality, fitted.size > budget
        )

    def paint(self, row: Row) -> UInt8:
        """Make the picture of a finished row again, uint8 (H, W, 3)."""
        if row.codec != DLF:
            return self.fitter(row.codec).paint(Fraction(row.scale), row.setting).rgb
        data = self._experiment.codec.encode(self.original, row.quality)
        return np.asarray(self._experiment.codec.decode(data))

    @cached_property
    def original(self) -> UInt8:
        """Pixels, uint8 (H, W, 3); raises ImageError or LimitExceeded."""
        return load_rgb(self._file)[0]

    def fitter(self, codec: str) -> Fitter:
        """Return the search for a baseline's setting."""
        if codec not in self._fitters:
            self._fitters[codec] = Fitter(self._baseline(codec), self.original)
        return self._fitters[codec]

    @cached_property
    def _file(self) -> bytes:
        return self.picture.path.read_bytes()

    @cached_property
    def _scores(self) -> dict[str, Score]:
        return {metric.name: metric.against(self.original) for metric in self._experiment.metrics}

    def _baseline(self, name: str) -> Baseline:
        return next(baseline for baseline in self._experiment.baselines if baseline.name == name)

    def _judged(
        self, blank: Row, rgb: UInt8, size: int, scale: str = "1", setting: int = 0, over: bool = False
    ) -> Row:
        height, width = self.original.shape[:2]
        scores = {name: score(rgb) for name, score in self._scores.items()}
        return Row(*(*blank.key, blank.identity, width, height, size, scale, setting, over), scores=scores)
