"""The command ``dlf`` with the stand-in for the networks: ``python tests/mock_cli.py encode ...``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cli_run import ENGINE, stand_in
from dlf.cli.main import main

sys.modules[ENGINE] = stand_in()
if __name__ == "__main__":  # a process of its own that it starts reads this file too
    sys.exit(main())
