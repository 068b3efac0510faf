"""The command ``dlf``, also as ``python -m dlf``: Ctrl-C is heeded before anything slow is imported."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def run() -> int:
    """Run the command line; returns the exit code."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nohup and the like ignore it
    if heeded:
        signal.signal(signal.SIGINT, _end)
    from dlf.cli.main import main

    try:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return main()
    except KeyboardInterrupt:  # before or after what `main` itself handles
        return INTERRUPTED
    finally:
        if heeded:
            signal.signal(signal.SIGINT, _end)


def _end(_: int, __: FrameType | None) -> None:
    """End the process at once: nothing is open yet, or nothing any more."""
    os.write(2, b"dlf: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(run())
