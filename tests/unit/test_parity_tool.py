"""The tool that compares the published preset with reference numbers: recipe, verdict, run."""

# ruff: noqa: E402
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from tool_modules import load_file, load_tool

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from dlf.bundles.bundle_writer import BundleSpec
from dlf.bundles.keymap import entries
from dlf.bundles.torch_bundle import published_tables, write_torch_bundle
from dlf.codec.bundle import ModelBundle
from dlf.codec.engine import EngineOptions
from dlf.entropy.coder import SymbolReader, SymbolWriter
from dlf.entropy.gaussian import exchange_symbols, table_index
from dlf.entropy.tables import Tables
from dlf.nn.build import DLF_L, TINY_L
from dlf.nn.model import Dlf
from dlf.torch_engine.snapped_context import SCALE_UNIT
from dlf.torch_engine.torch_backend import TorchBackend

pytestmark = pytest.mark.torch

TOOL = Path(__file__).parents[2] / "tools" / "parity.py"
REFERENCE = Path(__file__).parents[3] / "shared/parity"
FIXTURES = sorted(REFERENCE.glob("*.npz"))


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    return load_tool("parity")


@pytest.mark.parametrize("salt", [0, 7, 2**40])
def test_the_recipe_is_the_references(salt: int, parity: ModuleType) -> None:
    """For every tensor that the reference sets: name, size, type and values, cut to two rows."""
    if not (REFERENCE / "recipe.py").exists():
        pytest.skip("the reference's recipe is not at hand")
    reference = load_file(REFERENCE / "recipe.py")
    keys = json.loads((REFERENCE / "keys.json").read_text("utf-8"))
    theirs = {name: tuple(shape) for name, shape in keys.items() if not name.endswith(reference.SKIP)}
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in Dlf(DLF_L).state_dict().items()}
    shapes = {
        entry.theirs: parity.released_shape(entry.theirs, ours[entry.ours])
        for entry in entries(ours)
        if entry.ours is not None
    }
    assert shapes.keys() == theirs.keys()

    def cut(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (min(shape[0], 2), *shape[1:])

    for name, shape in theirs.items():
        assert [n for n in shapes[name] if n != 1] == [n for n in shape if n != 1], name
        value, target = parity.recipe(name, cut(shapes[name]), salt), reference.tensor(name, cut(shape), salt)
        assert value.dtype == target.dtype == np.float32
        np.testing.assert_array_equal(value.ravel(), target.ravel(), err_msg=name)


def test_another_salt_gives_other_weights(parity: ModuleType) -> None:
    first, again, other = (parity.recipe("a.weight", (4, 4), salt) for salt in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).any()


def test_a_failure_is_reported(parity: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    report = parity.Report()
    same: NDArray[np.float64] = np.ones(4)
    report.close("good", same, same * (1 + 1e-6), 1e-4)
    assert report.good
    report.close("bad", same, same * 1.01, 1e-4)
    assert not report.good
    assert capsys.readouterr().out.splitlines()[1].endswith("FAILED")


@pytest.mark.parametrize(
    ("ours", "good"), [(975, True), (1000, True), (1010, True), (1011, False), (1025, False)]
)
def test_only_a_larger_stream_is_a_failure(
    ours: int, good: bool, parity: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    report = parity.Report()
    report.size("detail_stream_bytes", ours, 1000)
    assert report.good == good
    assert capsys.readouterr().out.rstrip().endswith("ok" if good else "FAILED")


@pytest.mark.parametrize("fixture", FIXTURES or [None], ids=lambda path: path.stem if path else "none")
@pytest.mark.parametrize("cells", [2, 4, None])
def test_the_references_symbols_take_no_more_bytes(fixture: Path | None, cells: int | None) -> None:
    """Its symbols under its scales in our stream, whole and cut to a few cells; no model is needed."""
    if fixture is None:
        pytest.skip("the reference numbers are not at hand")
    tables = Tables.load(published_tables(DLF_L))
    with np.load(fixture, allow_pickle=False) as file:
        symbols = file["y_q"][:, :cells, :cells].astype(np.int32).ravel()
        scales = np.rint(file["scales"][:, :cells, :cells].astype(np.float64).ravel() * SCALE_UNIT)
        bytes_of_all, places = int(file["detail_stream_bytes"]), file["y_q"].size
    index = table_index(scales.astype(np.int32), tables)
    writer = SymbolWriter()
    exchange_symbols(writer, symbols, index, tables)
    data = writer.finish()
    received = exchange_symbols(SymbolReader(data), symbols, index, tables).symbols
    np.testing.assert_array_equal(received, symbols)
    if cells is None:
        assert 0.9 * bytes_of_all < len(data) <= 1.01 * bytes_of_all
    else:  # about their share
        assert len(data) == pytest.approx(bytes_of_all * len(symbols) / places, rel=0.2)


@pytest.mark.parametrize(("height", "width"), [(512, 256), pytest.param(256, 1792, marks=pytest.mark.slow)])
def test_a_file_is_compared_in_any_size(
    height: int, width: int, parity: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second size goes in tiles."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = Dlf(TINY_L).state_dict()
    write_torch_bundle(TINY_L, weights.__getitem__, tmp_path, BundleSpec("tiny-l", 99))
    bundle = ModelBundle.open(tmp_path)
    backend = TorchBackend(bundle, bundle.tables(), EngineOptions())
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    report = parity.Report()
    parity.check_file(report, backend, bundle, rgb)
    assert report.good, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("fixture", FIXTURES or [None], ids=lambda path: path.stem if path else "none")
def test_reference_numbers(fixture: Path | None, request: pytest.FixtureRequest) -> None:
    """The 1.27 G model; takes minutes, 5 GB on disk and 6 GB of memory."""
    if not request.config.getoption("--large"):
        pytest.skip("runs with --large")
    if fixture is None:
        pytest.skip("the reference numbers are not at hand")
    result = subprocess.run(
        [sys.executable, str(TOOL), str(fixture)], capture_output=True, text=True, check=False
    )
    assert result.stdout.endswith("parity: ok\n"), result.stdout + result.stderr
