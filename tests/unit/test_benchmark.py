"""dlf bench: every figure is there and adds up; what cannot run says so."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dlf import benchmark
from dlf.benchmark import BenchmarkError, Settings
from dlf.cli.main import main
from shipped_models import needs_models

PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"

pytestmark = needs_models


def test_rows_of_a_model() -> None:
    settings = Settings(("fast",), ((96, 64),), (1,), repeats=2, operators=True)
    encode, decode = benchmark.measure(settings, PHOTO)
    assert (encode.task, decode.task) == ("encode", "decode")
    assert (encode.width, encode.height, encode.threads, encode.model) == (96, 64, 1, "fast")
    assert encode.bytes > 20
    assert set(encode.stages) == {"analysis", "prior and context", "coding"}
    assert set(decode.stages) == {"synthesis", "prior and context", "coding"}
    for row in (encode, decode):
        assert row.first.processor > row.median.processor > 0  # the first one builds networks
        assert row.products == pytest.approx(row.median.processor / row.product.processor)
        assert all(spent.wall > 0 for spent in row.stages.values())
    assert set(encode.operators) == {"analysis", "prior", "context"}
    assert "Conv" in encode.operators["context"]
    assert all(seconds >= 0 for kinds in decode.operators.values() for seconds in kinds.values())


def test_threads_that_still_turn_after_a_product_are_waited_for() -> None:
    """OpenBLAS keeps its threads in a loop for a tenth of a second."""

    def turn(end: float) -> None:
        while time.monotonic() < end:
            pass

    other = threading.Thread(target=turn, args=(time.monotonic() + 0.3,))
    other.start()
    benchmark._wait_for_idle_threads()
    assert not other.is_alive()


def test_the_command_prints_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sizes", "64x64", "--models", "fast", "--threads", "1", "--repeats", "1"]
    assert main(["bench", *options, "--json"]) == 0
    machine, encode, decode = map(json.loads, capsys.readouterr().out.splitlines())
    assert machine["kind"] == "machine"
    assert machine["libraries"]["numpy"] == np.__version__
    assert (encode["kind"], encode["task"], decode["task"]) == ("codec", "encode", "decode")
    assert encode["products"] > 0
    assert main(["bench", *options]) == 0
    text = capsys.readouterr().out
    assert "decode fast 64x64, threads 1: " in text
    assert "  synthesis " in text


@pytest.mark.parametrize(
    "options", [["--sizes", "64"], ["--sizes", "0x9"], ["--threads", "0"], ["--threads", "x"]]
)
def test_wrong_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *options]) == 2
    assert options[0] in capsys.readouterr().err


def test_an_unknown_model_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--models", "none-such", "--sizes", "64x64"]) == 1
    assert "none-such" in capsys.readouterr().err


@pytest.mark.slow
def test_whole_processes() -> None:
    rows = list(benchmark.measure_processes(Settings(("fast",), ((64, 64),), repeats=1), PHOTO))
    assert [(row.program, row.task) for row in rows] == [("dlf", "encode"), ("dlf", "decode")]
    for row in rows:
        assert row.bytes > 20
        assert row.median.wall > 0.05
        assert row.peak is None or 20e6 < row.peak < 1e9


def test_other_programs_are_run_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that copies stands in for both sides of WebP."""
    if sys.platform == "win32":
        pytest.skip("the stand-in is a shell script")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("cwebp", "dwebp"):
        script = tmp_path / name
        script.write_text('#!/bin/sh\nfor last; do :; done\necho painted > "$last"\n')
        script.chmod(0o755)
    settings = Settings((), ((32, 16),), repeats=1)
    rows = [row for row in benchmark.measure_others(settings) if row.program == "cwebp"]
    assert [(row.task, row.bytes) for row in rows] == [("encode", 8), ("decode", 8)]
    (tmp_path / "cwebp").write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n")
    assert shutil.which("cwebp") == str(tmp_path / "cwebp")
    with pytest.raises(BenchmarkError, match="'cwebp' failed with code 3: no such thing"):
        list(benchmark.measure_others(settings))


def test_the_picture_that_is_made_up() -> None:
    rgb = benchmark.made_up(48, 40)
    assert rgb.shape == (40, 48, 3)
    assert rgb.dtype == np.uint8
    assert rgb.std() > 10
    np.testing.assert_array_equal(rgb, benchmark.made_up(48, 40))
