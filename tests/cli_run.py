"""The command ``dlf`` in the process of a test, which is quick, with a stand-in for the networks."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from conftest import MockBackend
from dlf.bitstream import container
from dlf.cli.main import main

MOCK = [sys.executable, str(Path(__file__).parent / "mock_cli.py")]
"""The same as a command of a process of its own."""

ENGINE = "dlf.codec.onnx_backend"


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


def stand_in() -> types.ModuleType:
    """Module that takes the place of `ENGINE`."""
    module = types.ModuleType(ENGINE)
    module.OnnxBackend = lambda *_: MockBackend()  # type: ignore[attr-defined]
    return module


def runner(
    monkeypatch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[bytes], folder: Path, model: Path
) -> Callable[..., Done]:
    """Return `dlf(*arguments, stdin=b"")`, which runs in `folder` with the model."""
    monkeypatch.setitem(sys.modules, ENGINE, stand_in())
    monkeypatch.setenv("DLF_MODELS", str(folder / "no-models"))
    monkeypatch.chdir(folder)

    def dlf(*arguments: object, stdin: bytes = b"") -> Done:
        line = list(map(str, arguments))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(logging.getLogger(), "handlers", [])  # the command's own instead of pytest's
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            code = main([*line[:1], "--model", str(model), *line[1:]])
        out, err = captured.readouterr()
        assert b"Traceback" not in err
        return Done(code, out, err.decode())

    return dlf


def run_plain(*arguments: str) -> str:
    """Standard output of a command that takes no model."""
    done = subprocess.run([*MOCK, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def draw(path: str | Path, colour: str = "teal") -> bytes:
    """Write a small picture; return its bytes."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), colour).save(path)
    return Path(path).read_bytes()


def tree(folder: str | Path = ".") -> list[str]:
    """Files below a folder, by their paths, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def is_stream(path: str | Path) -> bool:
    return container.load(Path(path).read_bytes()).header.width == 64


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `dlf` is the command with the stand-in model."""
    function = f'dlf() {{ "{MOCK[0]}" "{MOCK[1]}" "$@" --model ../model; }}; '
    return subprocess.run(["bash", "-c", function + line], cwd=folder, capture_output=True, timeout=120)
