"""Ctrl-C at any moment: exit code 130, one line, nothing half-done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlf.interrupts import postponed

PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Ctrl-C is heeded, here and by processes of here, also where the tests were started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


posix = pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to whole consoles")


@posix
def test_an_interrupt_waits_until_the_block_is_left() -> None:
    seen = []

    def half_way() -> None:
        with postponed():
            signal.raise_signal(signal.SIGINT)
            seen.append("whole")

    with pytest.raises(KeyboardInterrupt):
        half_way()
    assert seen == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_ignored_signals_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", None)  # not called
    seen: list[str] = []

    def other() -> None:
        with postponed():
            seen.append("thread")

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    with postponed():
        seen.append("ignored")
    assert seen == ["thread", "ignored"]


@posix
def test_an_interrupt_while_the_command_is_imported(tmp_path: Path) -> None:
    """The command's parts take a while to import, and a traceback of an import tells nobody anything."""
    (tmp_path / "click.py").write_text(
        "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n", "utf-8"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "dlf", "--help"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "dlf: interrupted\n")


@posix
@pytest.mark.slow
def test_an_interrupt_at_any_moment_of_a_batch(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(3)]
    for name in names:
        shutil.copy(PHOTO, tmp_path / name)
    command = [sys.executable, "-m", "dlf", "encode", *names, "-o", "out"]
    pipe = subprocess.PIPE
    began = time.monotonic()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    whole = time.monotonic() - began
    codes = set()
    for part in range(3, 20):  # before that Python itself starts
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as process:
            time.sleep(whole * part / 20)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        codes.add(process.returncode)
        # Python ends by the signal itself, which shells call 130, where it interrupted an exec() of an import
        assert process.returncode in (0, 130, -signal.SIGINT), errors
        assert errors in ("", "dlf: interrupted\n")
        if (tmp_path / "out").exists():
            assert set(os.listdir(tmp_path / "out")) <= {"0.dlf", "1.dlf", "2.dlf"}
    assert codes & {130, -signal.SIGINT}
