"""The torch engine with a tiny model in the published form, and, when asked for, the one of 1.27 G."""

# ruff: noqa: E402
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import dlf
from dlf.bundles.bundle_writer import BundleSpec
from dlf.bundles.torch_bundle import write_torch_bundle
from dlf.cli.main import main
from dlf.codec.bundle import ANALYSIS, CONTEXT, SYNTHESIS, ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import EngineOptions, make_backend
from dlf.errors import BundleError, ChecksumError, EngineError, FormatError, InvalidArgument
from dlf.nn.build import TINY_L
from dlf.nn.hybrid import HybridEncoder
from dlf.nn.model import Dlf
from dlf.nn.vqgan import Upsample
from dlf.records import Float32, Int32, StepParams, UInt8
from dlf.torch_engine import resources
from dlf.torch_engine.loading import PARTS
from dlf.torch_engine.pixel_decoder import PhaseUpsample
from dlf.torch_engine.snapped_context import MEAN_UNIT, SCALE_UNIT, SnappedContext
from dlf.torch_engine.torch_backend import TorchBackend

pytestmark = pytest.mark.torch

Picture = Callable[[int, int], UInt8]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Dlf(TINY_L)
        for name, tensor in model.state_dict().items():
            if "token_add" in name:
                tensor.normal_(std=0.1)
            if name.startswith("details.enc_trans_1"):
                tensor.mul_(3)  # enough spread that many symbols are not zero
    return model.state_dict()


@pytest.fixture(scope="module")
def folder(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_torch_bundle(TINY_L, weights.__getitem__, folder, BundleSpec("tiny-l", 99))
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> ModelBundle:
    return ModelBundle.open(folder)


@pytest.fixture(scope="module")
def backend(bundle: ModelBundle) -> TorchBackend:
    return TorchBackend(bundle, bundle.tables(), EngineOptions())


@pytest.fixture
def codec(bundle: ModelBundle, backend: TorchBackend) -> StreamCodec:
    return StreamCodec(bundle.manifest, bundle.tables(), backend)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (256, 256), (257, 300)])
def test_round_trip_through_a_file(
    height: int, width: int, codec: StreamCodec, backend: TorchBackend, picture: Picture
) -> None:
    rgb = picture(height, width)
    stream = codec.encode_rgb(rgb, 50)
    received = codec.receive(stream)
    windows = -(-height // 256) * -(-width // 256)
    assert received.tokens.shape == (windows, TINY_L.tokens.count)
    assert received.token_bits == windows * 4 * 4  # 4 tokens of 16 codes, with nothing lost
    assert received.y_hat.shape == (8, 8 * -(-height // 256), 8 * -(-width // 256))
    painted = backend.synthesise(received.tokens, received.y_hat, 50)[:height, :width]
    np.testing.assert_array_equal(codec.decode_stream(stream), painted)


def test_packed_layers_give_the_same_as_the_model(
    weights: dict[str, Tensor], backend: TorchBackend, picture: Picture
) -> None:
    model = Dlf(TINY_L).eval()
    model.load_state_dict(weights)
    rgb = picture(256, 512)
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    grid, quality = model.grid(256, 512), torch.tensor([50.0])
    with torch.no_grad():
        z, feature = model.encoder(pixels, grid)
        y = model.details.analyse(feature, quality)
        packed_z, packed_y = backend.latents(rgb, 50)
        torch.testing.assert_close(packed_z, z, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(packed_y, y, rtol=1e-4, atol=1e-4)
        tokens = model.quantize.nearest(z)
        sent = torch.ones_like(tokens, dtype=torch.bool)
        whole = model.synthesise(model.quantize.codebook()[tokens], sent, y, quality, grid)
        packed = backend.decode(tokens.numpy().astype(np.int32), y[0].numpy(), 50)
        torch.testing.assert_close(packed.fused.logits, whole.fused.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(packed.image, whole.image, rtol=1e-3, atol=1e-3)


def test_the_token_reshape_mixes_tokens_and_channels() -> None:
    """(tokens, width) is read as (width, tokens), as the released weights need it."""
    encoder = HybridEncoder(TINY_L)
    seen: list[Tensor] = []
    encoder.conv_out.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    encoder.path.ln_post.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        encoder(torch.rand(1, 3, 256, 256), Dlf(TINY_L).grid(256, 256))
    tokens, projected = seen
    np.testing.assert_array_equal(projected[0].t().flatten(), tokens[0].flatten())


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_smaller_types_paint_nearly_the_same(precision: str, folder: Path, picture: Picture) -> None:
    if precision == "int8" and "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("int8 needs an x86 processor")
    rgb = picture(256, 256)
    data = dlf.Codec(folder).encode(rgb)
    small = dlf.Codec(folder, engine=EngineOptions(precision=precision))
    difference = np.asarray(small.decode(data), float) - np.asarray(dlf.Codec(folder).decode(data), float)
    assert 0 < np.abs(difference).mean() < 4
    assert small.decode(small.encode(rgb)).size == (256, 256)


def test_upsampling_by_phases_is_the_same_with_fewer_products() -> None:
    torch.manual_seed(0)
    whole = Upsample(6, 5, "conv").requires_grad_(False)
    phases = PhaseUpsample(whole.conv)
    for size in ((1, 1), (3, 8)):
        x = torch.randn(2, 6, *size)
        torch.testing.assert_close(phases(x), whole(x))
    with FlopCounterMode(display=False) as counter:
        phases(x)
    fewer = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        whole(x)
    assert 9 * fewer == 4 * counter.get_total_flops()


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_painting_uses_bfloat16_only_where_the_processor_has_it(
    precision: str, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "int8" and "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("int8 needs an x86 processor")
    tokens = np.zeros((1, 4), np.int32)
    y_hat = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    exact = TorchBackend(bundle, bundle.tables(), EngineOptions()).synthesise(tokens, y_hat, 50)
    for present, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(resources, "processor_has", lambda *_, present=present: present)
        backend = TorchBackend(bundle, bundle.tables(), EngineOptions(precision=precision))
        found = backend.synthesise(tokens, y_hat, 50)
        assert {p.dtype for p in backend.model.vqgan.decoder.parameters()} == {dtype}
        assert 0 < np.abs(found.astype(float) - exact).mean() < 4
        assert not {type(m) for m in backend.model.vqgan.decoder.modules()} & {Upsample}


def test_a_processor_that_torch_does_not_tell_about_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert resources.processor_has("amx_bf16", "avx512_bf16")
    assert not resources.processor_has("amx_bf16")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not resources.processor_has("avx512_bf16")


def test_threads_and_environment_of_the_host_stay(bundle: ModelBundle, picture: Picture) -> None:
    before, environment = torch.get_num_threads(), dict(os.environ)
    during: list[int] = []
    options = EngineOptions(
        threads=before + 1, progress=lambda label, share: during.append(torch.get_num_threads())
    )
    backend = TorchBackend(bundle, bundle.tables(), options)
    codec = StreamCodec(bundle.manifest, bundle.tables(), backend)
    codec.decode_stream(codec.encode_rgb(picture(32, 32), 50))
    assert set(during) == {before + 1}
    after = [torch.get_num_threads()]
    thread = Thread(target=lambda: after.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert after == [before, before]
    assert dict(os.environ) == environment


def test_no_grad_changes_nothing_in_the_decoder(weights: dict[str, Tensor]) -> None:
    """Without gradients maps are written over, and only those that nothing else reads."""
    model = Dlf(TINY_L).eval()
    model.load_state_dict(weights)
    x = torch.randn(1, TINY_L.vqgan.code_dim, 4, 4)
    kept = x.clone()
    wanted = model.vqgan.decoder(x).detach()
    with torch.no_grad():
        found = model.vqgan.decoder(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert torch.equal(x, kept)


class OtherMachine:
    """Rounds one mean in a different direction."""

    def __init__(self, backend: TorchBackend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        found = self._backend.context(step, y_hat, common)
        scale = found.scale.copy()
        scale[:, 0, 0] += SCALE_UNIT
        return StepParams(scale, found.mean)


def test_another_rounding_is_an_error_and_not_a_wrong_picture(
    bundle: ModelBundle, backend: TorchBackend, codec: StreamCodec, picture: Picture
) -> None:
    other = StreamCodec(bundle.manifest, bundle.tables(), OtherMachine(backend))  # type: ignore[arg-type]
    for seed in range(4):
        stream = codec.encode_rgb(np.roll(picture(256, 256), 37 * seed, 1), 50)
        with pytest.raises(FormatError):
            other.receive(stream)


def test_the_sum_finds_what_the_coder_does_not(codec: StreamCodec, picture: Picture) -> None:
    from dlf.codec.symbol_sum import exchange_sum
    from dlf.entropy.coder import SymbolReader, SymbolWriter

    writer = SymbolWriter()
    exchange_sum(writer, 0x12345678)
    data = writer.finish()
    exchange_sum(SymbolReader(data), 0x12345678)
    with pytest.raises(ChecksumError, match="rounds differently"):
        exchange_sum(SymbolReader(data), 0x12345679)


def test_the_context_network_is_snapped(weights: dict[str, Tensor]) -> None:
    """Noise far below the grid changes nothing; the numbers are those of the float network."""
    model = Dlf(TINY_L).eval()
    model.load_state_dict(weights)
    snapped = SnappedContext(model.details.context)
    prior = snapped.prior(8, 8, 50)
    y_hat = np.random.default_rng(0).integers(-40, 40, (8, 8, 8)).astype(np.int32) * 1000
    found = snapped.context(2, y_hat, prior.common)
    known = torch.from_numpy(y_hat / MEAN_UNIT).float()[None]
    with torch.no_grad():
        wanted = model.details.context.context(1, known, torch.from_numpy(prior.common)[None])
    np.testing.assert_allclose(found.mean / MEAN_UNIT, wanted.mean[0].numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.scale / SCALE_UNIT, wanted.scale[0].numpy(), rtol=1e-4, atol=1e-4)
    for parameter in snapped._context.parameters():
        parameter.mul_(1 + 1e-13)
    again = snapped.context(2, y_hat, prior.common)
    np.testing.assert_array_equal(found.mean, again.mean)
    np.testing.assert_array_equal(found.scale, again.scale)


def test_a_damaged_or_foreign_file_is_refused(folder: Path, tmp_path: Path, picture: Picture) -> None:
    import shutil

    for name in (ANALYSIS, CONTEXT, SYNTHESIS):
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        data = bytearray((copy / name).read_bytes())
        data[-1] ^= 1
        (copy / name).write_bytes(data)
        damaged = dlf.Codec(copy)
        with pytest.raises(BundleError, match="damaged"):
            damaged.decode(damaged.encode(picture(32, 32)))


def test_what_cannot_be_had_is_said(
    folder: Path, bundle: ModelBundle, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgument, match="precision 'int4' is unknown"):
        EngineOptions(precision="int4")
    with pytest.raises(EngineError, match="device 'nowhere'"):
        make_backend(bundle, bundle.tables(), EngineOptions(device="nowhere"))
    monkeypatch.setattr(resources, "available_bytes", lambda: 10**6)
    with pytest.raises(EngineError, match=r"needs about .* GB of memory, but only 0.0 GB are free"):
        dlf.Codec(folder).encode(picture(32, 32))


def test_onnx_models_have_no_engine_options() -> None:
    with pytest.raises(EngineError, match="its own precision only"):
        dlf.Codec(engine=EngineOptions(precision="int8")).encode(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--device", "nowhere"), "--device: torch cannot use the device 'nowhere' here"),
        (("--precision", "int8", "--device", "meta"), "--device, --precision: int8 needs an x86 processor"),
        (("--precision", "float16", "--compile"), "a compiled model runs in float32 only"),
        (("--jobs", "2"), "--jobs does not go with the model 'tiny-l'"),
    ],
)
def test_what_cannot_be_had_ends_the_command_before_the_first_file(
    folder: Path, options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", "no-such.png", "--model", str(folder), *options]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "no-such" not in said


def test_progress_goes_from_nothing_to_all(folder: Path, picture: Picture) -> None:
    seen: list[tuple[str, float]] = []
    options = EngineOptions(progress=lambda label, share: seen.append((label, share)))
    codec = dlf.Codec(folder, engine=options)
    codec.decode(codec.encode(picture(256, 256)))
    for label in ("analysis", "synthesis"):
        shares = [share for name, share in seen if name == label]
        assert len(shares) > 3
        assert shares == sorted(shares)
        assert shares[-1] == 1


def test_parts_hold_every_tensor_but_those_of_training(weights: dict[str, Tensor]) -> None:
    used = tuple(prefix for prefixes in PARTS.values() for prefix in prefixes)
    rest = {name.rsplit(".", 1)[0] for name in weights if not name.startswith(used)}
    assert all(name.startswith(("vqgan.encoder.", "vqgan.quant_conv")) for name in rest)
