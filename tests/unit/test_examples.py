"""The programs in examples/ do what they say, and what is in deploy/ fits the command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

import dlf

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "tests" / "data" / "astronaut.jpg"
BOXES = ((0, 0, 256, 192), (150, 20, 342, 212), (200, 300, 328, 428))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three pieces of the photo, one of them in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    with Image.open(PHOTO) as image:
        for name, box in zip(("a.jpg", "b.png", "more/c.jpg"), BOXES, strict=True):
            image.crop(box).save(folder / name)
    return folder


def run(*line: object, folder: Path, path: str = "") -> str:
    done = subprocess.run(
        list(map(str, line)), cwd=folder, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_thumbnails(photos: Path, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, what in (("dlf", "-m dlf"), ("python3", "")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {what} "$@"\n')
        (commands / name).chmod(0o755)
    archive = tmp_path / "archive.tar"
    printed = run(ROOT / "examples/thumbnails.sh", photos, archive, 300, folder=tmp_path, path=str(commands))
    with tarfile.open(archive) as tar:
        sizes = {each.name: each.size for each in tar if each.isfile()}
        assert set(sizes) == {"./a.dlf", "./b.dlf", "./more/c.dlf"}
        file = tar.extractfile("./a.dlf")
        assert file is not None
        assert dlf.decode(file.read()).size == (256, 192)
    assert max(sizes.values()) <= 300
    assert printed.startswith(f"3 thumbnails, {sum(sizes.values())} bytes")


def test_packets(photos: Path, tmp_path: Path) -> None:
    named = [photos / "a.jpg", photos / "b.png", photos / "more" / "c.jpg"]
    printed = run(
        sys.executable, ROOT / "examples/packets.py", *named, "--bytes", 400, "--loss", 0.3, "--seed", 1,
        "-o", "out", folder=tmp_path,
    )  # fmt: skip
    sent, lost, painted = map(int, re.findall(r"(?:sent|lost|painted) (\d+)", printed))
    assert (sent, painted) == (3, sent - lost)
    assert lost == 1
    assert all(int(size) <= 400 for size in re.findall(r": (\d+) bytes", printed))
    assert len(list((tmp_path / "out").glob("*.png"))) == painted


def test_camera_folder(photos: Path, tmp_path: Path) -> None:
    """A photo that is still being written is not taken; what is no photo is named."""
    camera, queue = tmp_path / "camera", tmp_path / "queue"
    camera.mkdir()
    (camera / "broken.jpg").write_bytes(b"no photo")
    (camera / "notes.txt").write_text("not looked at")
    content = (photos / "a.jpg").read_bytes()
    slow = camera / "slow.jpg"
    slow.write_bytes(content[:1000])
    line = [sys.executable, str(ROOT / "examples/camera_folder.py"), str(camera), str(queue)]
    watching = subprocess.Popen(
        [*line, "--bytes", "300", "--pause", "0.5", "--count", "3"], stdout=subprocess.PIPE, text=True
    )
    try:
        shutil.copy(photos / "b.png", camera)
        for end in range(1000, len(content), len(content) // 4):
            with slow.open("ab") as file:
                file.write(content[end : end + len(content) // 4])
            time.sleep(0.1)
        printed, _ = watching.communicate(timeout=60)
    finally:
        watching.kill()
        watching.wait()
    assert "broken.jpg: " in printed
    assert {path.name for path in queue.iterdir()} <= {"b.dlf", "slow.dlf"}
    assert len(list(queue.glob("*.dlf"))) == 2
    assert dlf.info(queue / "slow.dlf").width == 256


def command_lines() -> list[tuple[str, str]]:
    container = (ROOT / "deploy/Containerfile").read_text("utf-8")
    unit = (ROOT / "deploy/dlf.service").read_text("utf-8")
    entry = re.findall(r"^ENTRYPOINT \[(.*)\]", container, re.MULTILINE)[0].replace('"', "").replace(",", "")
    start = re.findall(r"^ExecStart=(\S+) (.*)", unit, re.MULTILINE)[0]
    return [("Containerfile", entry.removeprefix("dlf ")), ("dlf.service", start[1])]


def test_what_is_deployed_is_a_command() -> None:
    from click import Context

    from dlf.cli.serve import command

    for name, line in command_lines():
        words = line.split()
        assert words[0] == "serve", name
        command.make_context("serve", words[1:], Context(command))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_hardened() -> None:
    """The exposure that systemd computes, 0 (none) to 10, and no directive that it does not know."""
    unit = str(ROOT / "deploy/dlf.service")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, timeout=60
    )
    found = re.search(r"Overall exposure level for dlf\.service: ([0-9.]+)", done.stdout)
    if found is None:
        pytest.skip("systemd-analyze does not read files here")
    assert float(found[1]) <= 2.0
    assert "Unknown" not in done.stderr
