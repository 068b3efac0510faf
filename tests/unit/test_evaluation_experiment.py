"""The front door in Python: requests, what is refused, and the example of the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dlf.cli import eval as eval_command
from dlf.errors import DlfError, ImageError, MissingExtra, SpecError
from dlf.evaluation import EvaluationRequest, evaluate, experiment, prepare, summary, write_report
from dlf.evaluation.codecs import specs
from dlf.evaluation.codecs.protocols import ComparedCodec
from dlf.evaluation.codecs.specs import CodecSpec
from dlf.evaluation.dataset import NAMED
from dlf.evaluation.ledger import Row
from dlf.records import UInt8

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.fixture
def folder(tmp_path: Path, picture: Callable[[int, int], UInt8], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images below the working directory."""
    (tmp_path / "photos").mkdir()
    for name, size in (("a", (96, 64)), ("b", (70, 90))):
        Image.fromarray(picture(*size)).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_the_example_of_the_documentation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    exec(compile(example.replace('"dlf"', '"jpeg"').replace('"avif"', '"webp"'), "example", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("# Evaluation\n")
    assert "| webp | 0.5 |" in printed
    assert not list(folder.parent.glob("out*"))


def test_nothing_is_kept_unless_asked_for(folder: Path, tmp_path: Path) -> None:
    rows: list[Row] = []
    request = EvaluationRequest(folder, codecs=["webp@1", "jpeg@1"], metrics=["psnr"], bpp=[2, 4])
    results = evaluate(request, rows.append)
    assert len(rows) == prepare(request).total == 8
    assert set(results.curves) == {"webp@1", "jpeg@1"}
    assert results.failed == ()
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    write_report(results, tmp_path / "report")
    assert (tmp_path / "report" / "summary.md").read_text("utf-8") == summary(results)


def test_a_second_run_takes_the_rows_of_the_first(folder: Path, tmp_path: Path) -> None:
    request = EvaluationRequest(folder, codecs=("webp",), bpp=(2,), output=tmp_path / "out")
    first = evaluate(request)
    ledger = (tmp_path / "out" / "rows.jsonl").read_bytes()
    assert evaluate(request).rows == first.rows
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == ledger
    assert len(list((tmp_path / "out" / "files").rglob("*.png.*"))) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"codecs": ["bmp"]}, "'bmp' is not one of the codecs"),
        ({"codecs": ["webp", "webp=jpeg"]}, "two codecs are called 'webp'"),
        ({"metrics": ["beauty"]}, "'beauty' is not one of the metrics"),
        ({"metrics": ["stem"]}, "needs a file of weights"),
        ({"quality": [50]}, "needs the codec dlf"),
        ({"bpp": [0.0]}, "bits a pixel are numbers above 0"),
        ({"bpp": []}, "at least one"),
        ({"crop": 0}, "at least one pixel a side"),
        ({"dataset": "mine"}, "'mine' is not one of the data sets kodak, clic2020"),
        ({"anchors": ["heic"]}, "the anchor heic is not one of webp, best-of-formats"),
        ({"judge": "stem"}, "the judge stem is not among the metrics psnr, ms_ssim"),
    ],
)
def test_what_cannot_be_asked_for(folder: Path, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence) as told:
        prepare(EvaluationRequest(folder, **{"codecs": ["webp"], **change}))  # type: ignore[arg-type]
    assert isinstance(told.value, ValueError)
    assert isinstance(told.value, DlfError)


def test_the_command_has_the_same_defaults() -> None:
    assert (eval_command.CODECS, eval_command.METRICS) == (experiment.CODECS, experiment.METRICS)
    assert eval_command.bits(eval_command.RATES) == experiment.RATES
    assert set(eval_command.DATASETS) == set(NAMED)


def test_what_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(spec: CodecSpec, threads: int | None) -> ComparedCodec:
        msg = "the plugin is not installed"
        raise MissingExtra(msg)

    monkeypatch.setitem(specs.KINDS, "heic", absent)
    evaluation = prepare(EvaluationRequest(folder, codecs=["webp", "heic"]))
    assert [codec.name for codec in evaluation.comparison.codecs] == ["webp"]
    assert evaluation.left_out == ("left out: the plugin is not installed",)
    with pytest.raises(MissingExtra, match="nothing to measure: left out: the plugin"):
        prepare(EvaluationRequest(folder, codecs=["heic"]))
    with pytest.raises(ImageError, match="Kodak has 24 pictures, the folder 2"):
        prepare(EvaluationRequest(folder, codecs=["webp"], dataset="kodak"))


@pytest.mark.torch
def test_the_process_stays_as_it_was(folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchmetrics")
    from dlf.evaluation.metrics.sets import kid_metric

    class Means(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: object) -> object:
            return torch.as_tensor(x).float().mean((2, 3))

    before = dict(os.environ), torch.get_num_threads(), torch.get_rng_state().tolist()
    evaluation = prepare(EvaluationRequest(folder, codecs=["webp"], bpp=[2], crop=512, threads=1))
    results = replace(evaluation, set_metrics=(kid_metric(Means()),)).run()
    assert "kid" in results.curves["webp"][0].scores
    assert before == (dict(os.environ), torch.get_num_threads(), torch.get_rng_state().tolist())


def test_the_front_door_needs_no_torch() -> None:
    program = (
        "import sys, dlf.evaluation; "
        "heavy = {'torch', 'matplotlib', 'plotly', 'jinja2', 'onnxruntime', 'rapidfuzz'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
