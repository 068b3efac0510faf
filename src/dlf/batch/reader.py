"""The bytes of an input, wherever it lies."""

from __future__ import annotations

from threading import Lock

from dlf.batch.records import Item
from dlf.batch.sources import Source, opened
from dlf.batch.stores import read_at
from dlf.batch.tables import Rows
from dlf.errors import BatchError, LimitExceeded
from dlf.limits import MAX_FILE_BYTES


class Reader:
    """Reads inputs of one source; several threads may use it.  Rows of a table are best read in order."""

    def __init__(self, source: Source) -> None:
        self._fs, self._column = opened(source.url)[0].fs, source.column
        self._lock = Lock()
        self._rows: tuple[str, Rows] | None = None

    def read(self, item: Item) -> bytes:
        """Return the bytes of an input.

        Raises:
            BatchError: listing has found that it has none.
            LimitExceeded: there are more than `dlf.limits.MAX_FILE_BYTES`.
            Exception: whatever the file system raises.
        """
        if item.error is not None:
            raise BatchError(item.error)
        if item.size is not None and item.size > MAX_FILE_BYTES:
            msg = f"it has {item.size:,} bytes, above the limit of {MAX_FILE_BYTES:,}"
            raise LimitExceeded(msg)
        if item.row is None:
            return read_at(self._fs, item.url, item.offset, item.size)
        with self._lock:
            if self._rows is None or self._rows[0] != item.url:
                self._rows = item.url, Rows(self._fs, item.url, self._column)
            return self._rows[1].read(item.row)
