"""The tool that measures models of the torch engine, on a tiny one."""

# ruff: noqa: E402
from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tool_modules import load_tool

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from dlf.bundles.bundle_writer import BundleSpec
from dlf.bundles.torch_bundle import write_torch_bundle
from dlf.nn.build import TINY_L
from dlf.nn.model import Dlf

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(sys.platform != "linux", reason="the tool reads the age of its process from /proc"),
]

TOOL = Path(__file__).parents[2] / "tools" / "bench_large.py"


@pytest.mark.slow
def test_every_claim_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = Dlf(TINY_L).state_dict()
    write_torch_bundle(TINY_L, weights.__getitem__, tmp_path, BundleSpec("tiny-l", 99))
    tool = load_tool("bench_large")
    monkeypatch.setattr(tool, "SIDE", 64)
    command = ["bench_large.py", str(tmp_path), "--windows", "2", "--repeats", "1", "--single"]
    command += ["--threads", str(torch.get_num_threads()), "--precision", "bfloat16", "--against", "float32"]
    monkeypatch.setattr(sys, "argv", command)
    tool.main()
    out = capsys.readouterr().out
    found = {
        pattern: re.search(pattern, out)
        for pattern in (
            r"ready to encode +([\d.]+) s after the start of the process; ([\d.]+) GB",
            r"first decoding +([\d.]+) s, with loading; ([\d.]+) GB at most",
            r"analyse +one window +([\d.]+) s, ([\d.]+) s a window, \d+ GMAC, \d+ GFLOPS: \d+% of torch's",
            r"synthesise +float32 +([\d.]+) s",
            r"synthesise +bfloat16 is ([\d.]+) times faster a window than float32",
            r"synthesise +bfloat16 is ([\d.]+) times faster a window than one window",
            r"pictures of the same symbols ([\d.]+) dB PSNR; (\d+) of 8 tokens",
        )
    }
    assert None not in found.values(), out
    psnr = found[r"pictures of the same symbols ([\d.]+) dB PSNR; (\d+) of 8 tokens"]
    assert psnr is not None
    assert 25 < float(psnr[1]) < 90
