"""Parquet files with a column of encoded pictures; pyarrow is imported when one is opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dlf.errors import BatchError, MissingExtra
from dlf.extras import first_line, need

COLUMNS = ("data", "image", "bytes", "content", "jpg", "png", "webp", "dlf")
"""Names of the column of bytes, in the order of the search; each may be a struct with the field "bytes"."""

KEYS = ("path", "key", "__key__", "name", "file_name", "filename")
"""The same of the names of pictures."""

BATCH = 32
"""Rows that are read at a time."""


def keys(fs: Any, path: str, column: str | None, key_column: str | None) -> Iterator[str | None]:
    """Yield the name of each row's picture, None where the table has none.

    Raises:
        BatchError: it cannot be read, or has no such column.
        MissingExtra: pyarrow is not installed.
    """
    with _opened(fs, path) as file:
        schema = file.schema_arrow
        bytes_column(schema, path, column)
        chosen = _key_column(schema, path, key_column)
        if chosen is None:
            for _ in range(file.metadata.num_rows):
                yield None
            return
        try:
            for batch in file.iter_batches(batch_size=4096, columns=[chosen], use_threads=False):
                for value in _leaf(batch, chosen).to_pylist():
                    yield None if value is None else str(value)
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error


class Rows:
    """The pictures of one table, read forward; a row a little behind the last one is still held."""

    def __init__(self, fs: Any, path: str, column: str | None) -> None:
        self._fs, self._path, self._wanted = fs, path, column
        self._held: dict[int, list[bytes | None]] = {}
        self._batches: Iterator[list[bytes | None]] = iter(())
        self._next = 0  # row of the first batch that is not read yet
        self._restart()

    def read(self, row: int) -> bytes:
        """Return the bytes of a row.

        Raises:
            BatchError: the table is damaged, or the row is empty.
        """
        if row < min(self._held, default=self._next):
            self._restart()
        while True:
            for first, values in self._held.items():
                if first <= row < first + len(values):
                    value = values[row - first]
                    if value is None:
                        msg = "its row of the table has no bytes"
                        raise BatchError(msg)
                    return value
            self._advance()

    def _restart(self) -> None:
        self._held, self._next = {}, 0
        self._batches = self._read()

    def _advance(self) -> None:
        try:
            values = next(self._batches)
        except StopIteration:
            msg = f"{self._path} has fewer rows than it says"
            raise BatchError(msg) from None
        except (OSError, ValueError) as error:
            self._restart()
            raise _damaged(self._path, error) from error
        self._held[self._next] = values
        self._next += len(values)
        while len(self._held) > 2:
            del self._held[min(self._held)]

    def _read(self) -> Iterator[list[bytes | None]]:
        with _opened(self._fs, self._path) as file:
            column = bytes_column(file.schema_arrow, self._path, self._wanted)
            for batch in file.iter_batches(batch_size=BATCH, columns=[column], use_threads=False):
                yield _leaf(batch, column).to_pylist()


def _opened(fs: Any, path: str) -> Any:
    parquet = need("pyarrow.parquet", "batch")
    try:
        return parquet.ParquetFile(path, filesystem=fs, pre_buffer=False)
    except MissingExtra:
        raise
    except Exception as error:  # pyarrow's own, and those of the file system
        raise _damaged(path, error) from error


def bytes_column(schema: Any, path: str, wanted: str | None) -> str:
    """Return the column of bytes, "image.bytes" where that is a field of a struct; raises BatchError."""
    types = need("pyarrow", "batch").types
    for name in COLUMNS if wanted is None else (wanted,):
        kind = schema.field(name).type if name in schema.names else None
        if kind is not None and types.is_struct(kind):
            position = kind.get_field_index("bytes")
            name, kind = f"{name}.bytes", kind.field(position).type if position >= 0 else None
        if kind is not None and (types.is_binary(kind) or types.is_large_binary(kind)):
            return name
    names = ", ".join(schema.names)
    what = "no column of encoded pictures" if wanted is None else f"no column '{wanted}' of bytes"
    msg = f"{path} has {what} (its columns: {names})"
    raise BatchError(msg)


def _key_column(schema: Any, path: str, wanted: str | None) -> str | None:
    if wanted is not None and wanted not in schema.names:
        msg = f"{path} has no column '{wanted}' (its columns: {', '.join(schema.names)})"
        raise BatchError(msg)
    types = need("pyarrow", "batch").types
    for name in KEYS if wanted is None else (wanted,):
        kind = schema.field(name).type if name in schema.names else None
        if kind is not None and (wanted is not None or types.is_string(kind) or types.is_large_string(kind)):
            return name
    for name in COLUMNS:
        kind = schema.field(name).type if name in schema.names else None
        if kind is not None and types.is_struct(kind) and kind.get_field_index("path") >= 0:
            return f"{name}.path"
    return None


def _leaf(batch: Any, column: str) -> Any:
    """Return a column of a batch, or a field of its struct."""
    name, _, field = column.partition(".")
    if column in batch.schema.names:
        return batch.column(column)
    return batch.column(name).field(field)


def _damaged(path: str, error: Exception) -> BatchError:
    return BatchError(f"{path} cannot be read as a Parquet file: {first_line(error)}")
