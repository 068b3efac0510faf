"""Picture x target x codec -> rows; several pictures at a time."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from queue import Empty, Queue
from threading import Event

from dlf.errors import DlfError
from dlf.evaluation.codecs.candidates import Attempt, Candidate
from dlf.evaluation.codecs.fitting import Fitted
from dlf.evaluation.dataset import Picture, cropped
from dlf.evaluation.ledger import Ledger, Row
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.files import write_bytes
from dlf.imageio import load_rgb
from dlf.records import UInt8

log = logging.getLogger(__name__)


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
class Experiment:
    """What is compared, and how.

    candidates: each name once.  targets: each once; those of a quality need an own candidate.
    metrics: at least one; `judge` names the one by which a scale is chosen.
    files: folder that keeps the files of all codecs; None keeps none.  crop: side of the square in the
    middle that stands for each picture; None takes all of it.
    """

    candidates: tuple[Candidate, ...]
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
    def ordered(self) -> tuple[Candidate, ...]:
        """The candidates, our own first, for the others may need the bytes that it took."""
        return tuple(sorted(self.candidates, key=lambda candidate: not candidate.own))

    def place(self, row: Row) -> tuple[str, int, int]:
        """Sort key of rows: picture, target, codec in the order of the experiment."""
        labels = [target.label for target in self.targets]
        names = [candidate.name for candidate in self.candidates]
        return row.picture, labels.index(row.target), names.index(row.codec)


def evaluate(
    experiment: Experiment, pictures: Sequence[Picture], ledger: Ledger, jobs: int = 1
) -> Iterator[Row]:
    """Yield every row of the experiment; finished ones come from the ledger, new ones go into it.

    jobs: pictures at a time.  The rows of one picture come in order, those of several as they are made.
    What goes wrong with one picture or codec is told by its row, and the rest goes on.
    Raises OSError if the ledger cannot be written.
    """
    results: Queue[Row | Exception] = Queue()
    stop = Event()

    def work(picture: Picture) -> None:
        try:
            for row in _rows(Bench(experiment, picture), ledger):
                results.put(row)
                if stop.is_set():
                    return
        except Exception as error:
            results.put(error)

    pool = ThreadPoolExecutor(jobs)
    try:
        for picture in pictures:
            pool.submit(work, picture)
        for _ in range(len(pictures) * len(experiment.targets) * len(experiment.candidates)):
            row = results.get()
            if isinstance(row, Exception):
                raise row
            ledger.add(row)
            yield row
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        for row in _drained(results):
            ledger.add(row)


def _drained(results: Queue[Row | Exception]) -> Iterator[Row]:
    """Yield what was finished but not asked for."""
    while True:
        try:
            row = results.get_nowait()
        except Empty:
            return
        if isinstance(row, Row):
            yield row


def _rows(bench: Bench, ledger: Ledger) -> Iterator[Row]:
    """Yield the rows of one picture."""
    for target in bench.experiment.targets:
        reference: Row | None = None
        for candidate in bench.experiment.ordered:
            row = _row(bench, ledger, candidate, target, reference)
            yield row
            if reference is None:
                reference = row


def _row(bench: Bench, ledger: Ledger, candidate: Candidate, target: Target, reference: Row | None) -> Row:
    """Find a row or make it; `reference` is the row of our own codec at this target."""
    blank = Row(bench.picture.name, target.label, candidate.name, "")
    try:
        if target.quality is not None and not candidate.own:
            budget: int | None = _size_of(reference)
        else:
            budget = None if target.bpp is None else int(target.bpp * bench.pixels / 8)
        blank = replace(blank, identity=bench.identity(candidate, target, budget))
        if known := ledger.find(blank.key, blank.identity):
            return bench.completed(known)
        return bench.measure(blank, target, budget)
    except Exception as error:  # whatever happens to one row, the next gets its turn
        log.debug("%s, %s", blank.picture, candidate.name, exc_info=True)
        return replace(blank, error=_explain(error))


def _size_of(reference: Row | None) -> int:
    if reference is None or reference.error:
        msg = "there is no number of bytes to compare at, because dlf failed"
        raise DlfError(msg)
    return reference.size


def _explain(error: Exception) -> str:
    text = str(error) if isinstance(error, DlfError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


class Bench:
    """One picture with all that is computed for it only once; nothing is before it is needed."""

    def __init__(self, experiment: Experiment, picture: Picture) -> None:
        self.picture, self.experiment = picture, experiment
        self._attempts: dict[str, Attempt] = {}
        self._scores: dict[str, Score] = {}

    def identity(self, candidate: Candidate, target: Target, budget: int | None) -> str:
        """Return what changes with picture, codec or number of bytes; raises OSError."""
        wanted = f"q{target.quality}" if budget is None else str(budget)
        judge = self.experiment.judging.identity if candidate.judged else ""
        crop = self.experiment.crop or ""
        parts = f"{zlib.crc32(self._file)} {crop}", candidate.identity, wanted, judge
        return f"{zlib.crc32(chr(10).join(parts).encode()):08x}"

    def measure(self, blank: Row, target: Target, budget: int | None) -> Row:
        """Fill a row; raises nearly anything."""
        attempt = self._attempt(blank.codec)
        if budget is None:
            fitted = attempt.paint(Fraction(1), target.quality or 0)
        else:
            judging = self.experiment.judging
            fitted = attempt.fit(budget, judging, lambda rgb: self._score(judging, rgb))
        self._keep(blank, fitted)
        height, width = self.original.shape[:2]
        row = replace(
            blank,
            width=width,
            height=height,
            size=fitted.size,
            scale=str(fitted.scale),
            setting=fitted.quality,
            over_budget=budget is not None and fitted.size > budget,
            encode_s=round(fitted.encode_s, 4),
            decode_s=round(fitted.decode_s, 4),
        )
        return self._judged(row, fitted.rgb, self.experiment.metrics)

    def completed(self, row: Row) -> Row:
        """Return a finished row, with what new metrics say of it; raises nearly anything."""
        missing = [m for m in self.experiment.metrics if row.versions.get(m.name) != m.identity]
        return self._judged(row, self.paint(row), missing) if missing else row

    def paint(self, row: Row) -> UInt8:
        """Make the picture of a finished row again, uint8 (H, W, 3)."""
        data = self.kept(row)
        if data is not None:
            return self._attempt(row.codec).decode(data)
        fitted = self._attempt(row.codec).paint(Fraction(row.scale), row.setting)
        self._keep(row, fitted)
        return fitted.rgb

    def kept(self, row: Row) -> bytes | None:
        """Return the file of a finished row, if there is one; raises OSError."""
        path = self._path(row)
        if path is None or not path.is_file():
            return None
        data = path.read_bytes()
        return data if len(data) == row.size else None

    @cached_property
    def original(self) -> UInt8:
        """Pixels, uint8 (H, W, 3); raises ImageError or LimitExceeded."""
        rgb = load_rgb(self._file)[0]
        return rgb if self.experiment.crop is None else cropped(rgb, self.experiment.crop)

    @property
    def pixels(self) -> int:
        """Their number."""
        return self.original.size // 3

    @cached_property
    def _file(self) -> bytes:
        return self.picture.path.read_bytes()

    def _attempt(self, codec: str) -> Attempt:
        if codec not in self._attempts:
            candidate = next(c for c in self.experiment.candidates if c.name == codec)
            self._attempts[codec] = candidate.start(self.picture.name, self.original)
        return self._attempts[codec]

    def _score(self, metric: Metric, rgb: UInt8) -> float:
        return self._scorer(metric)(rgb)

    def _scorer(self, metric: Metric) -> Score:
        if metric.name not in self._scores:
            self._scores[metric.name] = metric.against(self.original)
        return self._scores[metric.name]

    def _judged(self, row: Row, rgb: UInt8, metrics: Sequence[Metric]) -> Row:
        for metric in metrics:  # first all, for some look at a picture together
            self._scorer(metric)
        scores = {metric.name: self._score(metric, rgb) for metric in metrics}
        versions = {metric.name: metric.identity for metric in metrics}
        return replace(row, scores=row.scores | scores, versions=row.versions | versions)

    def _path(self, row: Row) -> Path | None:
        """Return where the file of a row is kept."""
        if self.experiment.files is None:
            return None
        name = re.sub(r"[^\w.+@-]", "_", row.picture)
        unique = zlib.crc32(row.picture.encode("utf-8", "surrogateescape"))
        return self.experiment.files / row.target / row.codec / f"{name}.{unique:08x}"

    def _keep(self, row: Row, fitted: Fitted) -> None:
        path = self._path(row)
        if path is not None and fitted.data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, fitted.data)
