"""A batch that is killed again and again: every output is whole, and in the end all are there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cli_run import MOCK
from dlf.records import UInt8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without names"),
]
KILLS = int(os.environ.get("DLF_KILLS", "10"))
PICTURES = 40


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_batch_that_is_killed(
    command: str, tmp_path: Path, picture: Callable[[int, int], UInt8], write_bundle: Callable[..., Path]
) -> None:
    """`DLF_KILLS=50` kills as often; the moments are random, but the same in every run."""
    model = str(write_bundle(tmp_path / "model"))
    (tmp_path / "in").mkdir()
    for number in range(PICTURES):
        Image.fromarray(picture(200 + number, 300)).save(tmp_path / "in" / f"{number:02d}.png")

    def start(command: str, source: str, output: str) -> subprocess.Popen[bytes]:
        line = [*MOCK, command, "--model", model, source, "-o", output, "--skip-existing"]
        return subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def outputs(folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((tmp_path / folder).glob("*"))}

    source = "in"
    if command == "decode":
        with start("encode", "in", "coded") as process:
            process.communicate()
        source = "coded"
    with start(command, source, "whole") as process:
        process.communicate()
    whole = outputs("whole")
    assert len(whole) == PICTURES

    rng, counts = random.Random(1), []
    for _ in range(KILLS):
        with start(command, source, "out") as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(PICTURES // KILLS + 2)):  # outputs of this run before it dies
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        found = outputs("out")
        assert found.items() <= whole.items()
        assert set(os.listdir(tmp_path / "out") if found else []) == set(found)  # hidden files neither
        counts.append(len(found))
    assert counts == sorted(counts)
    with start(command, source, "out") as process:
        process.communicate()
    assert process.returncode == 0
    assert outputs("out") == whole
