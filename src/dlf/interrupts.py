"""Holding Ctrl-C back where stopping half-way would leave something that cannot be gone on with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def postponed() -> Iterator[None]:
    """Let Ctrl-C wait until the block is left; in other threads than the main one it does not come anyway."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    met = False

    def note(*_: object) -> None:
        nonlocal met
        met = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if met:
        handler(signal.SIGINT, None)
