"""What the presets weigh and cost."""

# ruff: noqa: E402
from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlf.nn.build import BASE, COMPACT, DLF_L, PRESETS, SMALL, create_model
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig

pytestmark = pytest.mark.torch

HEIGHT, WIDTH = 512, 768
TRAINING_ONLY = ("vqgan.encoder.", "vqgan.quant_conv.")

# tensor names of the released weights, where a copy lies beside the checkout
RELEASED = Path(__file__).parents[3] / "shared/parity/keys.json"
RELEASED_PREFIX = {
    "encoder": ("hybrid_codec.encoder.", "hybrid_codec.latent_tokens"),
    "quantize": ("hybrid_codec.quantize.",),
    "details": ("hybrid_codec.quantize_feat.",),
    "decoder": ("hybrid_codec.decoder.",),
    "fusion": ("prior_fusion.",),
    "vqgan": ("vqgan.",),
}
# constants that we compute
MASKS = ("upper_lower_mask", "left_right_mask")
# millions of numbers in the released checkpoint without masks, by part
PUBLISHED = {"encoder": 539.0, "details": 34.0, "decoder": 522.6, "fusion": 98.5, "vqgan": 71.9}


class Limits(NamedTuple):
    """Shipped parameters, multiply-adds a pixel to encode and to decode."""

    config: ModelConfig
    parameters: float
    encode: float
    decode: float


LIMITS = (
    Limits(COMPACT, 12e6, 25e3, 20e3),
    Limits(BASE, 26e6, 60e3, 75e3),
    Limits(SMALL, 14e6, 45e3, 45e3),
)


def test_a_model_is_created_by_its_name() -> None:
    with torch.device("meta"):
        assert create_model("base").config == BASE
    with pytest.raises(ValueError, match=r"no preset huge; there are .*compact, base"):
        create_model("huge")


def show(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n  {text}", end="")  # noqa: T201


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: limits.config.name)
def test_shipped_parameters(limits: Limits, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.device("meta"):
        model = Dlf(limits.config)
    shipped = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(TRAINING_ONLY))
    show(capsys, f"{limits.config.name}: {shipped / 1e6:.2f} M parameters shipped")
    assert shipped <= limits.parameters


def macs_per_pixel(run: Callable[[], object]) -> float:
    """Multiply-adds; attention is only counted where it is spelt out, by the MATH backend."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    return counter.get_total_flops() / 2 / (HEIGHT * WIDTH)


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: limits.config.name)
def test_operations(limits: Limits, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    config = limits.config
    model = Dlf(config).eval().requires_grad_(False)
    grid = model.grid(HEIGHT, WIDTH)
    quality = torch.tensor([50.0])
    y = torch.zeros(1, config.quant.channels, HEIGHT // 32, WIDTH // 32)
    tokens = config.tokens
    codes = torch.zeros(len(grid.token.gather), tokens.count, tokens.code_dim)
    sent = torch.ones(codes.shape[:2], dtype=torch.bool)

    def context() -> None:
        network = model.details.context
        vector = network.prior_vector(quality)
        if network.token_prior is None:
            # as the codec does it: near the border, and one cell for all others
            prior = network.prior(vector.expand(1, -1, 5, 5))
        else:
            windows = -(-HEIGHT // 256), -(-WIDTH // 256)
            told = network.token_prior(
                codes.reshape(1, *windows, *codes.shape[1:]), sent.reshape(1, *windows, -1)
            )
            prior = network.prior(vector.expand(-1, -1, *y.shape[2:]), told)
        for index in range(3):
            network.context(index, y, prior.common[..., :1, :1].expand(y.shape))

    def encode() -> None:
        _, feature = model.encoder(torch.zeros(1, 3, HEIGHT, WIDTH), grid)
        model.details.analyse(feature, quality)
        context()

    def decode() -> None:
        context()
        model.vqgan.decode(model.fuse(codes, sent, y, quality, grid).latent)

    to_encode, to_decode = macs_per_pixel(encode), macs_per_pixel(decode)
    show(
        capsys, f"{config.name}: {to_encode / 1e3:.2f} kMAC/pixel to encode, {to_decode / 1e3:.2f} to decode"
    )
    assert 1e3 < to_encode <= limits.encode
    assert 1e3 < to_decode <= limits.decode


def test_large_preset_has_the_published_size(capsys: pytest.CaptureFixture[str]) -> None:
    """The published 1.27 G count masks of attention windows (19 x 2 x 256 x 256), which we compute."""
    with torch.device("meta"):
        model = Dlf(DLF_L)
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    total = sum(sizes.values())
    show(capsys, "dlf-l: " + ", ".join(f"{k} {v:.1f} M" for k, v in sizes.items()) + f", all {total:.1f} M")
    assert 1240 < total < 1280
    for name in PUBLISHED:
        assert sizes[name] == pytest.approx(PUBLISHED[name], abs=0.06), name


@pytest.mark.parametrize("part", RELEASED_PREFIX)
def test_large_preset_holds_the_released_weights(part: str) -> None:
    """As many tensors of each shape; axes of length 1 (a 1x1 convolution or a linear layer) do not count."""
    if not RELEASED.exists():
        pytest.skip("the released weights' list of tensors is not at hand")
    released = json.loads(RELEASED.read_text("utf-8"))
    wanted = (
        shape
        for name, shape in released.items()
        if name.startswith(RELEASED_PREFIX[part]) and not name.endswith(MASKS)
    )
    with torch.device("meta"):
        model = Dlf(DLF_L)
    ours = shapes(p.shape for p in model.get_submodule(part).parameters())
    assert ours == shapes(wanted)


def test_every_released_tensor_belongs_to_a_part() -> None:
    if not RELEASED.exists():
        pytest.skip("the released weights' list of tensors is not at hand")
    known = tuple(prefix for prefixes in RELEASED_PREFIX.values() for prefix in prefixes)
    rest = {name for name in json.loads(RELEASED.read_text("utf-8")) if not name.startswith(known)}
    assert rest == {"epoch_for_strategy", "lmbda_idx", "lmbda_list"}


def shapes(found: Iterable[Iterable[int]]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(n for n in shape if n != 1) for shape in found)


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda config: config.name)
def test_presets_are_consistent(config: object) -> None:
    assert PRESETS[config.name] is config  # type: ignore[attr-defined]
    with torch.device("meta"):
        model = Dlf(config)
    for name, parameter in model.named_parameters():
        assert math.prod(parameter.shape) > 0, name
