"""Any other codec: a folder of the images it decoded, with a table of their bits a pixel."""

from __future__ import annotations

import csv
import math
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath

from dlf.errors import DlfError, FormatError
from dlf.evaluation.codecs.protocols import RatePoint
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.imageio import load_rgb
from dlf.records import UInt8

TABLE = "bpp.csv"


@dataclass(frozen=True)
class Decoded:
    """A line of the table: file of the decoded image below the folder, and bits a pixel."""

    path: Path
    bpp: float


class DecodedFolder:
    """A `ComparedCodec` made elsewhere.

    The folder holds ``bpp.csv`` with the columns picture (name of the original, with or without its
    ending), file (the decoded one, below the folder) and bpp; several lines a picture are several rates.

    Raises FormatError if the table cannot be read.
    """

    own = classical = judged = False

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        try:
            text = (folder / TABLE).read_text("utf-8-sig")
            self._lines = _parse(text, folder)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            msg = f"'{folder / TABLE}' is not a table with the columns picture, file, bpp ({error})"
            raise FormatError(msg) from error
        stamps = [
            f"{line.path} {line.path.stat().st_mtime_ns if line.path.exists() else ''}"
            for lines in self._lines.values()
            for line in lines
        ]
        self.identity = f"decoded {zlib.crc32(chr(10).join([text, *stamps]).encode()):08x}"

    def start(self, name: str, original: UInt8) -> DecodedSearch:
        """Begin with an image; raises DlfError if the table does not have it."""
        lines = self._lines.get(name) or self._lines.get(str(PurePosixPath(name).with_suffix("")))
        if not lines:
            msg = f"'{self._folder / TABLE}' has no line for {name}"
            raise DlfError(msg)
        return DecodedSearch(lines, original)


class DecodedSearch:
    """A `RateSearch` in the lines of the table, at least one."""

    def __init__(self, lines: list[Decoded], original: UInt8) -> None:
        self._lines, self._shape = lines, original.shape
        self._pixels = original.size // 3

    def fit(self, budget: int, metric: Metric, score: Score) -> RatePoint:
        """Return the largest within the budget, or the smallest."""
        places = range(len(self._lines))
        within = [place for place in places if self._size(place) <= budget]
        place = max(within, key=self._size) if within else min(places, key=self._size)
        return self.code(Fraction(1), place)

    def code(self, scale: Fraction, quality: int) -> RatePoint:
        """Return the image of a line (quality is its place); raises ImageError, DlfError."""
        path = self._lines[quality].path
        try:
            rgb = load_rgb(path.read_bytes())[0]
        except OSError as error:
            msg = f"'{path}' cannot be read: {error.strerror or error}"
            raise DlfError(msg) from error
        if rgb.shape != self._shape:
            msg = f"'{path}' has another size than the original"
            raise DlfError(msg)
        return RatePoint(Fraction(1), quality, None, self._size(quality), rgb)

    def decode(self, data: bytes) -> UInt8:
        """Refuse: there are no coded files."""
        msg = "a decoded picture has no coded file"
        raise DlfError(msg)

    def _size(self, place: int) -> int:
        return math.ceil(self._lines[place].bpp * self._pixels / 8 - 1e-6)


def _parse(text: str, folder: Path) -> dict[str, list[Decoded]]:
    by_name: dict[str, list[Decoded]] = {}
    for cells in csv.DictReader(text.splitlines()):
        bpp = float(cells["bpp"])
        if not 0 < bpp <= 24:
            msg = f"{cells['bpp']} bits a pixel"
            raise ValueError(msg)
        by_name.setdefault(cells["picture"], []).append(Decoded(folder / cells["file"], bpp))
    return by_name
