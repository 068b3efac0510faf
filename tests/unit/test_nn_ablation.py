"""Models without a part of the design train, export and code pictures like any other."""

# ruff: noqa: E402
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import dlf
from dlf.bundles.bundle_writer import BundleSpec
from dlf.bundles.onnx_bundle import TokenUse, write_onnx_bundle
from dlf.bundles.parity import compare
from dlf.codec.bundle import ModelBundle
from dlf.losses.objective import Weights
from dlf.nn.ablation import VectorDetails
from dlf.nn.build import PRESETS, TINY
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig, QuantConfig
from dlf.nn.schedule import sent_mask, token_schedule
from dlf.records import UInt8
from dlf.train.align_stage import AlignStage
from dlf.train.codec_stage import CodecStage
from dlf.train.config import Optimiser, TrainConfig
from dlf.train.data import CropSampler
from dlf.train.engine import Run
from dlf.train.rate import Rate

pytestmark = pytest.mark.torch

VECTOR = replace(
    TINY, name="vector", quant=replace(TINY.quant, channels=8, kind="vector", codes=16, code_dim=3)
)
NONE = replace(
    TINY,
    name="none",
    detail=replace(TINY.detail, encoder_in_swin=0, encoder_out_swin=0, decoder_in_swin=0),
    interact=replace(TINY.interact, encoder_layers=(), decoder_layers=()),
    quant=replace(TINY.quant, kind="none"),
    fusion=replace(TINY.fusion, detail_swin=0),
)
APART = replace(TINY, name="apart", interact=replace(TINY.interact, depth=0))
CONFIGS = [VECTOR, NONE, APART]
by_name = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)


def test_presets_differ_from_compact_by_one_part_each() -> None:
    names = {}
    for preset in ("compact", "compact-no-details", "compact-no-interaction", "compact-vector-details"):
        with torch.device("meta"):
            names[preset] = {name for name, _ in Dlf(PRESETS[preset]).named_parameters()}
    full = names["compact"]
    lost = full - names["compact-no-interaction"]
    assert lost == {name for name in full if ".inter_blocks." in name}
    none = names["compact-no-details"]
    assert none < full
    assert not any(
        part in name for name in none for part in ("details.", "feat_blocks", "pix_emb", "encoder.down_")
    )
    vector = names["compact-vector-details"]
    assert full - vector == {name for name in full if name.startswith("details.context.")}
    # a code book for each two digits
    assert len(vector - full) == PRESETS["compact-vector-details"].quant.channels // 2
    assert all("books" in name for name in vector - full)


def random_model(config: ModelConfig) -> Dlf:
    """Seeded, with every part that starts at zero moved away from it, and weights that fit float16."""
    torch.manual_seed(8)
    model = Dlf(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
        parameter.copy_(parameter.half().float())
    return model


def write(model: Dlf, folder: Path) -> ModelBundle:
    tokens = model.config.tokens
    counts = np.zeros((tokens.count, tokens.codes), np.int64)
    write_onnx_bundle(model, folder, BundleSpec("ablated", 101, 40), TokenUse(counts))
    return ModelBundle.open(folder)


@by_name
def test_a_bundle_codes_what_the_model_says(
    config: ModelConfig, picture: Callable[[int, int], UInt8], tmp_path: Path
) -> None:
    model = random_model(config)
    bundle = write(model, tmp_path)
    compare(model, bundle, [picture(64, 288), picture(256, 256)], 37).check()
    rgb, codec = picture(288, 320), dlf.Codec(tmp_path, threads=1)
    for quality in (0, 37, 100):
        pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        keep = torch.tensor([int(token_schedule(TINY.tokens.count, tail_drop=True)[quality])])
        sent = sent_mask(keep, TINY.tokens.count, model.grid(288, 320).token)
        asked = torch.tensor([float(quality)])
        bottleneck, _, painted = model(pixels, asked, sent)
        data = codec.encode(rgb, quality=quality)
        decoded = np.asarray(codec.decode(data)).astype(int)
        wanted = ((painted[0].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
        assert np.abs(decoded - wanted).max() <= 2
        if config.quant.kind != "scalar":
            # what the model estimates is what the file holds
            found = codec.info(data, symbols=True).detail_bits
            assert found == pytest.approx(bottleneck.details.bits.item(), rel=0.02, abs=1)
            if config.quant.kind == "none":
                assert bottleneck.details.bits.item() == 0


def test_more_quality_sends_more_groups() -> None:
    details = VectorDetails(VECTOR.quant).eval()
    sent = details.sent(torch.tensor([0.0, 33.0, 50.0, 100.0]))
    assert sent.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    vector = details.context.prior_vector(torch.tensor([0.0, 100.0]))[..., 0, 0]
    assert vector[0, :2].min() >= 1
    assert not vector[0, 2:].any()
    assert vector[1].min() >= 1


@torch.no_grad()
def test_vectors_in_training_are_what_their_digits_decode_to() -> None:
    torch.manual_seed(2)
    details = VectorDetails(VECTOR.quant)
    feature, quality = torch.randn(2, 16, 3, 5), torch.tensor([20.0, 90.0])
    trained = details.quantise(details.analyse(feature, quality), quality)
    shown = details.synthesise(trained.y_hat, quality)
    details.eval()
    digits = details.analyse(feature, quality)
    assert digits.shape == (2, 8, 3, 5)
    assert digits.min() >= -2
    assert digits.max() <= 1
    assert torch.equal(digits, digits.round())
    evaluated = details.quantise(digits, quality)
    torch.testing.assert_close(details.synthesise(evaluated.y_hat, quality), shown)
    torch.testing.assert_close(evaluated.bits, trained.bits)
    # base 4: two bits a digit, and a quarter more for the Gaussian that they are coded with
    sent = details.sent(quality).sum(1) * 2 * 15
    assert (evaluated.bits / sent).tolist() == pytest.approx([2.3, 2.3], abs=0.4)


def test_codes_must_be_two_digits() -> None:
    with pytest.raises(ValueError, match="square"):
        VectorDetails(QuantConfig(8, 16, 1, 3, True, 1, "vector", 20, 3))


@by_name
@pytest.mark.parametrize("kind", ["align", "joint"])
def test_stages_train_all_of_it(
    config: ModelConfig,
    kind: str,
    picture: Callable[[int, int], UInt8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(1)
    monkeypatch.setitem(PRESETS, config.name, config)
    train = TrainConfig(
        config.name, kind, 3, ((64, 64),), 8192, Optimiser(1e-3, 1e-3),
        Weights(l1=1.0, vq=1.0, latent=1.0, code=1.0), rate=Rate(1.0, 1.0), precision="float32",
        validate_every=3,
    )  # fmt: skip
    images = [picture(96, 128), picture(128, 96)]
    make = AlignStage if kind == "align" else CodecStage
    stage = make(train, Dlf(config), None, images, images[:1])
    before = {name: p.clone() for name, p in stage.module.named_parameters()}
    run = Run(train, stage, CropSampler(images, train.shapes, train.pixels, 0), tmp_path)
    assert run.train()
    still = {
        name
        for name, p in stage.module.named_parameters()
        if p.requires_grad and torch.equal(p, before[name])
    }
    assert all(p.grad is not None for p in run.parameters)
    assert not [name for name in still if "books" in name or "details" in name]
    assert (tmp_path / "last.pt").exists()
    resumed = Run(train, make(train, Dlf(config), None, images, []), run.sampler, tmp_path)
    for a, b in zip(resumed.stage.module.codebooks(), stage.module.codebooks(), strict=True):
        assert torch.equal(a.idle, b.idle)
