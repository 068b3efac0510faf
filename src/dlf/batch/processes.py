"""Local processes, one picture each at a time; one that dies is replaced, and its picture tried once more.

A thread stands behind every process: it reads a picture, hands it over, waits, and passes the result on.  At
no time is more in memory than a picture and a result for each of them::

    items --next--> thread --bytes--> process (the codec)
                    thread <--result-
                    thread --> sink
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from threading import Event, Lock, Thread
from typing import Any

from dlf.batch.records import Item, Made, failed
from dlf.batch.worker import MakeWork
from dlf.errors import BatchError, DlfError, explain

TRIES = 2
"""How often a picture may end a process before it is given up."""

_WAIT = 0.2  # seconds between looks at whether the user wants to stop


def serve(pipe: Connection, make: MakeWork) -> None:
    """Be a worker: load the model, then answer until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    work, error = None, None
    try:
        work = make()
    except DlfError as reason:
        error = reason
    with suppress(
        EOFError, OSError
    ):  # the parent has closed the pipe or is gone, maybe in the middle of a picture
        pipe.send(error)
        while work is not None:
            pipe.send(work(*pipe.recv()))


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Let a process that is started here meet no Ctrl-C until it ignores it: it begins with long imports."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Ended(Exception):
    """A process ended; the text says how."""


class _Stopped(Exception):
    """The user wants to stop."""


class _Process:
    """One process, ready to work."""

    def __init__(self, make: MakeWork) -> None:
        context = multiprocessing.get_context("spawn")  # forking is not safe where there are threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, make), daemon=True)
        with _ctrl_c_blocked():
            self._process.start()
        theirs.close()

    def wait_ready(self) -> None:
        """Wait until the model is loaded; raises what that raises, and Ended."""
        error = self._answer()
        if error is not None:
            raise error

    def work(self, key: str, data: bytes) -> Made:
        """Return the result of a picture; raises Ended."""
        try:
            self._pipe.send((key, data))
        except OSError:
            raise Ended(self._how()) from None
        made: Made = self._answer()
        return made

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def close(self) -> None:
        """Let it end, and wait; does nothing the second time."""
        if self._pipe.closed:
            return
        self._pipe.close()
        self._process.join()
        self._process.close()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            raise Ended(self._how()) from None

    def _how(self) -> str:
        self._process.join()
        code = self._process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


class Processes:
    """So many processes at work.

    make: loads the model in each.  read: gives the bytes of an item.  done: takes every result; called by
    several threads.
    """

    def __init__(
        self, make: MakeWork, workers: int, read: Callable[[Item], bytes], done: Callable[[Made], None]
    ) -> None:
        self._make, self._workers, self._read, self._done = make, workers, read, done
        self._stop = Event()
        self._lock = Lock()
        self._alive: set[_Process] = set()
        self._error: BaseException | None = None

    def run(self, items: Iterator[Item]) -> None:
        """Work on all items; whatever ends it early, no process is left behind.

        Raises:
            DlfError: the model cannot be loaded, or what listing the items raises.
            OSError: a result cannot be written.
        """
        listed = _Shared(items)
        threads = [Thread(target=self._slot, args=(listed,), daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_WAIT)
        finally:
            self._halt()
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def _halt(self) -> None:
        with self._lock:
            self._stop.set()
            for process in self._alive:
                process.kill()

    def _slot(self, listed: _Shared) -> None:
        """Be the thread of one process after the other."""
        process: _Process | None = None
        try:
            while not self._stop.is_set() and (item := listed.next()) is not None:
                try:
                    data = self._read(item)
                except Exception as error:  # of any file system
                    self._done(failed(item, explain(error)))
                    continue
                process, made = self._made(process, item, data)
                self._done(made)
        except _Stopped:
            pass
        except BaseException as error:
            self._error = self._error or error
            self._stop.set()
            self._halt()
        finally:
            if process is not None:
                self._end(process)

    def _made(self, process: _Process | None, item: Item, data: bytes) -> tuple[_Process | None, Made]:
        how = ""
        for _ in range(TRIES):
            process = process or self._start()
            try:
                return process, process.work(item.key, data)
            except Ended as ended:
                self._end(process)
                process, how = None, str(ended)
                if self._stop.is_set():
                    raise _Stopped from None
        return None, failed(item, f"it ended its worker twice ({how})")

    def _start(self) -> _Process:
        with self._lock:
            if self._stop.is_set():
                raise _Stopped
            process = _Process(self._make)
            self._alive.add(process)
        try:
            process.wait_ready()
        except Ended as ended:
            self._end(process)
            if self._stop.is_set():
                raise _Stopped from None
            msg = f"a worker ended while it loaded the model ({ended})"
            raise BatchError(msg) from None
        except BaseException:
            self._end(process)
            raise
        return process

    def _end(self, process: _Process) -> None:
        with self._lock:
            self._alive.discard(process)
        process.close()


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items, self._lock = items, Lock()

    def next(self) -> Item | None:
        """Return the next item, None at the end; raises what the iterator does."""
        with self._lock:
            return next(self._items, None)
