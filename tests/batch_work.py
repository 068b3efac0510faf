"""Stand-ins for what works on the pictures of a batch, in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cli_run import ENGINE, stand_in
from dlf.batch.records import Made
from dlf.batch.worker import Task, Work


@dataclass(frozen=True)
class MockWork:
    """The codec of a task with the stand-in for its networks.

    killer: a file whose pictures' keys, a line each, end the process every time.  once: a file that, while
    it is there, ends the process that finds it, and is gone.  seconds: slowness of each picture.
    """

    task: Task
    killers: tuple[str, ...] = ()
    once: Path | None = None
    seconds: float = 0.0

    def __call__(self) -> Work:
        sys.modules[ENGINE] = stand_in()
        real = self.task()

        def work(key: str, data: bytes) -> Made:
            time.sleep(self.seconds)
            if key in self.killers:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.once is not None:
                try:
                    self.once.unlink()
                except FileNotFoundError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(key, data)

        return work
