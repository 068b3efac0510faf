"""Rows of an evaluation, kept in a CSV file from which a later run takes what is finished."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field, fields
from pathlib import Path

from dlf.errors import FormatError
from dlf.files import write_bytes

Key = tuple[str, int, str]
"""Picture, quality, codec."""


@dataclass(frozen=True)
class Row:
    """One picture through one codec.

    picture: name below the folder.  quality: 0..100, of dlf; the others get as many bytes as dlf took.
    codec: "dlf" or a baseline.  identity: changes when picture, codec or metrics do.
    width, height: pixels of the picture.  size: bytes of the file.
    scale, setting: of a baseline: how the picture was scaled before coding, and the format's own quality.
    over_budget: the smallest file of the baseline is larger than that of dlf.
    error: why there is no result, a sentence; else empty.
    scores: value of each metric by name.
    """

    picture: str
    quality: int
    codec: str
    identity: str
    width: int = 0
    height: int = 0
    size: int = 0
    scale: str = "1"
    setting: int = 0
    over_budget: bool = False
    error: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What the row is about."""
        return self.picture, self.quality, self.codec

    @property
    def bpp(self) -> float:
        """Bits of the file for each pixel of the picture."""
        return 8 * self.size / (self.width * self.height)


_COLUMNS = tuple(f.name for f in fields(Row) if f.name != "scores")


class Ledger:
    """Every row known so far; written to disk with each new one, whole or not at all.

    Raises FormatError if the file exists but is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[Key, Row] = {}
        if path.exists():
            self._rows = {row.key: row for row in _parse(path)}

    def find(self, key: Key, identity: str) -> Row | None:
        """Return a finished row if picture, codec and metrics are still the same."""
        row = self._rows.get(key)
        return row if row and row.identity == identity and not row.error else None

    def add(self, row: Row) -> None:
        """Keep a row, in the place of an older one of the same key; raises OSError."""
        self._rows[row.key] = row
        write_bytes(self._path, _dump(list(self._rows.values())))


def _dump(rows: list[Row]) -> bytes:
    """Return the CSV file; metrics have the columns after `bpp`."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.scores))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*_COLUMNS, "bpp", *metrics])
    for row in rows:
        plain = [getattr(row, name) for name in _COLUMNS]
        bpp = "" if row.error else f"{row.bpp:.6f}"
        table.writerow([*plain, bpp, *(row.scores.get(name, "") for name in metrics)])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _parse(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.DictReader(file)
            if missing := set(_COLUMNS) - set(table.fieldnames or ()):
                raise KeyError(*missing)
            return [_row(cells) for cells in table]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        msg = f"'{path}' is not a table of an earlier run: remove it or choose another output folder"
        raise FormatError(msg) from error


def _row(cells: dict[str, str]) -> Row:
    metrics = [name for name in cells if name not in (*_COLUMNS, "bpp")]
    return Row(
        picture=cells["picture"],
        quality=int(cells["quality"]),
        codec=cells["codec"],
        identity=cells["identity"],
        width=int(cells["width"]),
        height=int(cells["height"]),
        size=int(cells["size"]),
        scale=cells["scale"],
        setting=int(cells["setting"]),
        over_budget=cells["over_budget"] == "True",
        error=cells["error"],
        scores={name: float(cells[name]) for name in metrics if cells[name]},
    )
