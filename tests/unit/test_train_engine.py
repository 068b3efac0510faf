"""The engine: resuming exactly, stopping, bad steps, checkpoints."""

# ruff: noqa: E402
from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dlf.train import checkpoint, distributed
from dlf.train.checkpoint import Checkpoint
from dlf.train.data import Batch
from dlf.train.engine import CHECKPOINT, Run
from dlf.train.recompute import BLOCKS, recompute_blocks
from dlf.train.run_logger import LOG
from dlf.train.stage import Inputs, LossReport
from dlf.train.tokenizer_stage import TokenizerStage
from tiny_runs import (
    CONFIG,
    STEPS,
    Sampler,
    assert_same,
    make_run,
    make_stage,
    pictures,
    stop_after,
    tell,
    tensors,
)

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]


@pytest.mark.parametrize("stopped", [1, 4])
@pytest.mark.parametrize("kind", ["tokenizer", "align", "joint"])
def test_resumed_run_equals_one_that_never_stopped(kind: str, stopped: int, tmp_path: Path) -> None:
    """Bit for bit: weights, averages, optimiser, idle codes; across seeding, reviving and validation."""
    whole = make_run(kind, tmp_path / "whole")
    start = {k: v.clone() for k, v in whole.stage.module.state_dict().items()}
    assert whole.train()
    first = make_run(kind, tmp_path / "parts")
    stop_after(first, stopped)
    assert not first.train()
    torch.manual_seed(99)  # whatever the process did before must not matter
    second = make_run(kind, tmp_path / "parts")
    assert second.step == stopped
    torch.rand(5)
    assert second.train()
    a, b = (checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert a.step == b.step == STEPS
    assert a.stage["books"].keys() >= {"idle"}
    assert_same(vars(a), vars(b))
    changed = [k for k, v in a.model.items() if not torch.equal(v, start[k])]
    book = "quantize.embedding.weight"
    assert book in changed
    assert len(changed) > 10


def test_checkpoint_without_a_stage_entry_resumes_and_keeps_its_codes(tmp_path: Path) -> None:
    for kind in ("tokenizer", "align"):
        folder = tmp_path / kind
        run = make_run(kind, folder)
        stop_after(run, 5)
        run.train()
        data = torch.load(folder / CHECKPOINT, weights_only=True)
        del data["stage"]
        torch.save(data, folder / CHECKPOINT)
        resumed = make_run(kind, folder)
        book = resumed.stage.module.quantize.embedding.weight
        before = book.detach().clone()
        resumed.stage.module.quantize.seed = lambda z: pytest.fail("seeded a trained codebook")
        assert resumed.train()
        assert (book - before).abs().max() < 1


def test_signal_stops_after_the_step_and_saves(tmp_path: Path) -> None:
    run = make_run("tokenizer", tmp_path, lambda step: tell(signal.SIGTERM) if step == 1 else None)
    assert not run.train()
    assert checkpoint.load(tmp_path / CHECKPOINT).step == run.step == 2


def test_signal_while_the_processes_agree_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after this process said that it was not asked to stop, and before it hears the others."""
    run = make_run("tokenizer", tmp_path)
    agree, calls = distributed.all_reduce_max, 0

    def interrupted(*values: float) -> list[float]:
        nonlocal calls
        agreed = agree(*values)
        if len(values) == 3:
            calls += 1
            if calls == 2:
                tell(signal.SIGTERM)
        return agreed

    monkeypatch.setattr(distributed, "all_reduce_max", interrupted)
    assert not run.train()
    assert checkpoint.load(tmp_path / CHECKPOINT).step == run.step == 2


def test_signal_at_the_end_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("tokenizer", tmp_path)
    save = checkpoint.save

    def interrupted(path: Path, state: Checkpoint) -> None:
        tell(signal.SIGINT)
        save(path, state)

    monkeypatch.setattr(checkpoint, "save", interrupted)
    assert run.train()  # for all steps were taken
    assert run.stop
    assert checkpoint.load(tmp_path / CHECKPOINT).step == STEPS


class Broken(TokenizerStage):
    """Loses its numbers at one step."""

    def inputs(self, batch: Batch, progress: float) -> Inputs:
        factor = torch.tensor(torch.nan if progress == 4 / STEPS else 1.0)
        return {**super().inputs(batch, progress), "factor": factor}

    def loss(self, inputs: Inputs) -> LossReport:
        report = super().loss(inputs)
        return LossReport(report.total * inputs["factor"], report.terms)


def test_step_without_finite_gradient_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(21)
    states: list[Any] = []
    run = Run(CONFIG, Broken(CONFIG, None, pictures()[:1]), Sampler(), tmp_path)

    def hook(step: int) -> None:
        copied = {
            "model": run.stage.module.state_dict(),
            "ema": run.average.weights,
            "adam": run.optimiser.state_dict()["state"],
        }
        states.append({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in tensors(copied)})

    run.sampler.hook = hook  # type: ignore[attr-defined]
    assert run.train()
    assert run.skipped == 1
    assert_same(states[4], states[5])
    assert not torch.equal(
        states[3][".model.encoder.conv_in.weight"], states[4][".model.encoder.conv_in.weight"]
    )
    assert all(v.isfinite().all() for v in run.stage.module.state_dict().values())
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 4, 6]
    assert [row.get("skipped", 0) for row in rows if row["kind"] == "train"] == [0, 0, 0.5]


def test_log_and_validation(tmp_path: Path) -> None:
    for kind, keys in (("tokenizer", {"l1", "low", "codes"}), ("joint", {"bpp_50", "psnr_10", "codes"})):
        folder = tmp_path / kind
        assert make_run(kind, folder).train()
        rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
        assert [row["step"] for row in rows if row["kind"] == "val"] == [4, 6]
        assert keys <= rows[-1].keys()
        assert (folder / "val_0000004.png").exists()
        assert all(np.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))


def test_means_after_a_resume_are_of_the_steps_since(tmp_path: Path) -> None:
    whole = make_run("tokenizer", tmp_path / "whole")
    whole.train()
    first = make_run("tokenizer", tmp_path / "parts")
    stop_after(first, 3)
    first.train()
    make_run("tokenizer", tmp_path / "parts").train()
    a, b = (
        [r for r in map(json.loads, (tmp_path / n / LOG).read_text().splitlines()) if r["kind"] == "train"]
        for n in ("whole", "parts")
    )
    assert a[-1] | {"seconds": 0} == b[-1] | {"seconds": 0}
    assert b[1]["step"] == 4
    assert b[1]["l1"] == pytest.approx(a[1]["l1"], rel=0.5)


def test_averaged_weights_follow(tmp_path: Path) -> None:
    run = make_run("joint", tmp_path)
    run.train()
    name = "details.enc_trans_0.0.0.conv1.weight"
    own, mean = run.stage.module.state_dict()[name], run.average.weights[name]
    assert not torch.equal(own, mean)
    assert (own - mean).abs().max() < 0.05


def test_without_averaging_there_is_one_copy_of_the_weights(tmp_path: Path) -> None:
    """In memory, and in the checkpoint; validation measures the newest weights."""
    config, stage = make_stage("joint")
    run = Run(replace(config, ema=0.0), stage, Sampler(), tmp_path)
    own = stage.module.state_dict()
    assert all(run.average.weights[name].data_ptr() == tensor.data_ptr() for name, tensor in own.items())
    assert run.train()
    state = checkpoint.load(tmp_path / CHECKPOINT)
    assert_same(state.model, state.ema)
    resumed = Run(replace(config, ema=0.0), make_stage("joint")[1], Sampler(), tmp_path)
    assert_same(resumed.average.weights, state.ema)
    assert all(state.ema[name].data_ptr() == tensor.data_ptr() for name, tensor in state.model.items())


def test_codes_that_jump_are_not_averaged(tmp_path: Path) -> None:
    run = make_run("joint", tmp_path)
    assert run.train()
    own = run.stage.module.state_dict()
    assert torch.equal(run.average.weights["quantize.embedding.weight"], own["quantize.embedding.weight"])
    for name in ("vqgan.quantize.embedding.weight", "fusion.ffn.3.weight"):
        assert not torch.equal(run.average.weights[name], own[name]), name


def test_a_full_disk_does_not_end_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file may not grow while steps 2 to 4 are saved; the run goes on, and its end is saved."""
    resource = pytest.importorskip("resource", reason="no limits of file sizes here")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def hook(step: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if 2 <= step <= 4 else soft, hard))

    config, stage = make_stage("tokenizer")
    run = Run(replace(config, checkpoint_minutes=0.0), stage, Sampler(hook), tmp_path)
    try:
        assert run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum("the run goes on" in message for message in caplog.messages) == 3
    assert "disk is full" in caplog.text
    assert checkpoint.load(tmp_path / CHECKPOINT).step == STEPS
    assert not list(tmp_path.glob("*.part"))


def test_the_last_checkpoint_must_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, state: Checkpoint) -> None:
        msg = "no space"
        raise OSError(msg)

    run = make_run("tokenizer", tmp_path)
    monkeypatch.setattr(checkpoint, "save", fail)
    with pytest.raises(OSError, match="no space"):
        run.train()


def test_a_changed_configuration_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run("tokenizer", tmp_path)
    stop_after(run, 1)
    run.train()
    _, stage = make_stage("tokenizer")
    Run(replace(CONFIG, optimiser=replace(CONFIG.optimiser, lr=0.5), seed=3), stage, Sampler(), tmp_path)
    assert [m for m in caplog.messages if "it was" in m] == [
        "optimiser.lr is now 0.5; it was 0.002",
        "seed is now 3; it was 0",
    ]


@pytest.mark.parametrize("kind", ["tokenizer", "joint"])
def test_recomputed_blocks_give_the_same_run(kind: str, tmp_path: Path) -> None:
    plain = make_run(kind, tmp_path / "plain")
    plain.train()
    config, stage = make_stage(kind)
    recompute_blocks(stage.module)
    calls = []
    first = next(m for m in stage.module.modules() if isinstance(m, BLOCKS))
    first.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    again = Run(config, stage, Sampler(), tmp_path / "again")
    again.train()
    assert len(calls) >= STEPS
    a, b = (checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("plain", "again"))
    assert a.model.keys() == b.model.keys()
    for key, value in a.model.items():
        torch.testing.assert_close(b.model[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_a_step_of_two_parts_averages_their_gradients(tmp_path: Path) -> None:
    """Against one batch of both, by hand."""
    config, stage = make_stage("joint")
    config = replace(config, parts=2, stage="joint")
    run = Run(config, stage, Sampler(), tmp_path)
    run._accumulate(run._inputs())
    found = {n: p.grad.clone() for n, p in stage.module.named_parameters() if p.grad is not None}
    wanted: dict[str, torch.Tensor] = {}
    _, other = make_stage("joint")
    single = Run(config, other, Sampler(), tmp_path / "other")
    for part in (0, 1):
        other.module.zero_grad(set_to_none=True)
        single._seed(part)
        other.loss(other.inputs(single.sampler(0, part), 0.0)).total.backward()
        for name, parameter in other.module.named_parameters():
            if parameter.grad is not None:
                wanted[name] = wanted.get(name, 0) + parameter.grad / 2
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
