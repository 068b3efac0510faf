"""Folders, of this machine or of an object store, by fsspec's URLs; files are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dlf.errors import BatchError, reason
from dlf.extras import first_line, need

UNFINISHED = "_unfinished"
"""Folder below a store for what is being written: in the same file system, where a file can be renamed."""

_ENDINGS = (".part", ".jsonl")  # of what is put there; no result has such


class Store:
    """A folder, or one file, and what is below it.

    url: a path of this machine, or "protocol://...", such as s3://bucket/folder with the package s3fs.

    Raises:
        BatchError: nothing is installed for the protocol, or it cannot be reached.
        MissingExtra: fsspec is not installed.
    """

    def __init__(self, url: str) -> None:
        need("fsspec", "batch")
        core = need("fsspec.core", "batch")
        try:
            self.fs, self.root = core.url_to_fs(url)
        except Exception as error:  # each protocol raises its own
            raise unusable(url, error) from error
        self.root = self.root.rstrip("/") or "/"
        protocol = self.fs.protocol
        self.protocols = (protocol,) if isinstance(protocol, str) else tuple(protocol)

    @property
    def is_local(self) -> bool:
        """Whether it is of this machine's file system."""
        return "file" in self.protocols

    def path(self, name: str) -> str:
        """Return the path of a file of this store, for the file system; name: with "/", below the root."""
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def place(self, path: str | None = None) -> tuple[tuple[str, ...], str]:
        """Return what two names of one folder have in common; path: below the root, for the file system."""
        path = self.root if path is None else path
        return self.protocols, os.path.realpath(path) if self.is_local else path

    def read(self, name: str, offset: int | None = None, size: int | None = None) -> bytes:
        """Return bytes of a file; raises what the file system does, for a missing file FileNotFoundError."""
        return read_at(self.fs, self.path(name), offset, size)

    def exists(self, name: str) -> bool:
        """Tell whether a file is there."""
        return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none where there is no such folder."""
        with suppress(FileNotFoundError):
            self.fs.invalidate_cache()
            listed = self.fs.ls(self.path(folder), detail=True)
            return sorted(each["name"].rpartition("/")[2] for each in listed if each["type"] == "file")
        return []

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        if not self.is_local:
            if "memory" not in self.protocols:  # where folders are real they have to be made
                with suppress(NotImplementedError, FileExistsError):
                    self.fs.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
            self.fs.pipe_file(self.path(name), data)
            return
        with self.unfinished(name) as file:
            file.write(data)

    @contextmanager
    def unfinished(self, name: str) -> Iterator[IO[bytes]]:
        """Give a file to write; at the end, and only without an error, it becomes the file of that name.

        Its bytes are on the disk, not in memory.
        """
        if self.is_local:
            folder = Path(self.root, UNFINISHED)
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f"{secrets.token_hex(8)}.part"
        else:
            part = Path(tempfile.gettempdir(), f"dlf-{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if self.is_local:
                target = Path(self.path(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                part.replace(target)
            else:
                self.fs.put_file(str(part), self.path(name))
        finally:
            part.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what was being written when a process died; results of a folder of that name stay."""
        with suppress(OSError):
            for name in self.names(UNFINISHED):
                if name.endswith(_ENDINGS):
                    self.remove(f"{UNFINISHED}/{name}")
            if self.is_local:
                Path(self.root, UNFINISHED).rmdir()


def read_at(fs: Any, path: str, offset: int | None = None, size: int | None = None) -> bytes:
    """Return a file of a file system, or `size` bytes from `offset` on."""
    if offset is None or size is None:
        return bytes(fs.cat_file(path))
    return bytes(fs.cat_file(path, start=offset, end=offset + size)) if size else b""


def unusable(url: str, error: Exception) -> BatchError:
    """Return the error that says why a place cannot be used."""
    said = first_line(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        said = reason(error)
    return BatchError(f"{url} cannot be used: {said}")
