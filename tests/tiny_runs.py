"""Tiny runs that several test files share: stages, crops of made-up pictures, comparing states."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from dlf.losses.adversarial import Adversarial
from dlf.losses.objective import Weights
from dlf.train.align_stage import AlignStage
from dlf.train.codec_stage import CodecStage, new_model
from dlf.train.config import Optimiser, TrainConfig
from dlf.train.data import Batch, CropSampler
from dlf.train.engine import Run
from dlf.train.half_stages import DecoderStage, EncoderStage
from dlf.train.rate import Rate
from dlf.train.stage import Stage
from dlf.train.tokenizer_stage import TokenizerStage

STEPS = 6
CONFIG = TrainConfig(
    preset="tiny", stage="tokenizer", steps=STEPS, shapes=((64, 64), (32, 96)), pixels=8192,
    optimiser=Optimiser(lr=2e-3, lr_end=1e-4, warmup=2, hold=0.3),
    weights=Weights(l1=1.0, low=1.0, vq=1.0, latent=1.0, code=0.25),
    rate=Rate(at_low=4.0, at_high=1.0), ema=0.9, precision="float32", validate_every=4, log_every=2,
)  # fmt: skip

# begins a program for which nothing can be imported, or is found, but torch and what it brings, and what a
# folder made by tools/gpu_pack.py brings
ALONE = """
import sys
there = {"numpy", "PIL", "safetensors", "click", "dlf", *sys.stdlib_module_names}
there |= {"torch", "torchgen", "functorch", "triton", "nvidia", "cuda", "filelock", "fsspec", "jinja2"}
there |= {"markupsafe", "mpmath", "networkx", "sympy", "typing_extensions"}
class Alone:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        known = path is not None or name in there or name.startswith("_")
        return self.finder.find_spec(name, path, target) if known else None
sys.meta_path[:] = [Alone(finder) for finder in sys.meta_path]
"""

# the command line there
BARE = (
    ALONE
    + """
from dlf.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
)


def lite_weights() -> dict[str, torch.Tensor]:
    """Random weights of EfficientNet-lite0's layers up to the tenth block, as its file names them."""
    generator = torch.Generator().manual_seed(3)
    widths = (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112)
    kernels = (3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5)

    def conv(c_in: int, c_out: int, kernel: int) -> torch.Tensor:
        return torch.randn(c_out, c_in, kernel, kernel, generator=generator) / (c_in * kernel**2) ** 0.5

    made = {"stem.weight": conv(3, 32, 3)}
    before = 32
    for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        inner = before * 6 if i else before
        if i:
            made[f"blocks.{i}.expand.weight"] = conv(before, inner, 1)
        made[f"blocks.{i}.depthwise.weight"] = conv(1, inner, kernel)
        made[f"blocks.{i}.project.weight"] = conv(inner, width, 1)
        before = width
    biases = {
        k.replace("weight", "bias"): 0.1 * torch.randn(len(v), generator=generator) for k, v in made.items()
    }
    return made | biases


def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(3)]


STAGES = {"align": AlignStage, "joint": CodecStage, "decoder": DecoderStage, "encoder": EncoderStage}


def make_stage(kind: str) -> tuple[TrainConfig, Stage]:
    torch.manual_seed(21)
    config = replace(CONFIG, stage=kind)
    if kind == "tokenizer":
        return config, TokenizerStage(config, None, pictures()[:1])
    if kind == "decoder":
        adversarial = Adversarial(weight=0.2, adaptive=False, kinds=("pixels",), width=8)
        config = replace(config, adversarial=adversarial, token_ends=(1, 2))
        return config, DecoderStage(config, new_model("tiny"), None, pictures(), pictures()[:1])
    config = replace(config, token_ends=(1, 2)) if kind == "encoder" else config
    return config, STAGES[kind](config, new_model("tiny"), None, pictures(), pictures()[:1])


class Sampler(CropSampler):
    """Crops of made-up pictures; calls `hook` with the number of the step first."""

    def __init__(self, hook: Callable[[int], None] = lambda step: None) -> None:
        super().__init__(pictures(), CONFIG.shapes, CONFIG.pixels, CONFIG.seed)
        self.hook = hook

    def __call__(self, step: int, part: int = 0) -> Batch:
        self.hook(step)
        return super().__call__(step, part)


def make_run(kind: str, folder: Path, hook: Callable[[int], None] = lambda step: None) -> Run:
    config, stage = make_stage(kind)
    return Run(config, stage, Sampler(hook), folder)


def tell(number: signal.Signals) -> None:
    """Do what Python does when a signal comes; one that really came would end all tests if it went wrong."""
    handler = signal.getsignal(number)
    assert callable(handler)
    handler(number, None)


def stop_after(run: Run, steps: int) -> None:
    def hook(step: int) -> None:
        run.stop = step + 1 == steps

    run.sampler.hook = hook  # type: ignore[attr-defined]


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from tensors(part, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for key, part in enumerate(value):
            yield from tensors(part, f"{path}.{key}")
    else:
        yield path, value


def assert_same(a: Any, b: Any) -> None:
    first, second = dict(tensors(a)), dict(tensors(b))
    assert first.keys() == second.keys()
    for key, value in first.items():
        same = torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]
        assert same, key


class Distance(nn.Module):
    """In the place of a perceptual network."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return (x - target).square().mean((1, 2, 3))


def judged_stage(kind: str, folder: Path) -> tuple[Any, Stage]:
    """A stage with every term that it can have; folder: for a file of weights."""
    torch.manual_seed(21)
    judges = Adversarial(weight=0.5, matching=1.0, width=4, layers=2)
    if kind in {"decoder", "encoder"}:
        judges = replace(judges, matching=0.0, adaptive=False, kinds=("features", "pixels"))
    config = replace(
        CONFIG, stage=kind, steps=40, log_every=20, validate_every=40, shapes=((64, 64),),
        weights=replace(CONFIG.weights, ssim=1.0, phase=1.0, texture=1.0, features=1.0, perceptual=1.0),
        adversarial=judges,
    )  # fmt: skip
    features = folder / "lite.safetensors"
    save_file(lite_weights(), features)
    if kind == "tokenizer":
        return config, TokenizerStage(config, Distance(), pictures()[:1], features)
    return config, STAGES[kind](config, new_model("tiny"), Distance(), pictures(), pictures()[:1], features)
