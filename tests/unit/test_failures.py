"""Full disks, quotas, places that cannot be written, too little memory: a sentence, and nothing half-done."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli_run import Done
from dlf import files
from dlf.bitstream import container
from dlf.bitstream.header import Header
from dlf.codec import bundle
from dlf.codec.backend import Network
from dlf.codec.bundle import ModelBundle
from dlf.codec.engine import TO_DECODE
from dlf.codec.onnx_backend import OnnxBackend
from dlf.entropy.tables import Tables
from dlf.errors import NO_MEMORY, BundleError, explain, is_out_of_memory, reason
from dlf.files import read_up_to, write_bytes
from shipped_models import needs_models

ROOT = Path(__file__).parents[2]
FULL = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO]


def no_room(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# disks


@pytest.mark.parametrize("number", FULL)
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_the_second_of_three_cannot_be_written(
    command: str, number: int, dlf: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a", "b", "c"]
    for name in names:
        Image.new("RGB", (64, 48), "teal").save(f"{name}.png")
    ending, other = (".png", ".dlf") if command == "encode" else (".dlf", ".png")
    if command == "decode":
        assert dlf("encode", "a.png", "b.png", "c.png").code == 0
        for name in names:
            Path(f"{name}.png").unlink()
    real, calls = files._fill, []

    def fill(file: Any, data: bytes) -> None:
        calls.append(file)
        if len(calls) == 2:
            file.write(data[: len(data) // 2])
            raise no_room(number)
        real(file, data)

    monkeypatch.setattr(files, "_fill", fill)
    done = dlf(command, *(name + ending for name in names), "-o", "out")
    assert done.code == 1
    first, last = done.err.splitlines()
    assert first.startswith(f"dlf: b{ending}: cannot write {Path('out', 'b' + other)}: {os.strerror(number)}")
    assert ("name another place" in first) == (number != errno.EIO)
    assert last == f"dlf: 1 of 3 inputs failed: b{ending}"
    assert sorted(os.listdir("out")) == [f"a{other}", f"c{other}"]
    assert dlf(command, *(name + ending for name in names), "-o", "out", "--skip-existing").code == 0
    assert len(os.listdir("out")) == 3


def _fail_at(patch: pytest.MonkeyPatch, turn: int) -> None:
    """Let the call of that number fail, of all that writing makes."""
    count = iter(range(100))

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(count) == turn:
                raise no_room(errno.ENOSPC)
            return real(*arguments, **options)

        return call

    for name in ("open", "fsync", "link", "chmod", "replace", "rename"):
        patch.setattr(os, name, failing(getattr(os, name)))
    patch.setattr(io, "open", failing(io.open))


@pytest.mark.parametrize("has_unnamed", [True, False])
@pytest.mark.parametrize("old", [None, b"one"])
def test_whichever_call_fails_a_file_is_the_old_or_the_new(
    has_unnamed: bool, old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_unnamed:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    place, failed = tmp_path / "a", 0
    for turn in range(20):
        place.unlink(missing_ok=True)
        if old is not None:
            place.write_bytes(old)
        with pytest.MonkeyPatch.context() as patch:
            _fail_at(patch, turn)
            try:
                write_bytes(place, b"two")
                wanted: bytes | None = b"two"
            except OSError:
                wanted, failed = old, failed + 1
        assert (place.read_bytes() if place.exists() else None) == wanted
        assert set(os.listdir(tmp_path)) <= {"a"}
    assert failed >= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no such limits")
def test_a_file_that_may_not_grow_leaves_nothing(tmp_path: Path) -> None:
    """A real limit of the system, met in the middle of a write."""
    code = (
        "import resource, sys; from dlf.files import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "write_bytes(sys.argv[1], b'small')\n"
        "try: write_bytes(sys.argv[2], bytes(100_000))\n"
        "except OSError as error: print(error.errno)\n"
    )
    line = [sys.executable, "-c", code, tmp_path / "a", tmp_path / "b"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{errno.EFBIG}\n", "")
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_said_of_a_place_says_what_to_do() -> None:
    assert reason(no_room(errno.EDQUOT)).endswith("(free some room, or name another place)")
    assert reason(no_room(errno.EROFS)).endswith("(name another place)")
    assert reason(OSError("a sentence")) == "a sentence"


# memory

ONNX = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Where node. Status Message: "
    "bfc_arena.cc:360 AllocateRawInternal Failed to allocate memory for requested buffer of size 604"
)
TORCH = "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(ONNX),
        RuntimeError(TORCH),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        OSError("out of memory error when writing image file"),
    ],
    ids=repr,
)
def test_too_little_memory_is_one_sentence(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert explain(error) == NO_MEMORY


@pytest.mark.parametrize("error", [RuntimeError("x"), BundleError("out of memory"), no_room(errno.ENOSPC)])
def test_other_errors_are_none_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_small_file_takes_little_memory_whatever_its_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(3_000_000))
    tracemalloc.start()
    try:
        with (tmp_path / "small").open("rb") as file:
            assert len(read_up_to(file, 2**31)) == 3_000_000
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def backend(model: ModelBundle, network: Callable[[], Network]) -> OnnxBackend:
    return OnnxBackend(model, model.tables(), 1, lambda *_: network())


@pytest.mark.parametrize("error", [RuntimeError(ONNX), MemoryError()])
def test_a_network_without_memory(
    error: Exception, tmp_path: Path, write_bundle: Callable[[Path], Path]
) -> None:
    pytest.importorskip("onnxruntime")
    model = ModelBundle.open(write_bundle(tmp_path / "model"))
    latent = np.zeros((8, 2, 2), np.int32), np.zeros((8, 2, 2), np.float32)

    def fail(*_: object) -> Any:
        raise error

    with pytest.raises(MemoryError):
        backend(model, fail).context(1, *latent)
    with pytest.raises(MemoryError):
        backend(model, lambda: Network(("y_hat",), fail)).context(1, *latent)


def test_a_thread_that_cannot_start_leaves_nobody_waiting(
    tmp_path: Path, write_bundle: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    model = ModelBundle.open(write_bundle(tmp_path / "model"))
    built = []

    def start(_: Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    def build(graph: str, *_: object) -> Network:
        built.append(graph)
        return Network((), lambda *_: [])

    monkeypatch.setattr(Thread, "start", start)
    OnnxBackend(model, model.tables(), None, build, TO_DECODE)
    assert built == list(TO_DECODE)


def test_tables_that_find_no_memory_are_not_called_damaged(
    to_npz: Callable[..., bytes], arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    data = to_npz(arrays)
    monkeypatch.setattr(np, "load", full)
    with pytest.raises(MemoryError):
        Tables.load(data)


@needs_models
def test_the_service_says_that_there_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    from dlf import Codec
    from dlf.service.tasks import Describe
    from dlf.service.work import Work, WorkerOptions

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    model = bundle.find(None).manifest
    file = container.dump(container.seal(Header(model.id, 50, 64, 48), b"", model.numerics))
    monkeypatch.setattr(Codec, "info", full)
    answer = Work(WorkerOptions(None, 1, 2**20, 60.0, "onnxruntime")).answer(Describe(), file)
    assert answer.status == 503


LIMITED = """
import resource, sys
import constriction, dlf.cli.decode, dlf.cli.encode, dlf.image_codec, numpy, onnxruntime, PIL.PngImagePlugin
from dlf.cli.main import main
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + int(sys.argv.pop(1)) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
sys.exit(main())
"""


@needs_models
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no limit of addresses")
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_little_memory(command: str, tmp_path: Path) -> None:
    """Megabytes beyond those of libraries, from too few to enough: a whole file, or a sentence and none."""
    photo = str(ROOT / "tests" / "data" / "astronaut.jpg")
    source, output = (photo, "x.dlf") if command == "encode" else ("whole.dlf", "x.png")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def run(*line: str, most: int = 2000) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LIMITED, str(most), *line, "--threads", "1"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )

    assert run("encode", photo, "-o", "whole.dlf").returncode == 0
    codes = []
    for most in (1, 5, 10, 20, 40, 60, 80, 100, 150, 400):
        done = run(command, source, "-o", output, "--json", most=most)
        codes.append(done.returncode)
        if done.returncode == 0:
            assert json.loads(done.stdout)["bytes"] == (tmp_path / output).stat().st_size
            (tmp_path / output).unlink()
        elif done.returncode != -signal.SIGSEGV:  # a library may die of it, which leaves nothing either
            assert done.returncode == 1, (most, done)
            assert done.stderr.endswith(f"{NO_MEMORY}\n"), (most, done)
            assert done.stderr.count("\n") == 1
        assert os.listdir(tmp_path) == ["whole.dlf"]
    assert codes[0] == 1
    assert codes[-1] == 0  # a limit of address space far below that of a model's files
