"""Batches: every input has one row and one result, whatever ends a worker or the whole run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fsspec", reason="needs the extra [batch]")

from batch_work import MockWork
from cli_run import ENGINE, MOCK
from dlf.batch import Job, Task, run
from dlf.batch.manifest import Manifest
from dlf.batch.records import Item, Made, Row, items_of, rows_of, to_lines
from dlf.batch.sink import Sink
from dlf.batch.sources import Source, items
from dlf.batch.stores import Store
from dlf.cli.main import main
from dlf.codec import onnx_backend
from dlf.errors import BatchError, InvalidArgument, UnknownModel

PICTURES = frozenset((".png", ".jpg"))
CORRUPT = "003.png"


@pytest.fixture(autouse=True)
def real_engine_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray calls what works on pictures in this process, too, where the stand-in must not stay."""
    monkeypatch.setitem(sys.modules, ENGINE, onnx_backend)


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_pictures(folder: Path, count: int) -> Path:
    """So many small pictures, half of them in a folder below; one is cut in its middle."""
    (folder / "more").mkdir(parents=True)
    for number in range(count):
        name = f"{number:03d}.png"
        data = png(number)
        path = folder / ("more" if number % 2 == 0 else "") / name
        path.write_bytes(data[: len(data) // 2] if name == CORRUPT else data)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("photos") / "in", 20)


@pytest.fixture
def task(tmp_path: Path, write_bundle: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("DLF_MODELS", str(tmp_path / "no-models"))
    return Task("encode", str(write_bundle(tmp_path / "model")))


def job(task: Task, source: object, out: object, **changes: object) -> Job:
    suffixes = PICTURES if task.direction == "encode" else frozenset((".dlf",))
    made = Job(Source(str(source), suffixes, but=str(out)), str(out), task, workers=1)
    return replace(made, **changes)  # type: ignore[arg-type]


def rows(out: object) -> list[Row]:
    return list(Manifest(Store(str(out))).rows())


def files(out: Path) -> set[str]:
    """Results in a folder, and whatever else is there but the manifest."""
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("manifest/")}


def check_whole(out: Path, source: Path, failed: set[str]) -> None:
    """Every input has one row and, unless it failed, one whole result; nothing else is there."""
    expected = {str(path.relative_to(source)) for path in source.rglob("*.png")}
    found = rows(out)
    assert Counter(row.path for row in found) == Counter(expected)
    assert {row.path for row in found if row.error is not None} == failed
    assert files(out) == {f"{path}.dlf" for path in expected - failed} | (
        {"errors.jsonl"} if failed else set()
    )
    for row in found:
        if row.output is not None:
            data = (out / row.output).read_bytes()
            assert (data[:3], len(data)) == (b"DLF", row.bytes)
            assert (row.width, row.height, row.bpp) == (64, 40, round(8 * len(data) / 64 / 40, 6))


def test_a_killed_worker_loses_nothing_and_doubles_nothing(photos: Path, tmp_path: Path, task: Task) -> None:
    out, once = tmp_path / "out", tmp_path / "once"
    told: list[Row | None] = []

    def follow(row: Row | None) -> None:
        told.append(row)
        if len(told) == 10:
            once.touch()  # half-way a worker ends

    work = MockWork(task, killers=("more/006.png",), once=once)
    summary = run(job(task, photos, out, workers=2), follow, work)
    assert not once.exists()
    check_whole(out, photos, {CORRUPT, "more/006.png"})
    assert (summary.done, summary.failed, summary.errors, summary.skipped) == (18, 2, 2, 0)
    errors = {row.path: row.error for row in rows_of((out / "errors.jsonl").read_bytes())}
    assert errors["more/006.png"] == "it ended its worker twice (SIGKILL)"
    assert len(told) == 20

    again = run(job(task, photos, out, workers=2), follow, work)
    assert (again.done, again.failed, again.skipped, again.errors) == (0, 0, 20, 2)
    assert told[20:] == [None] * 20
    mended = run(job(task, photos, out, workers=2, retry_errors=True), follow, MockWork(task))
    assert (mended.done, mended.failed, mended.skipped, mended.errors) == (1, 1, 18, 1)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", pytest.param("SIGKILL", marks=pytest.mark.slow)])
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_run_that_is_ended_goes_on(photos: Path, tmp_path: Path, task: Task, name: str) -> None:
    out = tmp_path / "out"
    line = [*MOCK, "batch", "encode", str(photos), str(out), "--model", str(task.model), "--workers", "1"]
    line += ["--shard-size", "4"]
    slow = os.environ | {"MOCK_SECONDS": "0.1"}  # else it may be at its end before the signal comes
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=slow) as process:
        until = time.monotonic() + 60
        while not (out / "001.png.dlf").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.Signals[name])
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    if name == "SIGINT":
        assert process.returncode == 130
    assert not list(out.glob("*.part"))
    before = len(rows(out))
    assert before < 20
    summary = run(job(task, photos, out), make=MockWork(task))
    assert summary.skipped == before
    check_whole(out, photos, {CORRUPT})


def test_shards_and_tables_hold_the_same(photos: Path, tmp_path: Path, task: Task) -> None:
    """Folder to tar, tar to Parquet (decoded and coded again), Parquet to a folder of pictures."""
    pytest.importorskip("pyarrow")
    plain, tar, table, back = (tmp_path / name for name in ("plain", "tar", "table", "back"))
    run(job(task, photos, plain), make=MockWork(task))
    run(job(task, photos, tar, kind="tar", part_size=8), make=MockWork(task))
    assert files(tar) == {"part-000000.tar", "part-000001.tar", "part-000002.tar", "errors.jsonl"}
    held = {}
    for path in sorted(tar.glob("*.tar")):
        with tarfile.open(path) as shard:
            assert len(shard.getmembers()) <= 8
            held |= {member.name: shard.extractfile(member).read() for member in shard}  # type: ignore[union-attr]
    assert held == {name: (plain / name).read_bytes() for name in files(plain) - {"errors.jsonl"}}

    run(job(task, photos, table, kind="parquet"), make=MockWork(task))
    decoding = Task("decode", task.model)
    run(job(decoding, table, back), make=MockWork(decoding))
    assert files(back) == {name[: -len(".dlf")] + ".png" for name in held}
    with Image.open(back / "more" / "000.png.png") as image:
        assert image.size == (64, 40)
    first = {row.path: row.bytes for row in rows(back)}
    assert first == {name: len(data) for name, data in held.items()}

    shards = list(items(Source(str(tar), frozenset((".dlf",)))))
    assert {item.key.partition("/")[2] for item in shards} == set(held)


def test_stores_of_fsspec(photos: Path, tmp_path: Path, task: Task) -> None:
    store = Store("memory://in")
    for path in list(photos.glob("*.png"))[:3]:
        store.write(f"a/{path.name}", path.read_bytes())
    run(job(task, "memory://in", "memory://out", kind="tar"), make=MockWork(task))
    run(job(task, "memory://in", f"file://{tmp_path}/out"), make=MockWork(task))
    shard = io.BytesIO(Store("memory://out").read("part-000000.tar"))
    with tarfile.open(fileobj=shard) as tar:
        names = set(tar.getnames())
    assert names == files(tmp_path / "out") - {"errors.jsonl"}
    assert Store("memory://out").names("_unfinished") == []


def test_what_a_dead_run_left_is_removed(tmp_path: Path, task: Task) -> None:
    tmp_path = tmp_path / "out"
    store = Store(str(tmp_path))
    manifest = Manifest(store)
    manifest.start(task, "tar")
    manifest.add(0, [Row("a", "a.dlf")])
    for name in ("part-000000.tar", "part-000001.tar", "_unfinished/0123.part", "notes.tar"):
        store.write(name, b"x")
    manifest.start(task, "tar")
    assert files(tmp_path) == {"part-000000.tar", "notes.tar"}
    with pytest.raises(BatchError, match="quality None, not 7; give another folder"):
        manifest.start(replace(task, quality=7), "tar")
    store.write("manifest/part-000003.jsonl", b'{"path": "a"}\n{"pa')
    with pytest.raises(BatchError, match=r"part-000003\.jsonl is damaged"):
        list(manifest.rows())


def test_parts_end_when_they_are_full(tmp_path: Path) -> None:
    manifest = Manifest(Store(str(tmp_path)))
    sink = Sink(manifest, "tar", 3, 2)
    for number in range(5):
        sink.add(Made(Row(f"{number}", f"{number}.dlf", bytes=1), b"x"))
    assert [number for number, _ in manifest.parts()] == [3, 4]
    sink.close()
    assert [row.path for row in manifest.rows()] == list("01234")
    sink = Sink(manifest, "tar", 9, 2)
    sink.add(Made(Row("9", "9.dlf"), b"x"))
    sink.abandon()
    assert not (tmp_path / "part-000009.tar").exists()
    assert not list((tmp_path / "_unfinished").iterdir())


def test_records_survive_their_lines() -> None:
    row = Row("ä/b\n.png", "x", 3, 0.5, 1, 2, 50, 0.1, None)
    item = Item("k", "u", 5, 512, None, "bad")
    assert rows_of(to_lines([row, row])) == [row, row]
    assert items_of(to_lines([item])) == [item]


@pytest.mark.parametrize(("pattern", "found"), [
    ("*.png", {"b.png", "a.PNG"}),
    ("**/*.png", {"b.png", "x/c.png", "x/y/d.png"}),
    ("x/*", {"c.png"}),  # from the folder on that is fixed
    ("[b]*", {"b.png"}),
    ("**/y/?.png", {"x/y/d.png"}),
])  # fmt: skip
def test_patterns(tmp_path: Path, pattern: str, found: set[str]) -> None:
    for name in ("b.png", "a.PNG", "x/c.png", "x/y/d.png", "x/.hidden.png", "x/e.txt", ".git/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    expected = found - {"a.PNG"} if pattern.startswith(("*.png", "**")) else found
    assert {item.key for item in items(Source(f"{tmp_path}/{pattern}", PICTURES))} == expected


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_links(tmp_path: Path) -> None:
    """Those to files are taken, those to folders are not followed: they may lead round in a circle."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"1234")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "in" / "nowhere.png").symlink_to(tmp_path / "none.png")
    (tmp_path / "in" / "below" / "round").symlink_to(tmp_path / "in")
    (item,) = items(Source(f"{tmp_path}/in", PICTURES))
    assert (item.key, item.size) == ("link.png", 4)


def test_places_that_cannot_be(tmp_path: Path, task: Task) -> None:
    (tmp_path / "empty").mkdir()
    for source, words in [
        (tmp_path / "none", "none cannot be used: No such file"),
        (tmp_path / "empty", r"has nothing to take \(of the endings .jpg, .png\)"),
        ("nowhere://x", "nowhere://x cannot be used: Protocol not known: nowhere"),
    ]:
        with pytest.raises(BatchError, match=words):
            run(job(task, source, tmp_path / "out"), make=MockWork(task))
    with pytest.raises(BatchError, match="both what is taken and where"):
        run(job(task, tmp_path / "empty", f"{tmp_path}/empty/"))
    with pytest.raises(InvalidArgument, match="at least one worker"):
        job(task, "in", "out", workers=0)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty" / "a.png").write_bytes(png(0))
    with pytest.raises(BatchError, match="file cannot be used"):
        run(job(task, tmp_path / "empty", tmp_path / "file"), make=MockWork(task))


def test_a_model_that_no_worker_can_load(photos: Path, tmp_path: Path, task: Task) -> None:
    with pytest.raises(UnknownModel, match="model 'none' is not installed"):
        run(job(replace(task, model="none"), photos, tmp_path / "out"))


def test_a_damaged_tar_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", "../b.png", "notes.txt", "c.png"):
            member = tarfile.TarInfo(name)
            member.size = 600
            tar.addfile(member, io.BytesIO(name[0].encode() * 600))
    whole = path.read_bytes()
    source = Source(str(path), PICTURES)
    listed = list(items(source))
    assert [(item.key, item.offset, item.error is None) for item in listed] == [
        ("a.png", 512, True), ("../b.png", 2048, False), ("c.png", 5120, True),
    ]  # fmt: skip
    for damaged in (whole[: 5120 + 100], whole[:4700], whole[:4608] + b"\xff" * 512 + whole[5120:]):
        path.write_bytes(damaged)
        errors = [item.error for item in items(source)]
        assert errors[:2] == [listed[0].error, listed[1].error]
        assert errors[-1] is not None
    path.write_bytes(b"no tar file at all" * 100)
    assert [item.error is None for item in items(source)] == [False]


def test_tables_as_others_write_them(tmp_path: Path, task: Task) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": png(number), "path": f"p/{number}.png"} for number in range(70)]
    pictures[5] = {"bytes": None, "path": "p/none.png"}
    pictures[6] = pictures[4]  # a name that is there twice
    parquet.write_table(arrow.table({"label": [1] * 70, "image": pictures}), tmp_path / "a.parquet")
    out = tmp_path / "out"
    summary = run(job(task, tmp_path / "a.parquet", out, workers=2), make=MockWork(task))
    assert (summary.done, summary.failed, summary.twice) == (68, 1, 1)
    assert {row.path: row.error for row in rows(out) if row.error} == {
        "p/none.png": "its row of the table has no bytes"
    }
    assert (out / "p" / "69.png.dlf").exists()
    numbered = replace(job(task, tmp_path / "a.parquet", out).source, key_column="label")
    assert [item.key for item in items(numbered)][:1] == ["1"]
    with pytest.raises(BatchError, match=r"no column 'x' of bytes \(its columns: label, image\)"):
        raise_errors(items(replace(numbered, column="x")))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(BatchError, match="cannot be read as a Parquet file"):
        raise_errors(items(numbered))


def raise_errors(listed: Iterator[Item]) -> None:
    for item in listed:
        if item.error is not None:
            raise BatchError(item.error)


def test_the_command(photos: Path, tmp_path: Path, task: Task) -> None:
    def dlf(*arguments: object) -> subprocess.CompletedProcess[str]:
        line = [*MOCK, "batch", *map(str, arguments), "--model", task.model]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr
        return done

    coded = dlf("encode", photos, "out", "--workers", 2, "--json", "-q", 20)
    assert coded.returncode == 1
    assert coded.stderr == "dlf: 1 image failed; out/errors.jsonl says why (--retry-errors does them again)\n"
    lines = [json.loads(line) for line in coded.stdout.splitlines()]
    assert (len(lines), {line["quality"] for line in lines if not line["error"]}) == (20, {20})
    back = dlf("decode", "out", "back", "--format", "jpg", "--workers", 1)
    assert back.returncode == 0
    assert back.stdout.startswith("19 images decoded, 0 failed, 0 were done before; ")
    assert len(files(tmp_path / "back")) == 19
    other = dlf("encode", photos, "out", "-q", 21)
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "quality 20, not 21" in other.stderr
    assert main(["batch", "encode", "a", "b", "--address", "x:1"]) == 2
    assert main(["batch", "encode", "a", "b", "--total-bytes", "999"]) == 2


def test_two_runs_at_one_place(photos: Path, tmp_path: Path, task: Task) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "out"

    def follow(row: Row | None) -> None:
        with pytest.raises(BatchError, match="another batch is at work"):
            run(job(task, photos, out), make=MockWork(task))

    run(job(task, f"{photos}/*1.png", out), follow, MockWork(task))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ray(tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real cluster of two cores; a worker is killed half-way, and one picture kills each that takes it."""
    pytest.importorskip("ray", reason="needs the extra [ray]")
    tests = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, *filter(None, sys.path)]))
    photos, out, once = write_pictures(tmp_path / "in", 300), tmp_path / "out", tmp_path / "once"
    done = 0

    def follow(row: Row | None) -> None:
        nonlocal done
        done += 1
        if done == 150:
            once.touch()

    work = MockWork(task, once=once)
    summary = run(job(task, photos, out, workers=2, part_size=20, address="local"), follow, work)
    assert not once.exists()
    check_whole(out, photos, {CORRUPT})
    assert (summary.done, summary.failed, summary.errors) == (299, 1, 1)
    again = run(job(task, photos, out, workers=2), make=MockWork(task))
    assert (again.done, again.skipped) == (0, 300)
