"""Runs of minutes, against a clock that only steps, pictures and checkpoints move; weights in parts."""

# ruff: noqa: E402
from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file

from dlf.cli.main import main
from dlf.errors import TrainingError
from dlf.train import budget, checkpoint, engine, weights
from dlf.train.budget import OFTEN, TimeBudget
from dlf.train.config import TrainConfig
from dlf.train.engine import CHECKPOINT, Run, learning_rate
from dlf.train.run_logger import LOG
from dlf.train.weights import PATTERN, load_weights, save_parts
from tiny_runs import CONFIG, Sampler, make_stage, stop_after

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]

STEP, PICTURES, SAVING = 7.0, 5.0, 2.0  # seconds


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (budget, engine):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=found))
    saved = checkpoint.save

    def save(path: Path, state: checkpoint.Checkpoint) -> None:
        found.now += SAVING
        saved(path, state)

    monkeypatch.setattr(checkpoint, "save", save)
    return found


class Watched:
    """A tiny run on the clock, and what was seen before each step."""

    def __init__(self, clock: Clock, folder: Path, config: TrainConfig) -> None:
        self.clock, self.places, self.rates, self.saves, self.shown = clock, [], [], [], []
        _, stage = make_stage("tokenizer")
        self.run = Run(config, stage, Sampler(self.hook), folder, since=clock.now - 3)
        validate, save = stage.validate, self.run.save

        def timed_validate() -> object:
            clock.now += PICTURES
            self.shown.append(clock.now)
            return validate()

        def timed_save() -> None:
            save()
            self.saves.append(clock.now)

        stage.validate = timed_validate  # type: ignore[method-assign]
        self.run.save = timed_save  # type: ignore[method-assign]

    def hook(self, step: int) -> None:
        self.clock.now += STEP
        self.places.append(self.run.place)
        self.rates.append(self.run.optimiser.param_groups[0]["lr"])


LONG = replace(CONFIG, minutes=5.0, steps=1000, optimiser=replace(CONFIG.optimiser, warmup=100, hold=0.5))


def gaps(times: list[float]) -> list[float]:
    return [b - a for a, b in pairwise(times)]


def test_a_run_of_minutes_ends_in_time(clock: Clock, tmp_path: Path) -> None:
    """With its last pictures and checkpoint, and with everything that follows progress at its end."""
    start = clock.now - 3
    watched = Watched(clock, tmp_path, LONG)
    assert watched.run.train()
    assert clock.now - start <= 300
    assert clock.now - start > 300 - 2 * STEP - 1.25 * (STEP + PICTURES + SAVING)
    assert watched.run.step == len(watched.places) > 20
    assert watched.places == sorted(watched.places)
    assert watched.places[0] == 0
    assert 900 < watched.places[-1] <= 1000
    assert max(gaps(watched.saves)) <= OFTEN + STEP + PICTURES + SAVING
    assert max(gaps(watched.shown)) <= OFTEN + STEP + PICTURES + SAVING
    assert watched.rates[0] < LONG.optimiser.lr / 10  # warm-up takes its share of the run
    assert max(watched.rates) == LONG.optimiser.lr
    assert watched.rates[-1] < LONG.optimiser.lr / 10
    assert watched.rates == [learning_rate(LONG, place) for place in watched.places]
    assert checkpoint.load(tmp_path / CHECKPOINT).step == watched.run.step
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text("utf-8").splitlines()]
    assert rows[-1]["kind"] == "val"
    assert rows[-1]["step"] == watched.run.step


@pytest.mark.parametrize(
    ("minutes", "period"), [(1.0, 15.0), (3.0, 45.0), (9.0, 60.0), (92.0, 184.0), (600.0, 600.0)]
)
def test_a_long_budget_is_not_spent_on_pictures(minutes: float, period: float) -> None:
    """Four to thirty times in one, and every ten minutes at least."""
    config = replace(LONG, minutes=minutes, checkpoint_minutes=10.0)
    assert TimeBudget(config, {}).period == pytest.approx(period)


def test_a_resumed_run_has_what_is_left_of_its_minutes(clock: Clock, tmp_path: Path) -> None:
    first = Watched(clock, tmp_path, LONG)
    first.clock.now += 0
    inner = first.run.sampler.hook  # type: ignore[attr-defined]
    stop_after(first.run, 15)
    stopping = first.run.sampler.hook  # type: ignore[attr-defined]
    first.run.sampler.hook = lambda step: (inner(step), stopping(step))  # type: ignore[attr-defined]
    assert not first.run.train()
    clock.now += 10_000  # nobody trains
    start = clock.now - 3
    second = Watched(clock, tmp_path, LONG)
    spent = checkpoint.load(tmp_path / CHECKPOINT).spent["seconds"]
    assert 100 < spent < 200
    assert second.run.train()
    assert clock.now - start <= 300 - spent
    assert second.places[0] == pytest.approx(first.places[-1], abs=60)
    assert second.places == sorted(second.places)
    assert second.places[-1] > 900
    third = Watched(clock, tmp_path, LONG)
    assert third.run.train()
    assert third.places == []


@pytest.mark.parametrize(("minutes", "steps", "what"), [(0.01, 0, "what comes"), (0.1, 1, "a first step")])
def test_a_budget_that_is_too_small_is_said(
    minutes: float, steps: int, what: str, clock: Clock, tmp_path: Path
) -> None:
    watched = Watched(clock, tmp_path, replace(LONG, minutes=minutes))
    with pytest.raises(TrainingError, match=f"too small: .*{what}"):
        watched.run.train()
    assert len(watched.places) == steps


def test_pictures_that_take_long_do_not_take_all_the_time(clock: Clock) -> None:
    clock.now = 0.0
    found = TimeBudget(replace(LONG, minutes=60.0), {})
    found.stepped(1.0, new=True)
    found.worked("validation", 30.0)
    clock.now = 299.0
    assert not found.due("validation", 5)
    clock.now = 301.0
    assert found.due("validation", 5)


@pytest.mark.parametrize("words", ["0", "-1", "nan", "inf", "soon"])
def test_minutes_that_are_none_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", "x.yaml", "--data", "a", "--val", "b", "-o", "c", f"--minutes={words}"]
    assert main(line) == 2
    assert "is not a number of minutes above 0" in capsys.readouterr().err
    with pytest.raises(ValueError, match="neither may be negative"):
        replace(CONFIG, minutes=-1.0)


def base_weights() -> dict[str, torch.Tensor]:
    """Tensors of a model of 26 M parameters: 26 layers of 1 M."""
    generator = torch.Generator().manual_seed(0)
    layers = {f"layer{n}.weight": torch.randn(1000, 1000, generator=generator) for n in range(26)}
    return {**layers, "count": torch.tensor([7])}


def test_weights_come_back_from_their_parts(tmp_path: Path) -> None:
    own = base_weights()
    paths = save_parts(tmp_path, own, 12)
    assert 1 < len(paths) <= 7
    assert all(path.stat().st_size < 2**24 for path in paths)
    assert load_file(paths[0])["layer0.weight"].dtype == torch.float16
    found = load_weights(tmp_path)
    assert found.keys() == own.keys()
    assert torch.equal(found["count"], own["count"])
    for name, tensor in own.items():
        assert torch.equal(found[name].float(), tensor.half().float() if name != "count" else tensor.float())
    fewer = save_parts(tmp_path, {"a": torch.ones(3)}, 13)
    assert sorted(tmp_path.iterdir()) == fewer
    assert load_weights(tmp_path)["a"].dtype == torch.float32


def broken(folder: Path) -> None:
    next(folder.glob(PATTERN)).write_bytes(b"nothing")


def lost(folder: Path) -> None:
    max(folder.glob(PATTERN)).unlink()


def mixed(folder: Path) -> None:
    other = save_parts(folder / "other", base_weights(), 13)
    other[0].replace(folder / other[0].name)


def empty(folder: Path) -> None:
    for path in folder.glob(PATTERN):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "what"),
    [(broken, "is damaged"), (lost, "not complete"), (mixed, "not complete"), (empty, "there are no")],
)
def test_parts_that_do_not_belong_together_are_refused(
    spoil: Callable[[Path], None], what: str, tmp_path: Path
) -> None:
    save_parts(tmp_path, base_weights(), 12)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=what):
        load_weights(tmp_path)


def test_a_tensor_too_large_for_a_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than a part"):
        save_parts(tmp_path, {"a": torch.zeros(2**23)}, 0)
    assert not list(tmp_path.iterdir())


def test_a_run_starts_from_weights_alone(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run of minutes, which writes them itself, or split off any checkpoint."""
    Watched(clock, tmp_path / "run", replace(LONG, minutes=0.5)).run.train()
    assert main(["weights", "split", str(tmp_path / "run" / CHECKPOINT), "-o", str(tmp_path / "split")]) == 0
    assert "1 files" in capsys.readouterr().out
    averaged = checkpoint.load(tmp_path / "run" / CHECKPOINT).ema
    for folder in (tmp_path / "run", tmp_path / "split"):
        found = load_weights(folder)
        assert found.keys() == averaged.keys()
        for name, tensor in averaged.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, check_dtype=False)
    assert weights.load_weights(tmp_path / "run" / CHECKPOINT).keys() == averaged.keys()
    assert main(["weights", "split", str(tmp_path / "none.pt"), "-o", str(tmp_path / "split")]) == 1
    assert "none.pt" in capsys.readouterr().err


def test_the_first_step_of_another_shape_is_no_progress_and_no_measure() -> None:
    """It is compiled first; the reserve would otherwise end a run that has time left."""
    found = budget.TimeBudget(replace(CONFIG, minutes=5.0, steps=1000), {}, time.monotonic() - 60)
    found.stepped(60.0, new=True)
    found.begun -= 90.0
    found.stepped(90.0, new=True)
    assert found.longest == 0
    assert found.place(2) < 5
    assert not found.over(2)
    found.begun -= 75.0
    found.stepped(0.1, new=False)
    assert found.place(3) == pytest.approx(500, abs=5)
