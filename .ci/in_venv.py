"""Run a command of a virtual environment on any system: `python .ci/in_venv.py FOLDER COMMAND ...`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

folder, command, *arguments = sys.argv[1:]
programs = Path(folder).resolve() / ("Scripts" if sys.platform == "win32" else "bin")
sys.exit(subprocess.run([programs / command, *arguments]).returncode)
