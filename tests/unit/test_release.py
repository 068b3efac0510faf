"""Workflows that cannot be changed from outside, and a wheel that comes out the same twice."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits(path: Path) -> None:
    uses = re.findall(r"uses: (.*)", path.read_text("utf-8"))
    assert uses
    assert [use for use in uses if not PINNED.fullmatch(use)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_nothing_unless_a_job_says_so(path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {}
    assert all("permissions" in job and "timeout-minutes" in job for job in workflow["jobs"].values())


def test_zizmor_finds_no_fault() -> None:
    zizmor = shutil.which("zizmor", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if zizmor is None:
        pytest.skip("zizmor is not installed")
    found = subprocess.run(
        [zizmor, "--offline", "--pedantic", "--no-progress", ".github"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a umask is not a thing of Windows")
def test_two_builds_are_one_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    sums = []
    for name, umask, date in (("one", 0o022, 981173106), ("two", 0o077, 1700000000)):
        copy = tmp_path / name
        for part in ("src", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        for path in copy.rglob("*"):
            os.utime(path, (date, date))
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / f"{name}-wheel"]
        subprocess.run(build, cwd=copy, check=True, capture_output=True)
        [wheel] = (tmp_path / f"{name}-wheel").iterdir()
        sums.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert sums[0] == sums[1]
