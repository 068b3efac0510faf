"""Mutated inputs: a few of each target, more among the slow tests; `python -m fuzz` has any number."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.__main__ import generated, one
from fuzz.targets import FOUND, TARGETS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the limits of time and memory are those of POSIX")
KEPT = sorted(path for path in FOUND.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "runs"), [("header", 2000), ("coder", 200), ("salvage", 100), ("tables", 200), ("image", 100)]
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_inputs_are_read_or_refused(name: str, runs: int) -> None:
    target = TARGETS[name]()
    outcomes = {number: one(target, generated(target, 7, number)) for number in range(runs)}
    assert {number: outcome for number, outcome in outcomes.items() if outcome.startswith("FAULT")} == {}
    assert {"read"} < set(outcomes.values())  # some are good still, some are not


def test_what_is_no_error_of_the_package_is_a_fault() -> None:
    from fuzz.targets import Target

    def read(data: bytes) -> None:
        raise ValueError(data)

    assert one(Target((), lambda rng, data: data, read), b"x").startswith("FAULT ValueError")


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
@pytest.mark.filterwarnings("ignore")
def test_what_was_a_fault_once_is_none(path: Path) -> None:
    assert not one(TARGETS[path.parent.name](), path.read_bytes()).startswith("FAULT")


@pytest.mark.slow
def test_the_command_prints_counts() -> None:
    command = [sys.executable, "-m", "fuzz", "--runs", "1500"]
    done = subprocess.run(command, cwd=FOUND.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(\w+): 1,500 inputs in \d+ s, 0 faults", done.stdout, re.MULTILINE) == list(TARGETS)
