"""What there is to do: pictures in folders, tar shards and tables, listed lazily and in a fixed order."""

from __future__ import annotations

import fnmatch
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from dlf.batch import tables
from dlf.batch.records import Item
from dlf.batch.stores import Store, unusable
from dlf.errors import BatchError, DlfError
from dlf.extras import first_line

SHARD, TABLE = ".tar", ".parquet"

_PATTERN = frozenset("*?[")

_NAMED = 6  # endings in a message


@dataclass(frozen=True)
class Source:
    """Where the inputs are.

    url: a folder (with what is below it), a file, or a pattern with * ? [ ] ("photos/**/*.jpg"); a path or a
        URL of fsspec.  Names that begin with a dot, and links to folders, are left out.
    suffixes: endings of the files to take, in small letters, from folders and tar files.
    column, key_column: of tables; None finds them, see `dlf.batch.tables`.
    but: a folder below to leave out, a URL.
    """

    url: str
    suffixes: frozenset[str]
    column: str | None = None
    key_column: str | None = None
    but: str | None = None


def items(source: Source) -> Iterator[Item]:
    """Yield the inputs; what cannot be listed, such as a damaged tar file, is an item with an error.

    Raises:
        BatchError: there is nothing at that place, or it cannot be reached.
        MissingExtra: a table, and pyarrow is not installed.
    """
    store, pattern = opened(source.url)
    left_out = Store(source.but).place() if source.but else None
    is_empty = True
    for file in _files(store, pattern, left_out, source.url):
        for item in [file] if file.error is not None else _within(store.fs, source, file):
            is_empty = False
            yield item
    if is_empty:
        endings = sorted(source.suffixes)
        more = f" and {len(endings) - _NAMED} more" if len(endings) > _NAMED else ""
        msg = f"{source.url} has nothing to take (of the endings {', '.join(endings[:_NAMED])}{more})"
        raise BatchError(msg)


def opened(url: str) -> tuple[Store, list[str] | None]:
    """Return the folder or file of a place, and the parts between "/" of the pattern below it, if it is one.

    Raises:
        BatchError: it cannot be reached.
    """
    first = next((place for place, letter in enumerate(url) if letter in _PATTERN), None)
    if first is None:
        return Store(url), None
    with suppress(Exception):  # of any file system
        named = Store(url)
        if named.exists(""):  # "Photos [2020]" is a name
            return named, None
    folder, slash, _ = url[:first].rpartition("/")
    return Store(folder + slash if folder or slash else "."), url[len(folder + slash) :].split("/")


def _files(store: Store, pattern: list[str] | None, left_out: object, url: str) -> Iterator[Item]:
    """Yield every file, with its name below the place as its key, and folders that cannot be read."""
    try:
        info = store.fs.info(store.root)
    except Exception as error:
        raise unusable(url, error) from error
    if info["type"] == "file":
        yield Item("", store.root, info.get("size"))
        return
    start = len(store.root.rstrip("/")) + 1
    waiting = [store.root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(store.fs.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
        except Exception as error:
            if folder == store.root:
                raise unusable(url, error) from error
            reason = getattr(error, "strerror", None) or first_line(error)
            yield Item(folder[start:], folder, error=f"the folder cannot be read: {reason}")
            continue
        below = []
        for entry in entries:
            path = str(entry["name"]).rstrip("/")
            if path == folder or path.rpartition("/")[2].startswith("."):
                continue
            names = path[start:].split("/")
            if entry["type"] == "directory":
                is_wanted = pattern is None or _leads_to(names, pattern)
                if is_wanted and not entry.get("islink") and store.place(path) != left_out:
                    below.append(path)
            elif pattern is not None and not _fits(names, pattern):
                continue
            elif entry["type"] == "file" or (entry.get("islink") and store.fs.isfile(path)):
                yield Item(path[start:], path, entry.get("size"))
        waiting += reversed(below)


def _leads_to(names: list[str], patterns: list[str]) -> bool:
    """Tell whether something below a folder may fit."""
    if not names or patterns[0] == "**":
        return True
    return (
        len(patterns) > 1
        and fnmatch.fnmatchcase(names[0], patterns[0])
        and _leads_to(names[1:], patterns[1:])
    )


def _fits(names: list[str], patterns: list[str]) -> bool:
    """Tell whether a name fits; "**" stands for any folders or none, "*" for a part of one name."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_fits(names[skipped:], patterns[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _within(fs: Any, source: Source, file: Item) -> Iterator[Item]:
    """Yield what a file holds; its key: below the place that was named, "" for that place itself."""
    ending = _ending(file.url)
    if ending == SHARD:
        yield from _members(fs, source, file.url, file.key)
    elif ending == TABLE:
        yield from _rows(fs, source, file.url, file.key)
    elif ending in source.suffixes or not file.key:
        yield replace(file, key=file.key or file.url.rpartition("/")[2])


def _ending(name: str) -> str:
    last = name.rpartition("/")[2]
    return "." + last.rpartition(".")[2].lower() if "." in last else ""


def _members(fs: Any, source: Source, path: str, name: str) -> Iterator[Item]:
    prefix = f"{name}/" if name else ""
    try:
        with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            end = 0
            while (member := tar.next()) is not None:
                if tar.offset <= end:
                    msg = "a member ends before it begins"
                    raise tarfile.ReadError(msg)
                end = tar.offset
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                if not member.isdir() and _ending(member.name) in source.suffixes:
                    key = safe_key(prefix + member.name)
                    error = key.error
                    if not member.isfile() or member.issparse():
                        error = (
                            "it is a link, sparse or no file in the tar file, and only whole files are read"
                        )
                    yield Item(key.text, path, member.size, member.offset_data, error=error)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # where it ends there are zeros
                yield Item(name or path, path, error="the tar file is damaged")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        yield Item(name or path, path, error=f"the tar file cannot be read: {first_line(error)}")


def _rows(fs: Any, source: Source, path: str, name: str) -> Iterator[Item]:
    prefix = f"{name}/" if name else ""
    try:
        for number, key in enumerate(tables.keys(fs, path, source.column, source.key_column)):
            safe = safe_key(prefix + f"{number:08d}" if key is None else key)
            yield Item(safe.text, path, row=number, error=safe.error)
    except DlfError as error:
        yield Item(name or path, path, error=str(error))


@dataclass(frozen=True)
class Key:
    """A name that results may have, or the reason why it is none."""

    text: str
    error: str | None = None


def safe_key(text: str) -> Key:
    """Return a name that stays below the folder of the results, as it came from inside a file."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in text:
        return Key(text, "its name leads out of the folder of the results")
    if any(len(part.encode("utf-8", "surrogatepass")) > 240 for part in parts):
        return Key(text, "its name is too long")
    return Key("/".join(parts))
