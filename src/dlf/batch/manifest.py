"""What is done: a file of rows for each part of the results; the part counts when that file is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace

from dlf.batch.records import Row, rows_of, to_lines
from dlf.batch.stores import Store
from dlf.batch.worker import Task
from dlf.errors import BatchError

FOLDER = "manifest"
ERRORS = "errors.jsonl"
_TASK = f"{FOLDER}/task.json"
_PART = re.compile(r"part-([0-9]{6,12})\.([a-z]+)")


def part_name(number: int, suffix: str = "") -> str:
    """Return the name of a part of the results."""
    return f"part-{number:06d}{suffix}"


class Manifest:
    """The rows of a batch, in the folder of its results."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def start(self, task: Task, kind: str) -> None:
        """Note what is being done, and remove what an earlier run has left unfinished.

        Raises:
            BatchError: the results of another task are there, or files that this one would replace.
        """
        asked = {"to": kind} | {
            name: value for name, value in asdict(replace(task, threads=1)).items() if value is not None
        }
        shards = _numbers(self.store.names(""), kind)
        if self.store.exists(_TASK):
            self._compare(asked)
        elif shards:  # they may be the inputs
            msg = f"{self.store.root} has {shards[0][1]}, but no manifest of a batch; give another folder"
            raise BatchError(msg)
        else:
            self.store.write(_TASK, json.dumps(asked).encode())
        self.store.sweep()
        counted = {number for number, _ in self.parts()}
        for number, name in shards:
            if number not in counted:
                self.store.remove(name)  # its rows were never written

    def parts(self) -> list[tuple[int, str]]:
        """Return number and file of each part that counts, in their order."""
        return [(number, f"{FOLDER}/{name}") for number, name in _numbers(self.store.names(FOLDER), "jsonl")]

    def has(self, number: int) -> bool:
        """Tell whether a part counts."""
        return self.store.exists(self._file(number))

    def rows(self, number: int | None = None) -> Iterator[Row]:
        """Yield the rows of a part, or of all; raises BatchError where they are damaged."""
        files = [name for _, name in self.parts()] if number is None else [self._file(number)]
        for name in files:
            yield from self._read(name)

    def add(self, number: int, rows: list[Row]) -> None:
        """Let a part count; its results are there already."""
        self.store.write(self._file(number), to_lines(rows))

    def write_errors(self) -> int:
        """Write the rows of what failed to `ERRORS`; returns how many there are."""
        errors = [row for row in self.rows() if row.error is not None]
        if errors or self.store.exists(ERRORS):
            self.store.write(ERRORS, to_lines(errors))
        return len(errors)

    def forget_errors(self) -> None:
        """Remove the rows of what failed, so that it has none and is done again."""
        for number, name in self.parts():
            rows = self._read(name)
            kept = [row for row in rows if row.error is None]
            if len(kept) < len(rows):
                self.add(number, kept)

    def _compare(self, asked: dict[str, object]) -> None:
        """Raise BatchError unless what an earlier run was asked for is the same."""
        there = None
        with suppress(ValueError):
            there = json.loads(self.store.read(_TASK))
        if not isinstance(there, dict):
            msg = f"{self.store.path(_TASK)} is damaged; give another folder"
            raise BatchError(msg)
        if there != asked:
            names = sorted(name for name in {*there, *asked} if there.get(name) != asked.get(name))
            says = ", ".join(f"{name} {there.get(name)}, not {asked.get(name)}" for name in names)
            msg = f"{self.store.root} has the results of another batch: {says}; give another folder"
            raise BatchError(msg)

    def _read(self, name: str) -> list[Row]:
        try:
            return rows_of(self.store.read(name))
        except (ValueError, TypeError) as error:
            msg = f"{self.store.path(name)} is damaged: {error}; remove it, and its part is made again"
            raise BatchError(msg) from error

    def _file(self, number: int) -> str:
        return f"{FOLDER}/{part_name(number, '.jsonl')}"


def _numbers(names: list[str], suffix: str) -> list[tuple[int, str]]:
    """Return number and name of those that are parts, in their order."""
    found = ((_PART.fullmatch(name), name) for name in names)
    return sorted((int(match[1]), name) for match, name in found if match is not None and match[2] == suffix)
