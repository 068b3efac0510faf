"""Worker processes: each does one thing at a time, and one that hangs or dies is replaced."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dlf.service import frames
from dlf.service.metrics import Metrics
from dlf.service.settings import Settings
from dlf.service.tasks import Answer, Refused, Task, pack_task

log = logging.getLogger(__name__)

START_SECONDS = 120
"""How long a worker may take to load its networks."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before another start where workers fail to start, doubled each time."""

END_SECONDS = 3.0
MOST_PATIENCE = 60
"""Seconds at most that a client is told to wait."""


class Worker:
    """One process; only one task at a time may be given to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._in, self._out = process, process.stdin, process.stdout

    @classmethod
    async def start(cls, options: dict[str, Any]) -> Worker:
        """Start a process; it is of use once `ready` returns."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dlf.service.worker", json.dumps(options),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20,
            start_new_session=os.name != "nt",
        )  # fmt: skip
        return cls(process)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended, as far as is known."""
        return self.process.returncode is None

    async def ready(self) -> Answer:
        """Wait for the networks to be loaded; an answer of another status than 200 says why they are not."""
        return await self._read()

    async def perform(self, task: Task, body: bytes) -> Answer:
        """Do a task; raises ConnectionError or EOFError where the process dies, BrokenFrame if it babbles."""
        self._in.write(frames.head(pack_task(task), len(body)))
        self._in.write(body)
        await self._in.drain()
        return await self._read()

    async def _read(self) -> Answer:
        fields, body = await frames.read(self._out)
        return Answer(body, **fields)

    def kill(self) -> None:
        """End the process at once."""
        with suppress(ProcessLookupError):
            self.process.kill()

    async def end(self) -> None:
        """Let the process end by itself, or else at once."""
        self._in.close()
        try:
            await asyncio.wait_for(self.process.wait(), END_SECONDS)
        except asyncio.TimeoutError:
            self.kill()
            await self.process.wait()


class Pool:
    """As many workers as the settings say, and the places before them."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._options = {
            "model": settings.model,
            "threads": settings.worker_threads(),
            "max_pixels": settings.max_pixels,
            "max_seconds": settings.timeout,
            "engine": settings.engine,
        }
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._workers: dict[int, Worker] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._taken = 0
        self._usual_seconds = 1.0
        self._overdue: set[Worker] = set()
        metrics.watch("dlf_workers_ready", "Workers that have their networks.", lambda: self.ready)
        metrics.watch("dlf_places_taken", "Requests with a body that are in the house.", lambda: self._taken)

    @property
    def ready(self) -> int:
        """How many workers have their networks and live."""
        return sum(worker.alive for worker in self._workers.values())

    def open(self) -> None:
        """Start the workers; returns before they are ready."""
        self._keepers = [asyncio.create_task(self._keep(number)) for number in range(self._settings.workers)]

    async def close(self) -> None:
        """End all workers."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places for the time that a request needs; raises Refused where there is none."""
        if self._taken >= self._settings.places:
            waiting = self._taken / self._settings.workers
            patience = math.ceil(min(MOST_PATIENCE, max(1, waiting * self._usual_seconds)))
            raise Refused(429, "all places are taken; try again later", patience)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, task: Task, body: bytes, gone: Callable[[], Awaitable[bool]]) -> Answer:
        """Let the next free worker do a task; gone: whether nobody waits for the answer any more.

        Raises:
            Refused: no worker was free in time, or the worker took too long or died.
        """
        worker = await self._take()
        if await gone():
            self._idle.put_nowait(worker)
            raise Refused(499, "the client went away")
        start = time.monotonic()
        try:
            answer = await asyncio.wait_for(worker.perform(task, body), self._settings.patience)
        except asyncio.TimeoutError as error:
            self._overdue.add(worker)
            worker.kill()
            msg = f"the picture takes more than {self._settings.timeout:g} seconds"
            raise Refused(504, msg) from error
        except (OSError, EOFError, frames.BrokenFrame, TypeError) as error:
            worker.kill()
            log.warning("worker %d is lost: %r", worker.process.pid, error)
            raise Refused(503, "the process that had the picture died; try again", 1) from error
        except asyncio.CancelledError:
            worker.kill()
            raise
        seconds = time.monotonic() - start
        self._usual_seconds += (seconds - self._usual_seconds) / 8
        self._metrics.work_seconds.labels(type(task).__name__).observe(seconds)
        self._idle.put_nowait(worker)
        return answer

    async def _take(self) -> Worker:
        """Return a worker that is free; raises Refused where none is in time."""
        deadline = time.monotonic() + self._settings.timeout
        while True:
            try:
                worker = await asyncio.wait_for(self._idle.get(), deadline - time.monotonic())
            except asyncio.TimeoutError as error:
                raise Refused(503, "no worker became free in time; try again later", 10) from error
            if worker.alive:
                return worker

    async def _keep(self, number: int) -> None:
        """Have one worker at all times."""
        pause = FIRST_PAUSE
        while True:
            worker = None
            try:
                worker = await self._start()
                if worker is not None and await self._started(worker):
                    pause = FIRST_PAUSE
                    self._workers[number] = worker
                    self._idle.put_nowait(worker)
                    code = await worker.process.wait()
                    reason = "timeout" if worker in self._overdue else "died"
                    self._overdue.discard(worker)
                    log.warning("worker %d ended (%s, exit code %d) and is replaced", worker.process.pid,
                                reason, code)  # fmt: skip
                else:
                    reason = "start"
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                self._metrics.replaced.labels(reason).inc()
            finally:
                self._workers.pop(number, None)
                if worker is not None:
                    await worker.end()

    async def _start(self) -> Worker | None:
        """Start a process; where none, no file or no memory is to be had, log it, and return None."""
        try:
            return await Worker.start(self._options)
        except OSError as error:
            log.error("no worker can be started: %s", error.strerror or error)
            return None

    async def _started(self, worker: Worker) -> bool:
        """Wait for a worker to be ready; where it is not to be, log why, and return False."""
        try:
            answer = await asyncio.wait_for(worker.ready(), START_SECONDS)
        except (asyncio.TimeoutError, OSError, EOFError, frames.BrokenFrame, TypeError) as error:
            log.error("worker %d did not start: %r", worker.process.pid, error)
            return False
        if answer.status != 200:
            sentence = json.loads(answer.body)["error"]
            log.error("worker %d did not start: %s", worker.process.pid, sentence)
            return False
        log.info("worker %d is ready", worker.process.pid)
        return True
