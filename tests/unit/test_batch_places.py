"""Batches whose inputs have names or places that make trouble; what works on them is a stand-in."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="needs the extra [batch]")

from fsspec.implementations.local import LocalFileSystem

from dlf.batch import Job, Task, run
from dlf.batch.job import Summary
from dlf.batch.manifest import Manifest
from dlf.batch.processes import Processes, serve
from dlf.batch.records import Item, Made, Row
from dlf.batch.sources import Source, items, safe_key
from dlf.batch.stores import Store
from dlf.batch.worker import Work
from dlf.errors import BatchError

PICTURES = frozenset((".png", ".jpg"))
ENCODE, DECODE = Task("encode"), Task("decode")


class HereOnly(Processes):
    """Does the work in this process, which is all that these tests need."""

    def run(self, items: object) -> None:
        work = self._make()
        for item in items:  # type: ignore[attr-defined]
            self._done(
                work(item.key, self._read(item)) if item.error is None else Made(Row(item.key, error="x"))
            )


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlf.batch.job.Processes", HereOnly)


def batch(source: object, out: object, task: Task = ENCODE, **changes: object) -> Summary:
    """Run a batch that takes each input for its own result."""

    def make() -> Work:
        return lambda key, data: Made(Row(key, task.output_name(key), len(data), 8.0, 1, len(data)), data)

    suffixes = PICTURES if task.direction == "encode" else frozenset((".dlf",))
    job = Job(Source(str(source), suffixes, but=str(out)), str(out), task, workers=1)
    return run(replace(job, **changes), make=make)  # type: ignore[arg-type]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


def write_tar(path: Path, *names: str, **links: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(b"x" * len(name)))
        for name, kind in links.items():
            link = tarfile.TarInfo(f"{name}.png")
            link.type, link.linkname = kind, names[0]
            tar.addfile(link)
    return path


def rows(out: object) -> dict[str, Row]:
    return {row.path: row for row in Manifest(Store(str(out))).rows()}


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be there")
@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_a_name_that_no_result_can_have_fails_alone(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    deep = "/".join(["d" * 200] * 30) + "/deep.png"
    source = write_tar(tmp_path / "in" / "a.tar", "a.png", deep, "bad\udcff.png", "new\nline.png")
    write(tmp_path / "in", "y" * 251 + ".png", "z.png")
    summary = batch(source.parent, tmp_path / "out", kind=kind)
    bad = {path for path, row in rows(tmp_path / "out").items() if row.error is not None}
    long = {f"a.tar/{deep}", "y" * 251 + ".png"}
    assert bad == {"folder": long, "tar": set(), "parquet": {"a.tar/bad\udcff.png"}}[kind]
    assert (summary.done, summary.failed) == (6 - len(bad), len(bad))
    assert batch(source.parent, tmp_path / "out", kind=kind).skipped == 6


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other than a name, it concerns all; what was written before the last rows is done again."""
    source = write(tmp_path / "in", "a.png", "b.png")
    real = Store.write

    def full(store: Store, name: str, data: bytes) -> None:
        if name == "b.png.dlf":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(store, name, data)

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(BatchError, match="out cannot be used: No space left on device"):
        batch(source, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("dlf.batch.job.Processes", HereOnly)
    assert batch(source, tmp_path / "out").done == 2


def test_folders_of_inputs_may_have_any_name(tmp_path: Path) -> None:
    names = ("manifest/a.png", "_unfinished/b.png", "Photos [2020]/c.png")
    source, out, back = write(tmp_path / "in", *names), tmp_path / "out", tmp_path / "back"
    assert batch(source, out).done == 3
    assert batch(source, out).skipped == 3
    assert batch(out, back, DECODE).done == 3
    assert all((back / f"{name}.png").exists() for name in names)
    assert batch(source / "Photos [2020]", tmp_path / "year").done == 1
    assert batch(f"{tmp_path}/in/Photos [[]2020]/*.png", tmp_path / "pattern").done == 1


def test_files_that_are_there_are_not_taken_for_parts(tmp_path: Path) -> None:
    """Neither inputs nor results that look like a part may be removed."""
    shard = write_tar(tmp_path / "own" / "part-000000.tar", "a.png")
    with pytest.raises(BatchError, match=r"own has part-000000\.tar, but no manifest"):
        batch(shard, shard.parent, kind="tar")
    assert shard.exists()
    coded = write(tmp_path / "coded", "part-000007.dlf")
    for done in (1, 0):
        assert batch(coded, tmp_path / "back", DECODE).done == done
        assert (tmp_path / "back" / "part-000007.png").exists()
    write(tmp_path / "back" / "manifest", "part-000000.bak")
    assert set(rows(tmp_path / "back")) == {"part-000007.dlf"}


def test_where_nothing_can_be_taken_nothing_is_noted(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="cannot be used"):
        batch(tmp_path / "none", tmp_path / "out", replace(ENCODE, quality=20))
    assert not (tmp_path / "out").exists()


def test_of_two_inputs_with_one_result_the_first_is_taken(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a.tar", "a.dlf", "a.DLF", "b.dlf", "/b.dlf")
    for done in (2, 0):
        summary = batch(source, tmp_path / "out", DECODE)
        assert (summary.done, summary.skipped, summary.twice) == (done, 2 - done, 2)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in", "a.png", "closed/b.png")
    real = LocalFileSystem.ls

    def ls(self: LocalFileSystem, path: str, *rest: object, **options: object) -> object:
        if path.endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(self, path, *rest, **options)

    monkeypatch.setattr(LocalFileSystem, "ls", ls)
    listed = {item.key: item.error for item in items(Source(str(source), PICTURES))}
    assert listed == {"a.png": None, "closed": "the folder cannot be read: Permission denied"}
    (item,) = items(Source(f"{source}/*.png", PICTURES))  # nothing in that folder is asked for
    assert item.key == "a.png"


def test_tar_members_that_are_no_files(tmp_path: Path) -> None:
    kinds = {"hard": tarfile.LNKTYPE, "soft": tarfile.SYMTYPE, "pipe": tarfile.FIFOTYPE}
    path = write_tar(tmp_path / "a.tar", "a.png", **kinds)
    errors = {item.key: item.error is not None for item in items(Source(str(path), PICTURES))}
    assert errors == {"a.png": False, "hard.png": True, "soft.png": True, "pipe.png": True}


def test_a_tar_member_of_less_than_no_bytes(tmp_path: Path) -> None:
    """Some releases of tarfile read it for ever."""
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    (item,) = items(Source(str(tmp_path / "a.tar"), PICTURES))
    assert item == Item(
        str(tmp_path / "a.tar"),
        str(tmp_path / "a.tar"),
        error="the tar file cannot be read: a member ends before it begins",
    )


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_one_place_by_two_names(tmp_path: Path) -> None:
    source = write(tmp_path / "in", "a.png")
    (tmp_path / "link").symlink_to(source)
    for taken, out in (("in", "link"), ("in/*.png", "in"), ("link", "./in/")):
        with pytest.raises(BatchError, match="both what is taken and where"):
            batch(tmp_path / taken, f"{tmp_path}/{out}")
    batch(tmp_path / "link", source / "out")
    assert [item.key for item in items(Source(f"{tmp_path}/link", frozenset((".dlf",)), but="x"))] == [
        "out/a.png.dlf"
    ]
    with pytest.raises(BatchError, match="nothing to take"):
        list(items(Source(f"{tmp_path}/link", frozenset((".dlf",)), but=f"{source}/out")))


@pytest.mark.parametrize("text", ["", "[]", '{"to": "folder"', "\udcff"])
def test_a_damaged_note_of_the_task(tmp_path: Path, text: str) -> None:
    source, out = write(tmp_path / "in", "a.png"), tmp_path / "out"
    batch(source, out)
    (out / "manifest" / "task.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BatchError, match=r"task\.json is damaged; give another folder"):
        batch(source, out)


@pytest.mark.parametrize("row", [{"path": ["a"]}, {"path": None}, {"way": "a"}, ["path"], None])
def test_rows_that_somebody_has_edited(tmp_path: Path, row: object) -> None:
    source, out = write(tmp_path / "in", "a.png"), tmp_path / "out"
    batch(source, out)
    (out / "manifest" / "part-000000.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BatchError, match=r"part-000000\.jsonl is damaged"):
        batch(source, out)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert batch(write(tmp_path / "in", "a.png"), tmp_path / "out").done == 1


def test_a_mended_shard_is_no_error_any_more(tmp_path: Path) -> None:
    """Its members have rows of their own; the row of the shard itself goes."""
    source, out = write(tmp_path / "in", "a.tar", "b.png"), tmp_path / "out"
    assert batch(source, out).errors == 1
    write_tar(source / "a.tar", "a.png")
    assert batch(source, out).errors == 1  # but what is new is done
    summary = batch(source, out, retry_errors=True)
    assert (summary.done, summary.skipped, summary.errors) == (0, 2, 0)
    assert set(rows(out)) == {"a.tar/a.png", "b.png"}
    assert (out / "errors.jsonl").read_bytes() == b""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_worker_whose_parent_is_killed_ends_quietly() -> None:
    ours, theirs = multiprocessing.Pipe()
    with os.fdopen(os.dup(ours.fileno()), "wb", buffering=0) as pipe:
        pipe.write((1000).to_bytes(4, "big") + b"a part of a picture")
    ours.close()
    serve(theirs, lambda: lambda key, data: Made(Row(key)))


@pytest.mark.parametrize("name", ["", "..", "a/../../b", "a\\..\\b", "x" * 300, "a\0b", "/"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    assert safe_key(name).error is not None


def test_names_are_put_below() -> None:
    assert safe_key("/etc//./x.png").text == "etc/x.png"
