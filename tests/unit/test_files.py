"""Files are written whole or not at all, and one of several writers of a name wins."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlf.files import write_bytes


@pytest.fixture(params=["unnamed", "named", "without second names"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the system can: files without names, only names, or not even two names of one file."""
    if request.param == "unnamed" and not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without names")
    if request.param != "unnamed":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    if request.param == "without second names":

        def no_link(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "not permitted")

        monkeypatch.setattr(os, "link", no_link)
    return str(request.param)


@pytest.mark.usefixtures("system")
def test_a_file_is_made_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"one", replace=False)
    assert path.read_bytes() == b"one"
    path.chmod(0o640)
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.usefixtures("system")
def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "any").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.usefixtures("system")
def test_what_is_not_to_be_replaced_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "a", b"two", replace=False)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_one_of_many_writers_wins(tmp_path: Path, system: str) -> None:
    if system == "without second names":
        pytest.skip("such a file system has no way to say it")

    def attempt(number: int) -> int | None:
        try:
            write_bytes(tmp_path / "a", b"%d" % number * 1000, replace=False)
        except FileExistsError:
            return None
        return number

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            winners = [number for number in pool.map(attempt, range(8)) if number is not None]
        assert len(winners) == 1
        assert (tmp_path / "a").read_bytes() == b"%d" % winners[0] * 1000
        assert os.listdir(tmp_path) == ["a"]
        (tmp_path / "a").unlink()


@pytest.mark.usefixtures("system")
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_bytes(b"one")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="No space"):
            write_bytes(tmp_path / name, b"two")
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"one"


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without names")
def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    """Where files need names a hidden one is left, which no listing of images shows."""
    code = (
        "import sys, os, dlf.files as files\n"
        "wait = os.fsync\n"
        "def slow(number): wait(number); print('written', flush=True); sys.stdin.read()\n"
        "os.fsync = slow\n"
        "files.write_bytes(sys.argv[1], bytes(1000))\n"
    )
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
    except OSError:
        pytest.skip("this file system has no files without names")
    command = [sys.executable, "-c", code, tmp_path / "a"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()
    time.sleep(0.05)
    assert os.listdir(tmp_path) == []
