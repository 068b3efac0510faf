"""The command ``dlf``, also as ``python -m dlf``: Ctrl-C is heeded before anything slow is imported.

The process ends at once when all is done, for to take apart what the system takes back anyway, networks above
all, is a twentieth of the time of a small image.
"""

import gc
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130

_OBJECTS = 10_000
"""Objects after which Python looks for garbage.  Imports make very many and hardly any garbage."""


def run() -> int:
    """Run the command line; returns the exit code where the process cannot end at once."""
    gc.set_threshold(_OBJECTS)
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nohup and the like ignore it
    if heeded:
        signal.signal(signal.SIGINT, _end)
    from dlf.cli.main import main

    try:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main()
    except KeyboardInterrupt:  # before or after what `main` itself handles
        return INTERRUPTED
    finally:
        if heeded:
            signal.signal(signal.SIGINT, _end)
    _leave(code)
    return code


def _end(_: int, __: FrameType | None) -> None:
    """End the process at once: nothing is open yet, or nothing any more."""
    os.write(2, b"dlf: interrupted\n")
    os._exit(INTERRUPTED)


def _leave(code: int) -> None:
    """End the process as Python would, without freeing what it holds.

    Returns where only Python can end it: another thread may still write a file, a profiler or debugger waits
    for its end, or the streams cannot be emptied, which Python says in its own way.
    """
    import atexit
    import threading

    if threading.active_count() > 1 or sys.flags.interactive or sys.gettrace() or sys.getprofile():
        return
    finish = getattr(atexit, "_run_exitfuncs", None)  # as multiprocessing ends its own processes
    if finish is None:
        return
    finish()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(code)


if __name__ == "__main__":
    sys.exit(run())
