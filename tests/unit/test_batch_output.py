"""dlf batch and the terminal: a reader that goes away, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")

from cli_run import MOCK, draw, tree
from dlf.batch import processes


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe that nobody reads is another error there")
def test_a_reader_that_goes_away_costs_no_results(
    tmp_path: Path, write_bundle: Callable[[Path], Path]
) -> None:
    for name in "abcd":
        draw(tmp_path / "in" / f"{name}.png")
    model = str(write_bundle(tmp_path / "model"))
    line = [*MOCK, "batch", "encode", "in", "out", "--workers", "1", "--json", "--model", model]
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(line, cwd=tmp_path, stdout=write_end, stderr=subprocess.PIPE, timeout=120)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")
    kept = [name for name in tree(tmp_path / "out") if name.endswith(".dlf")]
    assert kept  # at least the one whose row nobody read
    again = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0
    assert len(again.stdout.splitlines()) == 4 - len(kept)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no masks of signals")
def test_a_worker_meets_no_ctrl_c_before_it_ignores_it() -> None:
    script = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with processes._ctrl_c_blocked():
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
