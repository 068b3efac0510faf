"""Training configuration and the schedules that it describes."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from dlf.bundles.keymap import entries
from dlf.losses.objective import Weights
from dlf.nn.build import PRESETS
from dlf.nn.config import ModelConfig, from_dict, to_dict
from dlf.nn.model import Dlf
from dlf.train.codec_stage import rate_weight
from dlf.train.config import Rate, TrainConfig, load_config
from dlf.train.loop import learning_rate

pytestmark = pytest.mark.torch

CONFIGS = Path(__file__).parents[2] / "configs"
TEXT = """
preset: tiny
stage: joint
steps: 100
shapes: [[64, 64], [32, 96]]
pixels: 8192
lr: 0.001
lr_end: 0.0001
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
    assert config.warmup == 200
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT + "stepz: 1\n", "unknown key.*stepz"),
        (TEXT + "rate: {at_medium: 1.0}\n", "unknown key.*at_medium"),
        (TEXT.replace("steps: 100\n", ""), "steps"),
        (TEXT.replace("joint", "jiont"), "stage.*jiont"),
        (TEXT + "precision: float16\n", "precision.*float16"),
        (TEXT.replace("lr: 0.001", "lr: 1e-3"), "lr.*1e-3"),  # text, to YAML
        (TEXT.replace("steps: 100", "steps: 1.5"), "steps.*1.5"),
        (TEXT.replace("[[64, 64], [32, 96]]", "64"), "shapes.*64"),
        (TEXT.replace("{l1: 1, low: 2.5}", "3"), "weights.*3"),
        (TEXT.replace("joint", "align") + "codes_apart: 4.0\n", "codes_apart belongs to the joint stage"),
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
    assert (align.lr, joint.lr, last.lr) == (4e-5, 2e-5, 1e-6)
    assert align.betas == joint.betas == (0.5, 0.9)
    assert align.weights == Weights(latent=1.0, code=0.25, vq=1.0)
    assert (align.rate.ladder.low, align.rate.ladder.high) == (0.010, 0.015)
    assert (align.rate.ladder.lambdas[0], align.rate.ladder.lambdas[-1]) == (0.001, 24.0)
    batches = [c.parts * c.pixels // (c.shapes[0][0] * c.shapes[0][1]) for c in (align, joint)]
    assert batches == [8, 4]
    joints = [load_config(path) for path in CONFIGS.glob("paper_joint*.yaml")]
    assert sorted(c.rate.ladder.lambdas[0] for c in joints) == [5.8, 8.5, 16.0, 28.0]


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda config: config.name)
def test_presets_survive_a_plain_dict(config: ModelConfig) -> None:
    assert from_dict(ModelConfig, to_dict(config)) == config


def make(**changes: object) -> TrainConfig:
    values = {
        "preset": "tiny", "stage": "joint", "steps": 1000, "shapes": ((64, 64),), "pixels": 4096,
        "lr": 1e-3, "lr_end": 1e-5, "weights": Weights(), "warmup": 10, "hold": 0.5,
    }  # fmt: skip
    return TrainConfig(**(values | changes))


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
        torch.testing.assert_close(rate_weight(rate, quality, progress), factor * full)
    sudden = Rate(at_low=2.0, at_high=2.0, initial=0.5, ramp_from=0.0, ramp_to=0.0)
    torch.testing.assert_close(rate_weight(sudden, quality, 0.1), torch.full((3,), 2.0))


def test_rate_weight_zero_is_a_weight() -> None:
    assert rate_weight(Rate(), torch.tensor([0.0, 70.0]), 0.5).tolist() == [0, 0]
