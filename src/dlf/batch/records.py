"""What goes from one part of a batch to the next."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Item:
    """One input: a file, a member of a tar file, or a row of a table.

    key: its name, unique in the batch, with "/" between folders.
    url: the file that holds it.
    size: bytes, where that is known before it is read.
    offset: where in a tar file it begins.
    row: of a table, from 0.
    error: why it cannot be read, where listing has found that out already.
    """

    key: str
    url: str
    size: int | None = None
    offset: int | None = None
    row: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Row:
    """A line of the manifest: what became of one input.

    path: key of the input.  output: name of the result, in its folder or shard; None where there is none.
    bytes, bpp: of the .dlf file, and bits of it a pixel.  width, height: pixels.
    seconds: that the codec took.  error: what went wrong, a sentence.
    """

    path: str
    output: str | None = None
    bytes: int = 0
    bpp: float = 0.0
    width: int = 0
    height: int = 0
    quality: int = 0
    seconds: float = 0.0
    error: str | None = None

    @property
    def pixels(self) -> int:
        """Pixels of the picture."""
        return self.width * self.height


@dataclass(frozen=True)
class Made:
    """What a worker made of one input; data is None where the row has an error."""

    row: Row
    data: bytes | None = None


def failed(item: Item, error: str) -> Made:
    """Return what there is of an input that gave nothing."""
    return Made(Row(item.key, error=error))


def to_lines(records: list[Row] | list[Item]) -> bytes:
    """Return JSON lines."""
    return "".join(json.dumps(asdict(record)) + "\n" for record in records).encode()


def rows_of(lines: bytes) -> list[Row]:
    """Return the rows of JSON lines; raises ValueError, TypeError."""
    rows = [replace(Row(""), **json.loads(line)) for line in lines.splitlines()]
    if not all(isinstance(row.path, str) for row in rows):
        msg = "a path is no text"
        raise TypeError(msg)
    return rows


def items_of(lines: bytes) -> list[Item]:
    """Return the items of JSON lines; raises ValueError, TypeError."""
    return [replace(Item("", ""), **json.loads(line)) for line in lines.splitlines()]
