"""The context network gives the same integers whatever computes it."""

# ruff: noqa: E402
from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
import onnx
import onnxruntime
from onnx import numpy_helper

from dlf.bundles import onnx_bundle
from dlf.entropy.quadtree import STEPS, step_masks
from dlf.nn.build import BASE, COMPACT, TINY, TINY_V2
from dlf.nn.context import ContextModel
from dlf.nn.detail_branch import DetailQuantizer
from dlf.nn.exact import (
    ACTIVATION_LIMIT,
    ACTIVATION_UNIT,
    BIAS_LIMIT,
    FAN_IN_LIMIT,
    WEIGHT_LIMIT,
    Arithmetic,
    IntegerConv2d,
    WholeConv2d,
    settle,
    with_whole_weights,
)
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig
from dlf.nn.token_prior import CODE_UNIT, whole_codes
from dlf.nn.vq import VectorQuantizer
from dlf.nn.windows import make_grid

pytestmark = pytest.mark.torch

SIZES = [(1, 1), (3, 5), (10, 13)]
# as many inputs to a sum of the tokens' layer as a compact model has
COMPACT_V2 = replace(COMPACT, name="compact-v2", quant=replace(COMPACT.quant, token_channels=16))
_NOT_SHIPPED = [pytest.param(config, marks=pytest.mark.slow) for config in (COMPACT, COMPACT_V2)]
CONFIGS = pytest.mark.parametrize("config", [TINY, TINY_V2, BASE, *_NOT_SHIPPED], ids=lambda c: c.name)
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
Arrays = list[NDArray[np.float64]]


def make_context(config: ModelConfig, wild: bool) -> ContextModel:
    """Seeded; `wild` has weights and biases far beyond their limits, so that much saturates."""
    torch.manual_seed(7)
    context = ContextModel(config.quant, config.tokens)
    if wild:
        with torch.no_grad():
            for module in context.modules():
                if isinstance(module, IntegerConv2d):
                    module.weight.uniform_(-2.5, 2.5)
                    module.bias.uniform_(-700, 700)
    return context


def make_codes(config: ModelConfig) -> VectorQuantizer:
    """Seeded codes of the tokens."""
    torch.manual_seed(9)
    return VectorQuantizer(config.tokens.codes, config.tokens.code_dim, normalise=True)


def graphs_of(config: ModelConfig, context: ContextModel, codes: VectorQuantizer) -> dict[str, bytes]:
    """The two graphs as a bundle holds them; the rest of the model is not needed for them."""
    model = SimpleNamespace(
        config=config,
        details=SimpleNamespace(context=context),
        token_prior=context.token_prior,
        quantize=codes,
        grid=lambda height, width: make_grid(height // 16, width // 16, 8),
    )
    return {name: onnx_bundle.graph_file(model, f"{name}.onnx") for name in ("prior", "context")}


class Torch:
    """The torch module behind numpy; `grad` takes the straight-through path of training."""

    def __init__(
        self,
        context: ContextModel,
        codes: VectorQuantizer,
        dtype: torch.dtype = torch.float32,
        grad: bool = False,
    ) -> None:
        self.context, self.dtype, self.grad = context, dtype, grad
        self.codes = whole_codes(codes.codebook()).to(dtype)

    def prior(self, vector: NDArray[np.float32], tokens: NDArray[np.int64]) -> Arrays:
        with torch.set_grad_enabled(self.grad):
            told = None
            if self.context.token_prior is not None:
                told = self.context.token_prior.read(self.codes, torch.from_numpy(tokens)[None])
            found = self.context.prior(torch.from_numpy(vector).to(self.dtype), told)
        return [self._back(t) for t in (*found.first, found.step, found.common)]

    def step(self, index: int, y_hat: NDArray[np.float32], common: NDArray[np.float64]) -> Arrays:
        inputs = (torch.from_numpy(a).to(self.dtype) for a in (y_hat, common))
        with torch.set_grad_enabled(self.grad):
            return [self._back(t) for t in self.context.context(index, *inputs)]

    @staticmethod
    def _back(tensor: torch.Tensor) -> NDArray[np.float64]:
        return tensor.detach().to(torch.float64).numpy()


class Onnx:
    """ONNX Runtime behind numpy."""

    def __init__(self, graphs: dict[str, bytes], level: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        self.sessions = {
            name: onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            for name, data in graphs.items()
        }

    def prior(self, vector: NDArray[np.float32], tokens: NDArray[np.int64]) -> Arrays:
        known = {node.name for node in self.sessions["prior"].get_inputs()}
        told = {"tokens": tokens} if "tokens" in known else {}
        return self._run("prior", ["scale", "mean", "step", "common"], prior=vector, **told)

    def step(self, index: int, y_hat: NDArray[np.float32], common: NDArray[np.float64]) -> Arrays:
        inputs = {"y_hat": y_hat, "common": common.astype(np.float32), "index": np.array(index, np.int64)}
        return self._run("context", ["scale", "mean"], **inputs)

    def _run(self, name: str, outputs: list[str], **inputs: NDArray[np.generic]) -> Arrays:
        return [array.astype(np.float64) for array in self.sessions[name].run(outputs, inputs)]


def implementations(
    config: ModelConfig, context: ContextModel, codes: VectorQuantizer
) -> dict[str, Torch | Onnx]:
    whole = with_whole_weights(context)
    graphs = graphs_of(config, context, codes)
    found: dict[str, Torch | Onnx] = {
        "float32": Torch(context, codes),
        "training": Torch(context, codes, grad=True),
        "float64": Torch(with_whole_weights(context).double(), codes, torch.float64),
        "float64, real weights": Torch(copy.deepcopy(context).double(), codes, torch.float64),
        "whole": Torch(whole, codes),
        "channels_last": Torch(copy.deepcopy(context).to(memory_format=torch.channels_last), codes),
    }
    for level in LEVELS:
        for threads in (1, 2):
            found[f"{level}, {threads} threads"] = Onnx(graphs, level, threads)
    return found


@pytest.mark.parametrize("wild", [False, True])
@CONFIGS
def test_same_integers_from_every_implementation(config: ModelConfig, wild: bool) -> None:
    channels = config.quant.channels
    rng = np.random.default_rng(3)
    found = implementations(config, make_context(config, wild), make_codes(config))
    for rows, cols in SIZES:
        shape = (1, channels, rows, cols)
        vector = rng.integers(-ACTIVATION_LIMIT, ACTIVATION_LIMIT + 1, shape).astype(np.float32)
        # mostly small, some beyond what the network looks at, some at the coder's own limit
        y_hat = rng.choice([1, 30, 300, 2**19], shape) * rng.uniform(-1, 1, shape)
        y_hat = np.rint(y_hat).astype(np.float32)
        tokens = _tokens(config, rows, cols)
        common = found["float32"].prior(vector, tokens)[3]
        wanted = [*found["float32"].prior(vector, tokens), *_steps(found["float32"], y_hat, common)]
        assert all(np.array_equal(array, np.rint(array)) for array in wanted)
        assert len(np.unique(wanted[-1])) > 1
        for name, implementation in found.items():
            got = [*implementation.prior(vector, tokens), *_steps(implementation, y_hat, common)]
            for a, b in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{name} at {rows}x{cols}")


def _tokens(config: ModelConfig, rows: int, cols: int) -> NDArray[np.int64]:
    """Tokens of all windows, the last of each not sent."""
    rng = np.random.default_rng(rows)
    shape = (-(-rows // 8), -(-cols // 8), config.tokens.count)
    tokens = rng.integers(0, config.tokens.codes, shape)
    return np.where(np.arange(shape[2]) < rng.integers(1, shape[2] + 1, (*shape[:2], 1)), tokens, -1)


def _steps(implementation: Torch | Onnx, y_hat: NDArray[np.float32], common: NDArray[np.float64]) -> Arrays:
    return [a for index in range(STEPS - 1) for a in implementation.step(index, y_hat, common)]


@pytest.mark.parametrize("config", [TINY, TINY_V2], ids=lambda config: config.name)
def test_same_symbols_on_latents_of_a_picture(config: ModelConfig) -> None:
    """The four steps feed on their own results, so that one difference would spread."""
    torch.manual_seed(1)
    model = Dlf(config).eval()
    y, x = np.mgrid[:192, :320]
    waves = np.stack([(x * y // 60) % 256, (3 * y + x) % 256, (x * x // 90) % 256])
    pixels = torch.from_numpy(waves.astype(np.float32) / 255)[None]
    quality = torch.tensor([70.0])
    with torch.no_grad():
        z, feature = model.encoder(pixels, model.grid(192, 320))
        sent = torch.arange(config.tokens.count) < torch.tensor([[3], [1]])
        tokens = torch.where(sent, model.quantize.nearest(z), -1).reshape(1, 2, -1).numpy()
        latent = model.details.analyse(feature, quality).double().numpy()
        vector = model.details.context.prior_vector(quality).expand(-1, -1, 6, 10).numpy().copy()
        own = model.compress(pixels, quality, sent, model.grid(192, 320)).details
    assert latent.std() > 0.3
    walks = {
        name: _walk(implementation, vector, tokens, latent)
        for name, implementation in implementations(config, model.details.context, model.quantize).items()
    }
    for name, (symbols, y_hat) in walks.items():
        np.testing.assert_array_equal(symbols, walks["float32"][0], err_msg=name)
        np.testing.assert_array_equal(y_hat, walks["float32"][1], err_msg=name)
    assert len(np.unique(walks["float32"][0])) > 4
    # the trainer's walk is the codec's
    np.testing.assert_allclose(own.y_hat.numpy(), walks["float32"][1], atol=1e-5)


def _walk(
    implementation: Torch | Onnx,
    vector: NDArray[np.float32],
    tokens: NDArray[np.int64],
    latent: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scale, mean, step, common = implementation.prior(vector, tokens)
    masks = step_masks(*latent.shape[1:])
    y_hat, symbols = np.zeros_like(latent), np.zeros_like(latent)
    for index in range(STEPS):
        if index:
            scale, mean = implementation.step(index - 1, y_hat.astype(np.float32), common)
        found = np.where(scale >= 1, np.rint(latent / (step / 64) - mean / 16), 0)
        symbols = np.where(masks[index], found, symbols)
        y_hat = np.where(masks[index], found * 16 + mean, y_hat)
    return symbols, y_hat / 16 * (step / 64)


@CONFIGS
def test_no_sum_of_the_network_can_leave_what_float32_holds(config: ModelConfig) -> None:
    convolutions = [
        m for m in with_whole_weights(make_context(config, True)).modules() if type(m) is WholeConv2d
    ]
    assert len(convolutions) > 10
    for conv in convolutions:
        weight, bias = conv.weight.double(), conv.bias.double()
        largest = weight.abs().sum((1, 2, 3)) * ACTIVATION_LIMIT + bias.abs()
        assert largest.max() < 2**24
        assert weight.abs().max() <= WEIGHT_LIMIT
        assert bias.abs().max() <= BIAS_LIMIT
        for parameter in (weight, bias):
            assert torch.equal(parameter, parameter.round())
    # what the layer of the tokens is given is within the limit of what the sums are proved for
    codes = whole_codes(make_codes(config).codebook())
    assert codes.abs().max() <= CODE_UNIT <= ACTIVATION_LIMIT
    assert ACTIVATION_UNIT <= ACTIVATION_LIMIT


def test_the_limits_together_keep_any_sum_exact() -> None:
    assert FAN_IN_LIMIT * WEIGHT_LIMIT * ACTIVATION_LIMIT + BIAS_LIMIT < 2**24
    Arithmetic(integer=True).conv(FAN_IN_LIMIT, 1)
    Arithmetic(integer=True).conv(FAN_IN_LIMIT, FAN_IN_LIMIT, 3, groups=FAN_IN_LIMIT)
    with pytest.raises(ValueError, match="not exact"):
        Arithmetic(integer=True).conv(FAN_IN_LIMIT + 1, 1)
    with pytest.raises(ValueError, match="not exact"):
        Arithmetic(integer=True).conv(FAN_IN_LIMIT // 9 + 1, 1, 3)


def test_prior_vectors_stay_within_the_activation_limit() -> None:
    context = make_context(TINY, False)
    with torch.no_grad():
        context.factorized_prior_vec.copy_(
            torch.linspace(-40, 40, context.factorized_prior_vec.numel()).view(3, 8)
        )
        vector = context.prior_vector(torch.arange(0, 101, 10.0))
    assert vector.abs().max() == ACTIVATION_LIMIT
    assert torch.equal(vector, vector.round())


@pytest.mark.parametrize("slope", [0.01, 0.1])
def test_integer_leak_is_near_the_slope_and_whole(slope: float) -> None:
    x = torch.arange(-255.0, 256.0)
    leaked = Arithmetic(integer=True).leaky(x, slope)
    assert torch.equal(leaked, leaked.round())
    assert torch.equal(leaked[x >= 0], x[x >= 0])
    assert (leaked - torch.nn.functional.leaky_relu(x, slope)).abs().max() < 1 + 255 * slope * 0.5


def test_gradients_pass_rounding() -> None:
    context = make_context(TINY, False)
    vector = context.prior_vector(torch.tensor([30.0])).expand(-1, -1, 4, 4)
    prior = context.prior(vector)
    params = context.context(2, torch.ones(1, TINY.quant.channels, 4, 4), prior.common)
    (params.scale.sum() + params.mean.sum() + prior.step.sum()).backward()
    for name, parameter in context.named_parameters():
        if name.startswith(("y_spatial_prior_adaptor.0", "y_spatial_prior_adaptor.1")):
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_pass_the_limits_of_weights_but_not_of_activations() -> None:
    conv = IntegerConv2d(1, 1, 1)
    with torch.no_grad():
        conv.weight.fill_(50.0)
        conv.bias.zero_()
    conv(torch.full((1, 1, 1, 1), 3.0)).backward()
    assert conv.weight.grad.abs().max() > 0
    # not the limits themselves: there releases of torch differ
    x = torch.tensor([-256.0, -254.0, 0.0, 254.0, 256.0], requires_grad=True)
    settle(x).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("config", [COMPACT, COMPACT_V2], ids=lambda config: config.name)
@pytest.mark.parametrize("name", ["prior", "context"])
def test_stored_parameters_are_whole_numbers(name: str, config: ModelConfig) -> None:
    graphs = graphs_of(config, make_context(config, False), make_codes(config))
    graph = onnx.load_from_string(graphs[name]).graph
    weights = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    assert sum(w.size for w in weights) > 10_000
    assert any(w.dtype == np.float16 for w in weights)
    for weight in weights:
        if weight.dtype != np.int64:
            np.testing.assert_array_equal(weight, np.rint(weight))


def test_detail_quantizer_starts_with_latents_that_do_not_round_to_zero() -> None:
    torch.manual_seed(0)
    details = DetailQuantizer(COMPACT.quant)
    with torch.no_grad():
        y = details.analyse(torch.randn(1, COMPACT.quant.hidden, 8, 8), torch.tensor([50.0]))
    assert y.std() > 0.5
