"""What a service is told when it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dlf.errors import InvalidArgument
from dlf.limits import MAX_FILE_BYTES

MAX_WORKERS = 4
"""Worker processes at most where nobody says how many: each holds the networks, half a gigabyte."""


GRACE = 5.0
"""Seconds that a worker may be late: one network of one tile takes less."""


def usual_workers() -> int:
    """Return a worker for every processor, two at least, so that a large picture holds nobody up."""
    return max(2, min(MAX_WORKERS, os.cpu_count() or 1))


@dataclass(frozen=True)
class Settings:
    """Limits and place of a service.

    Attributes:
        host: address to listen on.
        port: 0 takes any that is free.
        workers: processes that encode and decode, each one picture at a time.
        queue: requests that may wait for a worker, or for their own bodies, besides those at work.
        max_bytes: of a request's body.
        max_pixels: of a picture.
        timeout: seconds that a picture may take once a worker has it, and wait for one.
        upload_timeout: seconds that a body may take to arrive.
        idle_timeout: seconds that a connection may say nothing, or take nothing of an answer.
        max_connections: open at a time.
        model: name, role or id of the model that encodes where a request names none; None is the package's.
        engine: as `dlf.EngineOptions` has it.  ONNX Runtime paints a file always the same.
        threads: of each worker; None shares the processors out.
        runtime: folder of the npm package onnxruntime-web; with it the page can decode in the browser.
        origins: web origins whose pages may use the service, or "*".
        names: of hosts under which the service may be asked for, besides addresses and local names.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = field(default_factory=usual_workers)
    queue: int = 16
    max_bytes: int = 32 * 10**6
    max_pixels: int = 25 * 10**6
    timeout: float = 60.0
    upload_timeout: float = 30.0
    idle_timeout: float = 10.0
    max_connections: int = 512
    model: str | None = None
    engine: str = "onnxruntime"
    threads: int | None = None
    runtime: Path | None = None
    origins: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise InvalidArgument for numbers that no service can have."""
        least = {
            "port": 0, "workers": 1, "queue": 0, "max_bytes": 1, "max_pixels": 1, "max_connections": 1,
        }  # fmt: skip
        for name, number in least.items():
            if getattr(self, name) < number:
                msg = f"{name} is {getattr(self, name)}, but must be at least {number}"
                raise InvalidArgument(msg)
        for name in ("timeout", "upload_timeout", "idle_timeout"):
            if not 0 < getattr(self, name) < float("inf"):
                msg = f"{name} is {getattr(self, name)}, but must be a number of seconds above 0"
                raise InvalidArgument(msg)
        most = {"port": 65535, "max_bytes": MAX_FILE_BYTES}
        for name, number in most.items():
            if getattr(self, name) > number:
                msg = f"{name} is {getattr(self, name)}, but must be at most {number}"
                raise InvalidArgument(msg)

    @property
    def patience(self) -> float:
        """Seconds after which a worker is ended; before, it looks at the clock itself."""
        return self.timeout + min(GRACE, self.timeout / 2)

    @property
    def places(self) -> int:
        """Requests with a body that are taken at a time."""
        return self.workers + self.queue

    def worker_threads(self) -> int:
        """Return the processor threads of each worker, at least 1."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.workers)
