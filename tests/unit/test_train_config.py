"""Training configuration and the schedules that it describes."""

# ruff: noqa: E402
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from dlf.bundles.keymap import entries
from dlf.losses.objective import Weights
from dlf.nn.build import PRESETS
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig, from_dict, to_dict
from dlf.train.config import Optimiser, TrainConfig, load_config, override
from dlf.train.engine import learning_rate
from dlf.train.rate import LambdaSchedule, Rate

pytestmark = pytest.mark.torch

CONFIGS = Path(__file__).parents[2] / "configs"
TEXT = """
preset: tiny
stage: joint
steps: 100
shapes: [[64, 64], [32, 96]]
pixels: 8192
optimiser: {lr: 0.001, lr_end: 1e-4}
weights: {l1: 1, low: 2.5}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_values_and_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "a.yaml", TEXT))
    assert config.shapes == ((64, 64), (32, 96))
    assert config.weights == Weights(l1=1.0, low=2.5)
    assert config.rate == Rate()
    assert config.optimiser == Optimiser(0.001, 0.0001, warmup=200)
    assert from_dict(TrainConfig, to_dict(config)) == config


def test_base_is_merged(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", TEXT + "rate: {at_low: 8.0, at_high: 1.0}\n")
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner", "b.yaml", "base: ../base.yaml\nsteps: 7\nweights: {low: 0.5}\n")
    config = load_config(
        write(tmp_path, "c.yaml", "base: inner/b.yaml\nrate: {at_low: 9.0}\nshapes: [[32, 32]]\n")
    )
    assert config.steps == 7
    assert config.shapes == ((32, 32),)
    assert config.weights == Weights(l1=1.0, low=0.5)
    assert (config.rate.at_low, config.rate.at_high) == (9.0, 1.0)


def test_a_base_is_merged_at_every_depth(tmp_path: Path) -> None:
    write(
        tmp_path,
        "base.yaml",
        TEXT + "rate: {at_low: 8.0, schedule: {lambdas: [1, 2], low: 0.01, high: 0.02}}\n",
    )
    config = load_config(write(tmp_path, "a.yaml", "base: base.yaml\nrate: {schedule: {lambdas: [3]}}\n"))
    assert config.rate == Rate(at_low=8.0, schedule=LambdaSchedule((3.0,), 0.01, 0.02))


def test_values_of_the_command_line_go_before_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", TEXT)
    changes = ["steps=7", "optimiser.lr=1e-4", "shapes=[[128, 128]]", "compile=true", "precision=float32"]
    config = load_config(path, changes)
    plain = load_config(path)
    assert config == replace(
        plain, steps=7, optimiser=replace(plain.optimiser, lr=1e-4), shapes=((128, 128),), compile=True,
        precision="float32",
    )  # fmt: skip
    for text in ("steps", "=1", "a-b=1", "optimiser.=1"):
        with pytest.raises(ValueError, match="write KEY=VALUE"):
            override({}, text)
    with pytest.raises(ValueError, match=r"there is no key optimizer; .*: optimiser"):
        load_config(path, ["optimizer.lr=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT + "stepz: 1\n", "there is no key stepz; the keys nearest to it: steps"),
        (
            TEXT + "rate: {at_medium: 1.0}\n",
            "no key rate.at_medium; the keys of rate nearest to it: at_",
        ),
        (TEXT + "rate: {schedule: {lamda: [1.0]}}\n", "there is no key rate.schedule.lamda; .*: lambdas"),
        (TEXT.replace("steps: 100\n", ""), "steps"),
        (TEXT.replace("joint", "jiont"), "stage.*jiont"),
        (TEXT + "precision: float16\n", "precision.*float16"),
        (TEXT.replace("lr: 0.001", "lr: quick"), "lr cannot be 'quick'"),
        (TEXT.replace("steps: 100", "steps: 1.5"), "steps.*1.5"),
        (TEXT.replace("[[64, 64], [32, 96]]", "64"), "shapes.*64"),
        (TEXT.replace("{l1: 1, low: 2.5}", "3"), "weights.*3"),
        (
            TEXT.replace("joint", "align") + "codebook_spread: 4.0\n",
            "belongs to the joint stage",
        ),
        ("- 1\n- 2\n", "not a YAML mapping"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(write(tmp_path, "a.yaml", text))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_load(path: Path) -> None:
    config = load_config(path)
    assert config.preset in PRESETS
    assert all(side % 32 == 0 for shape in config.shapes for side in shape)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_frozen_exists(path: Path) -> None:
    config = load_config(path)
    with torch.device("meta"):
        names = [name for name, _ in Dlf(PRESETS[config.preset]).named_parameters()]
    for prefix in config.freeze:
        assert any(name.startswith(prefix) for name in names), prefix


def test_the_papers_stages() -> None:
    align, joint, last = (load_config(CONFIGS / f"paper_{name}.yaml") for name in ("align", "joint", "last"))
    with torch.device("meta"):
        names = [name for name, _ in Dlf(PRESETS["dlf-l"]).named_parameters()]
    titok = {entry.ours for entry in entries(names) if entry.titok}
    for config in (align, joint):
        assert {name for name in names if name.startswith(config.freeze)} == titok
    assert last.freeze == ()
    assert (align.optimiser.lr, joint.optimiser.lr, last.optimiser.lr) == (4e-5, 2e-5, 1e-6)
    assert align.optimiser.betas == joint.optimiser.betas == (0.5, 0.9)
    assert align.weights == Weights(latent=1.0, code=0.25, vq=1.0)
    assert (align.rate.schedule.low, align.rate.schedule.high) == (0.010, 0.015)
    assert (align.rate.schedule.lambdas[0], align.rate.schedule.lambdas[-1]) == (0.001, 24.0)
    batches = [c.parts * c.pixels // (c.shapes[0][0] * c.shapes[0][1]) for c in (align, joint)]
    assert batches == [8, 4]
    joints = [load_config(path) for path in CONFIGS.glob("paper_joint*.yaml")]
    assert sorted(c.rate.schedule.lambdas[0] for c in joints) == [5.8, 8.5, 16.0, 28.0]


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda config: config.name)
def test_presets_survive_a_plain_dict(config: ModelConfig) -> None:
    assert from_dict(ModelConfig, to_dict(config)) == config


def make(**changes: float) -> TrainConfig:
    adam = replace(Optimiser(lr=1e-3, lr_end=1e-5, warmup=10, hold=0.5), **changes)
    return TrainConfig("tiny", "joint", 1000, ((64, 64),), 4096, adam, Weights())


def test_learning_rate() -> None:
    config = make()
    rates = [learning_rate(config, step) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == rates[500] == 1e-3
    assert rates[750] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[1000] == pytest.approx(1e-5)
    assert rates[:10] == sorted(rates[:10])
    assert rates[500:] == sorted(rates[500:], reverse=True)
    assert learning_rate(make(hold=1.0), 999) == 1e-3
    assert learning_rate(make(warmup=0), 0) == 1e-3


def test_rate_weight() -> None:
    rate = Rate(at_low=16.0, at_high=1.0, initial=0.01, ramp_from=0.2, ramp_to=0.6)
    quality = torch.tensor([0.0, 50.0, 100.0])
    full = torch.tensor([16.0, 4.0, 1.0])
    for progress, factor in ((0.0, 0.01), (0.2, 0.01), (0.4, 0.1), (0.6, 1.0), (1.0, 1.0)):
        torch.testing.assert_close(rate.weight(quality, progress), factor * full)
    sudden = Rate(at_low=2.0, at_high=2.0, initial=0.5, ramp_from=0.0, ramp_to=0.0)
    torch.testing.assert_close(sudden.weight(quality, 0.1), torch.full((3,), 2.0))


def test_rate_weight_zero_is_a_weight() -> None:
    assert Rate().weight(torch.tensor([0.0, 70.0]), 0.5).tolist() == [0, 0]
