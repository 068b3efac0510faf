"""A recorded step, replayed, is the step as it is written; what it is given is all that differs."""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from dlf.train import graph
from dlf.train.engine import Run
from dlf.train.graph import WARM_UP, Result, StepGraph
from dlf.train.stage import Inputs
from tiny_runs import Sampler, judged_stage

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]


def record_here(call: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
    """Stands for a CUDA graph: results lie where they are, and a replay fills them anew."""
    found: Result = ({}, torch.zeros(()))
    place: dict[str, torch.Tensor] = {}

    def replay() -> None:
        terms, taken = call()
        for name, value in {**terms, "taken": taken}.items():
            place.setdefault(name, torch.empty_like(value)).copy_(value)
        found[0].update({name: value for name, value in place.items() if name != "taken"})

    return found, replay


def test_steps_are_recorded_for_each_shape_and_see_new_inputs() -> None:
    calls: list[int] = []

    def step(inputs: Inputs) -> Result:
        calls.append(len(inputs["x"]))
        return {"sum": inputs["x"].sum()}, torch.tensor(True)

    steps = StepGraph(step, record_here)
    for number in range(2 * WARM_UP):
        for count in (2, 3):
            terms, _ = steps({"x": torch.full((count,), float(number))})
            assert terms["sum"] == count * number
    assert calls == [2, 3] * (2 * WARM_UP)


def test_a_step_that_cannot_be_recorded_goes_on_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def fails(call: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        msg = "operation not permitted when stream is capturing\nmore"
        raise RuntimeError(msg)

    steps = StepGraph(lambda inputs: ({"x": inputs["x"]}, torch.tensor(True)), fails)
    for number in range(2 * WARM_UP):
        assert steps({"x": torch.tensor(number)})[0]["x"] == number
    (said,) = caplog.messages
    assert said.startswith("a step cannot be recorded (operation not permitted when stream is capturing)")


@pytest.mark.parametrize("kind", ["tokenizer", "joint", "decoder"])
def test_replayed_steps_train_as_written_ones_do(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that a step takes from the host is in its inputs, or in a tensor that is changed in place.

    Here the place of a graph is taken by a function of inputs that stay where they are; the host's numbers
    are hidden from it.
    """
    states = []
    for replayed in (False, True):
        config, stage = judged_stage(kind, tmp_path)
        config = replace(config, adversarial=replace(config.adversarial, adaptive=False), steps=12)
        stage.judge.adversary.config = config.adversarial  # type: ignore[attr-defined]
        run = Run(
            replace(config, log_every=100, validate_every=100), stage, Sampler(), tmp_path / str(replayed)
        )
        if replayed:
            run.graph = StepGraph(lambda inputs, run=run: hidden(run, inputs), record_here)
        assert stage.steady == (kind != "tokenizer")
        monkeypatch.setattr(run, "_seed", lambda part: None)
        for _ in range(8):
            run.place = float(run.step)
            torch.manual_seed(run.step)
            run.advance()
        states.append(stage.module.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, msg=name)


def hidden(run: Run, inputs: Inputs) -> Result:
    """A step during which the host does not know how far the run is."""
    place, step = run.place, run.step
    run.place = run.step = -1_000_000  # type: ignore[assignment]
    try:
        return run._compute([inputs])
    finally:
        run.place, run.step = place, step


def test_only_a_gpu_records(tmp_path: Path) -> None:
    config, stage = judged_stage("joint", tmp_path)
    assert Run(replace(config, graph=True), stage, Sampler(), tmp_path / "run").graph is None
    assert graph.record_cuda is StepGraph(lambda inputs: ({}, torch.tensor(True)))._record
