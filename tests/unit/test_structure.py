"""The code stays readable: small files, short functions; and optional parts say how to get them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dlf.errors import MissingExtra
from dlf.extras import need

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.name)
def test_size(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") < MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION_LINES, node.name


def test_missing_extra_says_what_to_type() -> None:
    assert need("json", "torch").__name__ == "json"
    with pytest.raises(MissingExtra, match=r"pip install 'dlf-codec\[torch\]'"):
        need("no_such_library.part", "torch")
