"""Rows of an evaluation, kept in a file of one JSON object a line; a later run takes what is finished."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from dlf.errors import FormatError
from dlf.files import write_bytes

Key = tuple[str, str, str]
"""Picture, target, codec."""


@dataclass(frozen=True)
class Row:
    """One image through one codec.

    picture: name of the image below the folder.  target: what the file should have, "0.02" bits a pixel or
    quality "q50" (the codecs without that quality get as many bytes as the first that has it).
    codec: name of the codec.  identity: changes when image, codec or target do.
    width, height: pixels of the image.  size: bytes of the file.
    scale, setting: how the image was scaled before coding, and the codec's own quality.
    over_budget: the smallest file of the codec is larger than the target.
    encode_s, decode_s: seconds of the codec alone; 0 where not known.
    error: why there is no result, a sentence; else empty.
    scores: value of each metric by name.  versions: identity of each of these metrics.
    """

    picture: str
    target: str
    codec: str
    identity: str
    width: int = 0
    height: int = 0
    size: int = 0
    scale: str = "1"
    setting: int = 0
    over_budget: bool = False
    encode_s: float = 0
    decode_s: float = 0
    error: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What the row is about."""
        return self.picture, self.target, self.codec

    @property
    def bpp(self) -> float:
        """Bits of the file for each pixel of the picture."""
        return 8 * self.size / (self.width * self.height)


_TYPES = {f.name: str(f.type) for f in fields(Row)}
_COLUMNS = tuple(name for name in _TYPES if name not in ("scores", "versions"))
_CHECKS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}


class Ledger:
    """Every row so far; a new one is added to the end of the file, if there is one.

    Of several rows of one key the last counts.  Raises FormatError if the file exists but holds something
    else; a last line that was cut off (the power failed) is left out.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._rows: dict[Key, Row] = {}
        if path is not None and path.exists():
            self._rows = _parse(path)

    def find(self, key: Key, identity: str) -> Row | None:
        """Return a finished row if picture, codec and target are still the same."""
        row = self._rows.get(key)
        return row if row and row.identity == identity and not row.error else None

    def add(self, row: Row) -> None:
        """Keep a row, in the place of an older one of the same key; raises OSError."""
        if self._rows.get(row.key) == row:
            return
        self._rows[row.key] = row
        if self._path is None:
            return
        # a line cut off by a crash must not swallow this one
        with self._path.open("a", encoding="ascii") as file:
            file.write(("" if _ends_clean(self._path) else "\n") + json.dumps(asdict(row)) + "\n")


def _ends_clean(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        if not size:
            return True
        file.seek(-1, io.SEEK_END)
        return file.read(1) == b"\n"


def _parse(path: Path) -> dict[Key, Row]:
    rows = {}
    try:
        lines = path.read_text("ascii").split("\n")
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                row = _row(json.loads(line))
            except json.JSONDecodeError:
                if number == 1 or not line.startswith("{"):
                    raise
                continue  # cut off
            rows[row.key] = row
    except (ValueError, TypeError) as error:
        msg = f"'{path}' does not hold the rows of an earlier run: remove it or choose another output folder"
        raise FormatError(msg) from error
    return rows


def _row(entries: object) -> Row:
    if not isinstance(entries, dict):
        msg = "no object"
        raise TypeError(msg)
    for name, value in entries.items():
        if name in _COLUMNS and not isinstance(value, _CHECKS[_TYPES[name]]):
            msg = f"{name} is {value}"
            raise TypeError(msg)
    return Row(**entries)


def table(rows: Sequence[Row]) -> bytes:
    """Return the rows as a CSV file; metrics have the columns after `bpp`."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.scores))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, "bpp", *metrics])
    for row in rows:
        plain = [getattr(row, name) for name in _COLUMNS]
        bpp = "" if row.error else f"{row.bpp:.6f}"
        writer.writerow([*plain, bpp, *(row.scores.get(name, "") for name in metrics)])
    return text.getvalue().encode("utf-8", "surrogateescape")


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the CSV file, whole or not at all; raises OSError."""
    write_bytes(path, table(rows))
