"""tools/exactness.py, and the same on larger pictures: every way to decode gives the committed symbols."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from dlf.bitstream.header import Header
from dlf.codec import bundle
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.onnx_backend import OnnxBackend
from dlf.reference.decoder import decode_symbols
from dlf.reference.model import ReferenceModel
from shipped_models import NAMES, needs_models
from tool_modules import load_tool

ROOT = Path(__file__).parents[2]
STREAMS = ROOT / "tests" / "conformance" / "streams"
KODAK = ROOT.parent / "shared" / "data" / "kodak"
SMALL = [str(STREAMS / f"{name}-m5-q50.dlf") for name in ("cup", "escapes", "pixel", "empty")]

pytestmark = needs_models


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("exactness")


def committed(paths: list[str]) -> dict[str, list[str]]:
    index = json.loads((STREAMS.parent / "index.json").read_text("utf-8"))
    sums = {
        str(STREAMS.parent / each["file"]): [each["token_sha256"], each["detail_sha256"]]
        for each in index["streams"]
    }
    return {path: sums[path] for path in paths}


@pytest.mark.parametrize("worker", ["reference", "onnxruntime", "mixed"])
def test_every_way_gives_the_committed_symbols(worker: str, tool: ModuleType) -> None:
    """For ONNX Runtime: at each level of optimisation, with 1 to 4 threads."""
    found = list(tool.WORKERS[worker](SMALL))
    assert len(found) == (16 if worker == "onnxruntime" else 1)
    for way, sums in found:
        assert sums == committed(SMALL), way


@pytest.mark.slow
@pytest.mark.torch
def test_torch_gives_the_committed_symbols(tool: ModuleType) -> None:
    pytest.importorskip("torch")
    ((_, sums),) = tool.torch_sums(SMALL)
    assert sums == committed(SMALL)


def test_a_difference_is_told(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "streams").mkdir()
    for path in SMALL:
        shutil.copy(path, tmp_path / "streams")
    entries = [
        {"file": f"streams/{Path(path).name}", "token_sha256": sums[0], "detail_sha256": sums[1]}
        for path, sums in committed(SMALL).items()
    ]
    monkeypatch.setattr(tool, "FOLDER", tmp_path)
    monkeypatch.setattr(tool, "ways", lambda _, paths, *__: tool.reference_sums(paths))
    monkeypatch.setattr(sys, "argv", ["exactness"])
    for wrong in (False, True):
        if wrong:
            entries[1]["detail_sha256"] = "0" * 64
        (tmp_path / "index.json").write_text(json.dumps({"streams": entries}))
        assert tool.main() == int(wrong)
        assert f"4 streams | {int(wrong)} differ" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("folder", NAMES)
@pytest.mark.parametrize("index", range(0, 24, 8))
def test_kodak_at_five_rates(folder: str, index: int) -> None:
    """Both decoders read the same from every file; `tools/exactness.py --data` takes all pictures."""
    pictures = sorted(KODAK.glob("*.png"))
    if len(pictures) != 24:
        pytest.skip("the Kodak pictures are not at hand")
    with Image.open(pictures[index]) as image:
        rgb = np.asarray(image.convert("RGB"))
    model = ModelBundle.open(bundle.ASSETS / folder)
    tables, reference = model.tables(), ReferenceModel.open(model.folder)
    codec = StreamCodec(model.manifest, tables, OnnxBackend(model, tables, 2))
    latents = codec.analyse(rgb, 50)
    for quality in (0, 25, 50, 75, 100):
        stream = codec.write(latents, Header(model.manifest.id, quality, rgb.shape[1], rgb.shape[0]))
        first, second = codec.receive(stream), decode_symbols(stream, reference)
        np.testing.assert_array_equal(first.tokens, second.tokens)
        np.testing.assert_array_equal(first.details, second.details)
        np.testing.assert_array_equal(first.y_hat, second.y_hat)
