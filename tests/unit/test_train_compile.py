"""Compiled steps, their way back, profiles, and what a bare machine needs."""

# ruff: noqa: E402
from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from dlf.cli.main import main
from dlf.errors import TrainingError
from dlf.nn.model_config import to_dict
from dlf.train import checkpoint, compiling
from dlf.train.data import Batch
from dlf.train.engine import CHECKPOINT, Run
from dlf.train.stage import Inputs
from dlf.train.tokenizer_stage import TokenizerStage
from tiny_runs import ALONE, BARE, CONFIG, Sampler, make_stage, pictures

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]


def train(kind: str, folder: Path, steps: int = 3, **changes: object) -> dict[str, Any]:
    config, stage = make_stage(kind)
    config = replace(config, steps=steps, shapes=((64, 64),), **changes)
    run = Run(config, stage, Sampler(), folder)
    run.sampler.shapes = config.shapes  # type: ignore[attr-defined]
    assert run.train()
    return checkpoint.load(folder / CHECKPOINT).model


def assert_close(a: dict[str, Any], b: dict[str, Any]) -> None:
    for key, value in a.items():
        torch.testing.assert_close(b[key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.slow
# of dynamo itself, which looks at the pictures that are no leaves
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("kind", ["tokenizer", "joint"])
def test_a_compiled_run_is_the_same_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Traced there and back, with operators as they are; generating code takes minutes."""
    traced: list[str] = []

    def trace(function: Any) -> Any:
        traced.append(getattr(function, "__name__", "terms"))
        return torch.compile(function, dynamic=False, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(compiling, "_compiled", trace)
    compiled = train(kind, tmp_path / "compiled", compile=True)
    assert "reconstruct" in traced or "code" in traced
    assert not [m for m in caplog.messages if "compiling failed" in m]
    assert_close(train(kind, tmp_path / "plain"), compiled)


@pytest.mark.parametrize("back", [False, True], ids=["there", "on the way back"])
def test_a_failing_compiler_is_done_without(
    back: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, and the numbers of a run that never tried."""

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            msg = "no kernel\nand many lines"
            raise RuntimeError(msg)

    def bad(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not back:
                msg = "no compiler\nand many lines"
                raise RuntimeError(msg)
            picture, *others = function(*args, **kwargs)
            return Fails.apply(picture), *others

        return call if getattr(function, "__name__", "") == "reconstruct" else function

    monkeypatch.setattr(compiling, "_compiled", bad)
    with caplog.at_level(logging.WARNING):
        found = train("tokenizer", tmp_path / "bad", compile=True)
    (said,) = [m for m in caplog.messages if "compiling failed" in m]
    assert "\n" not in said
    assert_close(train("tokenizer", tmp_path / "plain"), found)


class Full(TokenizerStage):
    """Runs out of memory at one step, or fails otherwise."""

    error: type[Exception] = torch.OutOfMemoryError

    def inputs(self, batch: Batch, progress: float) -> Inputs:
        if progress >= 3 / CONFIG.steps:
            msg = "CUDA out of memory. Tried to allocate much"
            raise self.error(msg)
        return super().inputs(batch, progress)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_full_memory_is_a_sentence_and_the_checkpoint_stays(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Full, "error", error)
    config = replace(CONFIG, checkpoint_minutes=0.0, compile=False)
    run = Run(config, Full(config, None, pictures()[:1]), Sampler(), tmp_path)
    with pytest.raises(TrainingError, match=r"memory for a batch of 8192 pixels.*checkpoint stays"):
        run.train()
    assert checkpoint.load(tmp_path / CHECKPOINT).step == 3


def test_an_error_of_the_step_itself_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_compiled", lambda function: function)
    monkeypatch.setattr(Full, "error", KeyError)
    config = replace(CONFIG, compile=True)
    with pytest.raises(KeyError):
        Run(config, Full(config, None, pictures()[:1]), Sampler(), tmp_path).train()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def write_config(folder: Path, **changes: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(to_dict(replace(CONFIG, **changes))), encoding="utf-8")
    return path


def test_a_profile_leaves_no_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling, "_compiled", lambda function: function)
    before = sorted(tmp_path.rglob("*"))
    config = tmp_path / "config.json"
    folders = ["--data", str(photos), "--val", str(photos)]
    line = ["train", str(write_config(tmp_path)), *folders, "--threads", "1"]
    assert main([*line, "--profile", "2", "--compile", "--device", "cpu"]) == 0
    eager, compiled = capsys.readouterr().out.splitlines()
    assert "Mpixel/s" in eager
    assert "tiny tokenizer, 32x96, 64x64, 1 x 8192 pixels, cpu, eager:" in eager
    assert "compiled:" in compiled
    assert float(eager.partition(" GiB")[0].split()[-1]) > 0.05
    assert 0 < float(eager.partition(" %")[0].split()[-1]) < 100
    assert sorted(tmp_path.rglob("*")) == sorted([*before, config])
    assert main(line) == 2
    assert "required: --output" in capsys.readouterr().err


def test_the_whole_configuration_can_be_printed_and_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("yaml")
    compact = Path(__file__).parents[2] / "configs" / "compact_joint.yaml"
    assert main(["train", str(compact), "--minutes", "3", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["minutes"] == 3
    again = tmp_path / "again.json"
    again.write_text(printed, encoding="utf-8")
    assert main(["train", str(again), "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    for name, text in (("bad.json", "{"), ("bad.yaml", "a: [")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert main(["train", str(tmp_path / name), "--print-config"]) == 1
        assert f"{name} is not " in capsys.readouterr().err


# imports every module of training, and says what else of this package came with them
IMPORTS = """
import importlib, pkgutil
import dlf.losses, dlf.nn, dlf.train
for package in (dlf.losses, dlf.nn, dlf.train):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
for command in "train plan pack weights".split():
    importlib.import_module(f"dlf.cli.{command}")
print(*sorted(name for name in sys.modules if name.count(".") == 1 and name.startswith("dlf.")))
"""


def test_all_of_training_is_imported_where_torch_is_and_little_else() -> None:
    """A machine that is lent for minutes has no more; what is missing there would be found at its cost."""
    line = [sys.executable, "-c", ALONE + IMPORTS]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    came = set(done.stdout.split())
    assert {"dlf.train", "dlf.losses", "dlf.nn"} <= came
    assert not came & {"dlf.api", "dlf.image_codec", "dlf.evaluation", "dlf.service"}


@pytest.mark.slow
def test_training_needs_no_more_than_a_bare_machine_has(photos: Path, tmp_path: Path) -> None:
    """Nothing but torch and what it brings, and click: a stage of minutes, of packed photos, from JSON."""
    config = write_config(tmp_path, stage="joint", steps=2, minutes=0.0)

    def dlf(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", BARE, *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, timeout=600)

    data = ("--data", photos, "--val", photos, "--threads", 1, "--device", "cpu")
    done = dlf("train", config, *data, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "run" / CHECKPOINT).step == 2
    (tmp_path / "x.yaml").write_text("preset: tiny", encoding="utf-8")
    refused = dlf("train", tmp_path / "x.yaml", *data, "-o", tmp_path / "other")
    assert refused.returncode == 1
    assert "yaml is not installed" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_pictures_that_are_none_are_a_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    config = write_config(tmp_path)
    words = ["--val", str(photos), "-o", str(tmp_path / "run"), "--threads", "1"]
    assert main(["train", str(config), "--data", str(tmp_path / "empty"), *words]) == 1
    assert "there are no images" in capsys.readouterr().err
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "empty" / "small.png")
    assert main(["train", str(config), "--data", str(tmp_path / "empty"), *words]) == 1
    assert "at least 32 pixels" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_of_the_process_are_as_they_were_afterwards() -> None:
    """Whoever calls the trainer has their own threads, and their own idea of how exact a GPU may be."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda

    def settings() -> tuple[object, ...]:
        return cudnn.benchmark, cudnn.allow_tf32, cuda.matmul.allow_tf32, cuda.cudnn_sdp_enabled()

    before = settings()
    with compiling.fast_backends(torch.device("cuda")):
        assert settings() == (True, False, False, False)
    assert settings() == before
