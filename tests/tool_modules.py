"""Programs of tools/ as modules, for their tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).parents[1] / "tools"


def load_file(path: Path) -> ModuleType:
    """Run a Python file as a module of its own, in `sys.modules`, where its dataclasses look it up."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def load_tool(name: str) -> ModuleType:
    """Run a program of tools/ as a module."""
    return load_file(TOOLS / f"{name}.py")
