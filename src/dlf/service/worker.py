"""A worker process, ``python -m dlf.service.worker OPTIONS``: frames in by standard input, answers out.

It ends with its standard input, also in the middle of a picture, so that none outlives its service.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
from dataclasses import asdict
from typing import Any, BinaryIO

from dlf.service import frames
from dlf.service.tasks import Answer, refusal, unpack_task

LOG_FORMAT = "%(asctime)s %(levelname)s %(process)d %(message)s"


def main(argument: str) -> None:
    """Load the networks, say so, and do what comes until nothing more does."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the service, which ends us when it has done
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format=LOG_FORMAT, level=logging.WARNING)
    answers = _take_standard_output()
    tasks: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    from dlf.errors import DlfError
    from dlf.service.work import Work, WorkerOptions

    work = Work(WorkerOptions(**json.loads(argument)))
    try:
        work.warm_up()
    except DlfError as error:
        _send(answers, refusal(500, str(error)))
        return
    _send(answers, Answer(b""))
    while True:
        fields, body = tasks.get()
        answer = work.answer(unpack_task(fields), body)
        del body
        _send(answers, answer)


def _listen(tasks: queue.Queue[tuple[dict[str, Any], bytes]]) -> None:
    """Read frames; at the end of them the process ends, whatever it is doing."""
    while (frame := frames.read_blocking(sys.stdin.buffer)) is not None:
        tasks.put(frame)
    os._exit(0)


def _take_standard_output() -> BinaryIO:
    """Return standard output, and let what libraries print go to standard error."""
    kept = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return kept


def _send(file: BinaryIO, answer: Answer) -> None:
    fields = asdict(answer)
    body = fields.pop("body")
    file.write(frames.head(fields, len(body)))
    file.write(body)
    file.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BrokenPipeError:
        pass  # nobody waits for the answer
    except Exception:
        logging.exception("the worker fails")
    os._exit(1)  # at an ordinary end Python would meet the thread that waits for frames
