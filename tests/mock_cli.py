"""The command ``dlf`` with the stand-in for the networks: ``python tests/mock_cli.py encode ...``."""

from __future__ import annotations

import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import MockBackend
from dlf.cli.main import main

stand_in = types.ModuleType("dlf.codec.onnx_backend")
stand_in.OnnxBackend = lambda *_: MockBackend()  # type: ignore[attr-defined]
sys.modules["dlf.codec.onnx_backend"] = stand_in
if __name__ == "__main__":  # a process of its own that it starts reads this file too
    sys.exit(main())
