"""The tool that puts convolutions of the synthesis into 8 bits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shipped_models import needs_models
from tool_modules import load_tool

pytest.importorskip("onnx")


@needs_models
def test_a_line_for_each_set_of_layers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(tmp_path / f"{name}.png")
    tool = load_tool("eight_bit_trial")
    monkeypatch.setattr(sys, "argv", ["eight_bit_trial", "fast", "--data", str(tmp_path), "--pictures", "2"])
    tool.main()
    few, every = (line for line in capsys.readouterr().out.splitlines() if " convolutions: " in line)
    assert few.startswith("3x3, 10 convolutions: ")
    assert every.startswith("all, 27 convolutions: ")
    assert not few.split("convolutions: ")[1].startswith("0.00 levels")
