"""One image of an evaluation: its codes, its scores, its files."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from dlf.evaluation.codecs.protocols import ComparedCodec, RatePoint, RateSearch
from dlf.evaluation.comparison import Comparison, Target
from dlf.evaluation.dataset import ImageFile, cropped
from dlf.evaluation.ledger import Row
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.files import write_bytes
from dlf.imageio import load_rgb
from dlf.records import UInt8


class ImageBench:
    """One image with all that is computed for it only once; nothing is before it is needed."""

    def __init__(self, comparison: Comparison, image: ImageFile) -> None:
        self.image, self.comparison = image, comparison
        self._searches: dict[str, RateSearch] = {}
        self._scores: dict[str, Score] = {}

    def identity(self, codec: ComparedCodec, target: Target, budget: int | None) -> str:
        """Return what changes with image, codec or number of bytes; raises OSError."""
        size = f"q{target.quality}" if budget is None else str(budget)
        judge = self.comparison.judging.identity if codec.judged else ""
        crop = self.comparison.crop or ""
        parts = f"{zlib.crc32(self._file)} {crop}", codec.identity, size, judge
        return f"{zlib.crc32(chr(10).join(parts).encode()):08x}"

    def measure(self, blank: Row, target: Target, budget: int | None) -> Row:
        """Fill a row; raises nearly anything."""
        search = self._search(blank.codec)
        if budget is None:
            point = search.code(Fraction(1), target.quality or 0)
        else:
            judging = self.comparison.judging
            point = search.fit(budget, judging, lambda rgb: self._score(judging, rgb))
        self._keep(blank, point)
        height, width = self.original.shape[:2]
        row = replace(
            blank,
            width=width,
            height=height,
            size=point.size,
            scale=str(point.scale),
            setting=point.quality,
            over_budget=budget is not None and point.size > budget,
            encode_s=round(point.encode_s, 4),
            decode_s=round(point.decode_s, 4),
        )
        return self._judged(row, point.rgb, self.comparison.metrics)

    def completed(self, row: Row) -> Row:
        """Return a finished row, with what new metrics say of it; raises nearly anything."""
        missing = [m for m in self.comparison.metrics if row.versions.get(m.name) != m.identity]
        return self._judged(row, self.decoded(row), missing) if missing else row

    def decoded(self, row: Row) -> UInt8:
        """Return the decoded image of a finished row, uint8 (H, W, 3); coded again if its file is gone."""
        data = self.kept(row)
        if data is not None:
            return self._search(row.codec).decode(data)
        point = self._search(row.codec).code(Fraction(row.scale), row.setting)
        self._keep(row, point)
        return point.rgb

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
        return rgb if self.comparison.crop is None else cropped(rgb, self.comparison.crop)

    @property
    def pixels(self) -> int:
        """Their number."""
        return self.original.size // 3

    @cached_property
    def _file(self) -> bytes:
        return self.image.path.read_bytes()

    def _search(self, codec: str) -> RateSearch:
        if codec not in self._searches:
            compared = self.comparison.codec(codec)
            self._searches[codec] = compared.start(self.image.name, self.original)
        return self._searches[codec]

    def _score(self, metric: Metric, rgb: UInt8) -> float:
        return self._scorer(metric)(rgb)

    def _scorer(self, metric: Metric) -> Score:
        if metric.name not in self._scores:
            self._scores[metric.name] = metric.against(self.original)
        return self._scores[metric.name]

    def _judged(self, row: Row, rgb: UInt8, metrics: Sequence[Metric]) -> Row:
        for metric in metrics:  # first all, for some look at an image together
            self._scorer(metric)
        scores = {metric.name: self._score(metric, rgb) for metric in metrics}
        versions = {metric.name: metric.identity for metric in metrics}
        return replace(row, scores=row.scores | scores, versions=row.versions | versions)

    def _path(self, row: Row) -> Path | None:
        """Return where the file of a row is kept."""
        if self.comparison.files is None:
            return None
        name = re.sub(r"[^\w.+@-]", "_", row.picture)
        unique = zlib.crc32(row.picture.encode("utf-8", "surrogateescape"))
        return self.comparison.files / row.target / row.codec / f"{name}.{unique:08x}"

    def _keep(self, row: Row, point: RatePoint) -> None:
        path = self._path(row)
        if path is not None and point.data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, point.data)
