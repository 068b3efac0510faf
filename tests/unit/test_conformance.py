"""The conformance folder: both decoders read it, and refuse what is to be refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dlf
from dlf.bitstream import container
from dlf.codec import bundle
from dlf.codec.codec import StreamCodec
from dlf.codec.onnx_backend import OnnxBackend
from dlf.reference.decoder import decode_symbols, sha256_of
from dlf.reference.model import ReferenceModel
from shipped_models import needs_models
from tool_modules import load_tool

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "conformance"
MOST_BYTES = 1e6

pytestmark = needs_models


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    return load_tool("conformance")


def decoder(engine: str, model: str | None = None) -> Callable[[Path, Path], int]:
    codec = dlf.Codec(model=model, engine=dlf.EngineOptions(threads=1, engine=engine))

    def decode(source: Path, target: Path) -> int:
        try:
            codec.decode(source.read_bytes()).save(target)
        except dlf.DlfError:
            return 1
        return 0

    return decode


def first(source: Path) -> dict[str, Any]:
    info = dlf.info(source, symbols=True)
    return {"token_sha256": info.token_sha256, "detail_sha256": info.detail_sha256}


@lru_cache
def reference(number: int) -> ReferenceModel:
    return ReferenceModel.open(bundle.find(number).folder)


def second(source: Path) -> dict[str, Any]:
    stream = container.load(source.read_bytes())
    found = decode_symbols(stream, reference(stream.header.model))
    return {"token_sha256": sha256_of(found.tokens), "detail_sha256": sha256_of(found.details)}


@pytest.mark.parametrize(("engine", "symbols"), [("onnxruntime", first), ("reference", second)])
def test_every_case(engine: str, symbols: Callable[[Path], dict[str, Any]], runner: ModuleType) -> None:
    outcomes = runner.run(decoder(engine), symbols)
    assert len(outcomes) > 50
    assert [outcome for outcome in outcomes if outcome.faults] == []


def test_the_command_line(runner: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"{sys.executable} -m dlf"
    words = ["conformance", "--decoder", f"{command} decode {{in}} -o {{out}}"]
    words += ["--symbols", f"{command} info --symbols --engine reference --json {{in}}"]
    monkeypatch.setattr(sys, "argv", [*words, "--only", "pixel-m5-q50", "cut-in-header"])
    assert runner.main() == 0


def test_a_decoder_that_does_not_conform_is_found_out(runner: ModuleType) -> None:
    other = decoder("onnxruntime", "fast")

    def careless(source: Path, target: Path) -> int:
        other(FOLDER / "streams" / "cup-m5-q50.dlf", target)
        return 0

    names = ("cup-m5-q50", "face-m5-q50", "cat-m5-q0", "version-0")
    found = {Path(o.name).stem: " ".join(o.faults) for o in runner.run(careless, lambda _: {}, only=names)}
    assert "another token_sha256: None" in found["cup-m5-q50"]
    assert "painted otherwise" in found["cup-m5-q50"]
    assert "40x33 pixels" in found["face-m5-q50"]
    assert "40x33 pixels" in found["cat-m5-q0"]
    assert "must be refused" in found["version-0"]
    assert "picture behind" in found["version-0"]
    assert "crashed" in runner.run(lambda *_: -11, only=("version-0",))[0].faults[0]


def test_the_folder_is_whole_and_small(runner: ModuleType) -> None:
    """Every file is listed, every shipped model has streams, and a symbol has every size that it can have."""
    index = runner.read_index()
    listed = {entry["file"] for entry in [*index["streams"], *index["refused"]]}
    listed |= {entry["picture"] for entry in index["streams"] if "picture" in entry}
    held = {path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/*")}
    assert held == listed
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < MOST_BYTES
    for model in bundle.installed():
        if model.folder.parent == bundle.ASSETS:
            streams = [e for e in index["streams"] if e["model"] == model.manifest.id]
            assert len({entry["quality"] for entry in streams}) >= 5
            assert index["models"][str(model.manifest.id)]["numerics"] == model.manifest.numerics
    stream = container.load((FOLDER / "streams" / "escapes-m5-q50.dlf").read_bytes())
    model = bundle.find(5)
    tables = model.tables()
    found = StreamCodec(model.manifest, tables, OnnxBackend(model, tables, 1)).receive(stream).details
    assert {24, -24, 25, -25, 26, -300, 7000, 2**15, -(2**15)} <= set(found.flat)
