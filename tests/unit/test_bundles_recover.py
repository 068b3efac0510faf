"""A bundle's weights come back as a checkpoint that computes the same."""

# ruff: noqa: E402
from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dlf.bundles.bundle_writer import BundleSpec
from dlf.bundles.onnx_bundle import TokenUse, write_onnx_bundle
from dlf.bundles.parity import compare
from dlf.bundles.recover import likely_presets, recover, recover_likely
from dlf.codec.bundle import ModelBundle
from dlf.errors import BundleError
from dlf.nn.build import PRESETS, TINY, TINY_V2
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig
from dlf.records import UInt8
from dlf.train import checkpoint

pytestmark = pytest.mark.torch


CONFIGS = (pytest.param(TINY, marks=pytest.mark.slow), TINY_V2)  # every shipped model is of the second form


def random_model(config: ModelConfig) -> Dlf:
    torch.manual_seed(8)
    model = Dlf(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        # biases that are equal, which the tracer writes once, stay among them
        if not parameter.any() and "adaptor" not in name and "conv2" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
        parameter.copy_(parameter.half().float())
    model.encoder.spread.mean.normal_()
    model.encoder.spread.square.uniform_(4, 9)
    return model


def write(model: Dlf, folder: Path) -> ModelBundle:
    counts = np.ones((TINY.tokens.count, TINY.tokens.codes), np.int64)
    write_onnx_bundle(model, folder, BundleSpec("tiny", 101, 40), TokenUse(counts))
    return ModelBundle.open(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return write(random_model(TINY), tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_what_comes_back_computes_the_same(
    config: ModelConfig, picture: Callable[[int, int], UInt8], tmp_path: Path
) -> None:
    model = random_model(config)
    bundle = write(model, tmp_path / "tiny")
    found = recover(bundle, config.name)
    again = Dlf(config).eval().requires_grad_(False)
    again.load_state_dict(found.tensors)
    parity = compare(again, bundle, [picture(288, 320)], 50)
    parity.check()
    assert parity.tokens == 1
    assert parity.context
    if again.token_prior is not None:
        other = copy.deepcopy(again)
        other.get_parameter("details.context.token_prior.cells.weight").mul_(-1)
        assert not compare(other, bundle, [picture(288, 320)], 50).context
    guessed = ("vqgan.encoder.", "vqgan.quant_conv.")
    assert found.guessed
    assert all(name.startswith(guessed) for name in found.guessed)
    for name, tensor in model.state_dict().items():
        combined = name.endswith(("class_embedding", "positional_embedding", "spread.square"))
        if not combined and not name.startswith(guessed) and "details.context" not in name:
            torch.testing.assert_close(found.tensors[name], tensor, rtol=0, atol=0, msg=name)


def test_another_preset_is_refused(bundle: ModelBundle) -> None:
    with pytest.raises(BundleError, match=r"of this preset|of another form"):
        recover(bundle, "compact")
    with pytest.raises(BundleError, match=r"of this preset|of another form"):
        recover(bundle, "tiny-v2")
    with pytest.raises(BundleError, match="cannot be got back"):
        recover(bundle, "dlf-l")


def test_the_command_writes_a_checkpoint_to_start_from(bundle: ModelBundle, tmp_path: Path) -> None:
    out = tmp_path / "start.pt"
    line = [sys.executable, "-m", "dlf", "weights", "recover", str(bundle.folder), "-o", str(out), "--preset"]
    done = subprocess.run([*line, "tiny"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state = checkpoint.load(out)
    assert state.config["preset"] == "tiny"
    Dlf(TINY).load_state_dict(state.ema)
    assert likely_presets(bundle.manifest)[0] == "tiny"
    again = subprocess.run([*line, "tiny"], capture_output=True, text=True)
    assert again.returncode == 2
    assert "exists" in again.stderr
    wrong = subprocess.run([*line, "huge", "--overwrite"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "there is no preset huge" in wrong.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("role", "preset"), [("fast", "small"), ("base", "base")])
def test_a_shipped_model_comes_back(role: str, preset: str, picture: Callable[[int, int], UInt8]) -> None:
    from dlf.codec.bundle import find

    bundle = find(role)
    assert recover_likely(bundle).preset == preset
    model = Dlf(PRESETS[preset]).eval().requires_grad_(False)
    model.load_state_dict(recover(bundle, preset).tensors)
    compare(model, bundle, [picture(288, 320)], 50).check()
