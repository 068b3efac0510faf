"""The command ``dlf`` with the stand-in for the networks: ``python tests/mock_cli.py encode ...``.

The variable MOCK_SECONDS makes each image of a batch take that much longer.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cli_run import ENGINE, stand_in
from dlf.cli.main import main

sys.modules[ENGINE] = stand_in()


def slow_down(seconds: float) -> None:
    from dlf.batch.records import Made
    from dlf.batch.worker import Worker

    quick = Worker.__call__

    def slow(worker: Worker, key: str, data: bytes) -> Made:
        time.sleep(seconds)
        return quick(worker, key, data)

    Worker.__call__ = slow  # type: ignore[method-assign]


if "MOCK_SECONDS" in os.environ:
    slow_down(float(os.environ["MOCK_SECONDS"]))
if __name__ == "__main__":  # a process of its own that it starts reads this file too
    sys.exit(main())
