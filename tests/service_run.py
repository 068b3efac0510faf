"""The service in a process of its own, on a free port of this machine, for the time of a test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Running:
    """A service; url: where it listens, log: the file of what it says."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def said(self) -> str:
        return self.log.read_text("utf-8")

    def workers(self) -> list[int]:
        """Processes that the log calls ready and not ended, in the order of their starts."""
        ended = re.findall(r"worker (\d+) ended", self.said())
        return [int(pid) for pid in re.findall(r"worker (\d+) is ready", self.said()) if pid not in ended]

    def wait_for_workers(self, number: int, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while len(self.workers()) < number:
            assert time.monotonic() < deadline, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)


DIRECT = """
import ast, logging, sys
from dlf.service.server import run, set_up_log
from dlf.service.settings import Settings
set_up_log(logging.INFO)
run(Settings(**ast.literal_eval(sys.argv[1])), lambda address: print("listening on", address, flush=True))
"""


@contextmanager
def serving(folder: Path, *options: str, **settings: object) -> Iterator[Running]:
    """Run `dlf serve` with these options besides a free port; its log goes to `folder`.

    settings: instead, of `dlf.service.settings.Settings`, some of which no option sets.
    """
    for module in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
        pytest.importorskip(module)
    log = folder / "service.log"
    line = [sys.executable, "-m", "dlf", "serve", "--port", "0", *options]
    if settings:
        line = [sys.executable, "-c", DIRECT, repr({"port": 0} | settings)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=file,
            env=os.environ | {"DLF_MODELS": str(folder / "no-models")},
        )
    try:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        assert first.startswith("listening on http://"), log.read_text("utf-8")
        yield Running(process, first.split()[-1], log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(url: str, body: bytes | None = None, seconds: float = 60, **headers: str) -> Reply:
    """Ask for something; whatever the status, it is returned.  Names of headers come back small."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as reply:
            return Reply(reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())
