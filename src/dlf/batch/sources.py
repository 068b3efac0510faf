"""What there is to do: pictures in folders, tar shards and tables, listed lazily and in a fixed order."""

from __future__ import annotations

import fnmatch
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dlf.batch import tables
from dlf.batch.records import Item
from dlf.batch.stores import Store, unusable
from dlf.errors import BatchError, DlfError
from dlf.extras import first_line

SHARD, TABLE = ".tar", ".parquet"

OWN_FOLDERS = ("manifest", "_unfinished")

_PATTERN = frozenset("*?[")


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
    fixed, pattern = _split(source.url)
    store = Store(fixed)
    left_out = Store(source.but).root if source.but else None
    is_empty = True
    for path, size, name in _files(store, pattern, left_out, source.url):
        for item in _within(store.fs, source, path, size, name):
            is_empty = False
            yield item
    if is_empty:
        msg = f"{source.url} has nothing to take (of the endings {', '.join(sorted(source.suffixes))})"
        raise BatchError(msg)


def fixed_part(url: str) -> str:
    """Return the folder or file of a place, without a pattern."""
    return _split(url)[0]


def _split(url: str) -> tuple[str, str | None]:
    """Split a pattern into the folder that is fixed and the rest; no pattern, no rest."""
    if not _PATTERN & set(url):
        return url, None
    first = next(place for place, letter in enumerate(url) if letter in _PATTERN)
    folder, slash, _ = url[:first].rpartition("/")
    return (folder + slash if folder or slash else "."), url[len(folder + slash) :]


def _files(
    store: Store, pattern: str | None, left_out: str | None, url: str
) -> Iterator[tuple[str, int | None, str]]:
    """Yield path, size and name below the place of every file."""
    try:
        info = store.fs.info(store.root)
    except Exception as error:
        raise unusable(url, error) from error
    if info["type"] == "file":
        yield store.root, info.get("size"), ""
        return
    for path, size in _walk(store, store.root, left_out, url):
        name = path[len(store.root.rstrip("/")) + 1 :]
        if pattern is None or _matches(name, pattern):
            yield path, size, name


def _walk(store: Store, root: str, left_out: str | None, url: str) -> Iterator[tuple[str, int | None]]:
    """Yield path and size of the files below a folder, folder by folder, so that only one is held."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(store.fs.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
        except Exception as error:
            if folder == root:
                raise unusable(url, error) from error
            yield folder, None  # no file: whoever wants to read it says so
            continue
        below = []
        for entry in entries:
            path = str(entry["name"]).rstrip("/")
            name = path.rpartition("/")[2]
            if name.startswith(".") or path in (folder, left_out):
                continue
            if entry["type"] == "directory":
                if not entry.get("islink") and not (folder == root and name in OWN_FOLDERS):
                    below.append(path)
            elif entry["type"] == "file" or (entry.get("islink") and store.fs.isfile(path)):
                yield path, entry.get("size")
        waiting += reversed(below)


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a name fits; "**" stands for any folders or none, "*" for a part of one name."""
    return _fits(name.split("/"), pattern.split("/"))


def _fits(names: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_fits(names[skipped:], patterns[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _within(fs: Any, source: Source, path: str, size: int | None, name: str) -> Iterator[Item]:
    """Yield what a file holds; name: below the place that was named, "" for that place itself."""
    ending = _ending(path)
    if ending == SHARD:
        yield from _members(fs, source, path, name)
    elif ending == TABLE:
        yield from _rows(fs, source, path, name)
    elif ending in source.suffixes or not name:
        yield Item(name or path.rpartition("/")[2], path, size)


def _ending(name: str) -> str:
    last = name.rpartition("/")[2]
    return "." + last.rpartition(".")[2].lower() if "." in last else ""


def _members(fs: Any, source: Source, path: str, name: str) -> Iterator[Item]:
    prefix = f"{name}/" if name else ""
    try:
        with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                if member.isfile() and _ending(member.name) in source.suffixes:
                    key = safe_key(prefix + member.name)
                    error = "it is a sparse member of a tar file" if member.issparse() else key.error
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
