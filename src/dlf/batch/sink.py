"""Results and their rows, in parts: files of a folder, a tar shard or a table, and then the part's rows."""

from __future__ import annotations

import errno
import io
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from threading import Lock
from typing import IO, Any, Protocol

from dlf.batch.manifest import Manifest, part_name
from dlf.batch.records import Made, Row
from dlf.batch.stores import Store
from dlf.extras import need

KINDS = ("folder", "tar", "parquet")

MAX_PART_BYTES = 2**28
"""Bytes of results after which a part ends, even with fewer pictures than it may have."""

_GROUP_BYTES = 2**24  # of a table's row group

_OF_THE_NAME = frozenset(
    (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EILSEQ, errno.EINVAL)
)
"""Errors of writing a file that concern it alone, such as a name that the file system cannot have."""


class Shard(Protocol):
    """One file of many results."""

    def add(self, row: Row, data: bytes) -> None:
        """Append a result."""

    def finish(self) -> None:
        """Write what the file's form wants at its end."""


class _Tar:
    """A tar shard as WebDataset has it; nothing in it depends on the time or the user."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, row: Row, data: bytes) -> None:
        member = tarfile.TarInfo(str(row.output))
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        self._tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them

    def finish(self) -> None:
        self._tar.close()


class _Table:
    """A Parquet file with the columns path, data, bytes, width, height, quality."""

    def __init__(self, file: IO[bytes]) -> None:
        arrow = need("pyarrow", "batch")
        self._parquet = need("pyarrow.parquet", "batch")
        whole = arrow.int64()
        fields = [("path", arrow.string()), ("data", arrow.binary())]
        fields += [(name, whole) for name in ("bytes", "width", "height", "quality")]
        self._schema = arrow.schema(fields)
        self._table: Callable[..., Any] = arrow.Table.from_pylist
        # the pictures are packed already
        self._writer = self._parquet.ParquetWriter(
            file, self._schema, compression="none", use_dictionary=False
        )
        self._rows: list[dict[str, object]] = []
        self._bytes = 0

    def add(self, row: Row, data: bytes) -> None:
        numbers = {name: getattr(row, name) for name in ("bytes", "width", "height", "quality")}
        self._rows.append({"path": row.output, "data": data} | numbers)
        self._bytes += len(data)
        if self._bytes > _GROUP_BYTES:
            self._write_group()

    def finish(self) -> None:
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        if self._rows:
            self._writer.write_table(self._table(self._rows, schema=self._schema))
        self._rows, self._bytes = [], 0


_SHARDS: dict[str, Callable[[IO[bytes]], Shard]] = {"tar": _Tar, "parquet": _Table}


class Part:
    """One part of the results; nothing of it counts before `commit`."""

    def __init__(self, manifest: Manifest, kind: str, number: int) -> None:
        self._manifest, self._number = manifest, number
        self._suffix = "" if kind == "folder" else f".{kind}"
        self._make_shard = _SHARDS.get(kind)
        self._shard: Shard | None = None
        self._open = ExitStack()
        self._rows: list[Row] = []
        self.bytes = 0

    def __len__(self) -> int:
        """Return the rows so far."""
        return len(self._rows)

    def add(self, made: Made) -> None:
        """Take a result into the shard; of a folder its file has been written before."""
        row = made.row
        if made.data is not None and self._make_shard is not None:
            if self._shard is None:
                file = self._manifest.store.unfinished(part_name(self._number, self._suffix))
                self._shard = self._make_shard(self._open.enter_context(file))
            self._shard.add(row, made.data)
            self.bytes += len(made.data)
        self._rows.append(row)

    def commit(self) -> None:
        """Write the shard, then the rows that let it count."""
        if not self._rows:
            return
        if self._shard is not None:
            self._shard.finish()
        self._open.close()  # gives the shard its name
        self._manifest.add(self._number, self._rows)

    def abandon(self) -> None:
        """Remove what there is of the shard."""
        error = RuntimeError()
        self._open.__exit__(type(error), error, None)


class Sink:
    """Takes results of several threads, and begins a new part whenever one is full.

    number: of the first part.  size: rows of a part.
    """

    def __init__(self, manifest: Manifest, kind: str, number: int, size: int) -> None:
        self._manifest, self._kind, self._number, self._size = manifest, kind, number, size
        self._part = Part(manifest, kind, number)
        self._lock = Lock()

    def add(self, made: Made) -> Row:
        """Take a result, and return its row as it stands in the manifest; raises what the store raises."""
        made = placed(self._manifest.store, self._kind, made)
        with self._lock:
            self._part.add(made)
            if len(self._part) >= self._size or self._part.bytes >= MAX_PART_BYTES:
                self._part.commit()
                self._number += 1
                self._part = Part(self._manifest, self._kind, self._number)
        return made.row

    def close(self) -> None:
        """Let count what has come."""
        with self._lock:
            self._part.commit()

    def abandon(self) -> None:
        """Give up the part that is not full."""
        with self._lock:
            self._part.abandon()


def placed(store: Store, kind: str, made: Made) -> Made:
    """Write the file of a result that goes to a folder; a result that cannot have its name fails alone."""
    if made.data is None or made.row.output is None:
        return made
    try:
        if kind == "folder":
            store.write(made.row.output, made.data)
        elif kind == "parquet":
            made.row.output.encode()
    except UnicodeEncodeError:
        return _nameless(made, "its name is not UTF-8")
    except OSError as error:
        if error.errno not in _OF_THE_NAME:
            raise
        return _nameless(made, error.strerror)
    return made


def _nameless(made: Made, reason: str | None) -> Made:
    return Made(replace(made.row, output=None, error=f"{made.row.output} cannot be written: {reason}"))
