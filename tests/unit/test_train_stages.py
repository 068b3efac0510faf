"""Stages in a run: what trains, from files, draws, the schedule of lambda, streams."""

# ruff: noqa: E402
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from dlf.losses.adversarial import Adversarial
from dlf.losses.objective import Weights
from dlf.nn.build import TINY
from dlf.nn.model_config import to_dict
from dlf.train import checkpoint
from dlf.train.codec_stage import CodecStage, new_model
from dlf.train.config import load_config
from dlf.train.data import to_float
from dlf.train.engine import CHECKPOINT, Run
from dlf.train.rate import LambdaSchedule, Rate
from dlf.train.run import Sources, Start, build_stage, check_spread, load_start, open_images, run_stage
from dlf.train.run_logger import LOG
from dlf.train.tokenizer_stage import TokenizerStage
from tiny_runs import CONFIG, Sampler, assert_same, make_run, make_stage, pictures

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]


def test_alignment_leaves_the_tokenizer_alone(tmp_path: Path) -> None:
    run = make_run("align", tmp_path)
    before = {k: v.clone() for k, v in run.stage.module.vqgan.state_dict().items()}
    run.train()
    assert_same(before, run.stage.module.vqgan.state_dict())


def test_frozen_prefixes_do_not_train() -> None:
    config = replace(CONFIG, stage="joint", freeze=("encoder.", "quantize."))
    stage = CodecStage(config, new_model("tiny"), None, pictures(), [])
    trained = {n.split(".")[0] for n, p in stage.module.named_parameters() if p.requires_grad}
    assert trained == {"details", "decoder", "fusion", "vqgan"}
    assert not stage.module.vqgan.encoder.conv_in.weight.requires_grad
    assert stage.module.vqgan.decoder.conv_in.weight.requires_grad


def test_the_decoder_stage_leaves_the_symbols_alone(tmp_path: Path) -> None:
    """Tokens, detail symbols and bits are the same after it; the picture is another."""
    run = make_run("decoder", tmp_path)
    model, pixels = run.stage.module, to_float(pictures()[:1])
    sent, quality = torch.ones(1, 4, dtype=torch.bool), torch.tensor([30.0])

    def coded() -> tuple[torch.Tensor, ...]:
        model.eval()
        with torch.no_grad():
            found, _, picture = model(pixels, quality, sent)
        model.train()
        return found.tokens.indices, found.details.y_hat, found.details.bits, picture

    before = coded()
    frozen = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    run.train()
    after = coded()
    assert_same(before[:3], after[:3])
    assert_same(frozen, model.encoder.state_dict())
    assert not torch.allclose(before[3], after[3])
    assert "hinge" in json.loads((tmp_path / LOG).read_text().splitlines()[0])


def test_the_encoder_stage_leaves_alone_what_reads_and_paints(tmp_path: Path) -> None:
    """The same symbols are painted and priced as before it; a picture has others."""
    run = make_run("encoder", tmp_path)
    model = run.stage.module

    def rest() -> dict[str, torch.Tensor]:
        return {
            k: v.clone()
            for k, v in model.state_dict().items()
            if not k.startswith(("encoder.", "details.enc_"))
        }

    def latent() -> torch.Tensor:
        model.eval()
        pixels = to_float(pictures()[:1])
        with torch.no_grad():
            found = model.analyse(pixels, torch.tensor([30.0]), model.grid(*pixels.shape[2:])).y
        model.train()
        return found

    before, y = rest(), latent()
    spread = {k: v.clone() for k, v in model.encoder.spread.state_dict().items()}
    run.train()
    assert_same(before, rest())
    assert spread
    assert_same(spread, model.encoder.spread.state_dict())
    assert not torch.allclose(y, latent())
    trained = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"encoder", "details"}


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_half_stages_see_as_many_tokens_as_the_bundle_sends(kind: str) -> None:
    _, stage = make_stage(kind)
    batch = Sampler()(0)
    keep = {int(k) for step in range(20) for k in stage.draw(Sampler()(step), 0.0).keep}
    assert keep == {1, 2}
    assert stage.draw(batch, 0.0).details.min() == 1


def write_pictures(folder: Path) -> Path:
    from PIL import Image

    folder.mkdir()
    for number, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    return folder


def test_three_stages_from_files(tmp_path: Path) -> None:
    """Each stage starts from the averaged weights of the one before."""
    import yaml

    data = write_pictures(tmp_path / "data")
    init = None
    for kind in ("tokenizer", "align", "joint"):
        config = tmp_path / f"{kind}.yaml"
        plain = json.loads(json.dumps(to_dict(replace(CONFIG, stage=kind, steps=3))))
        config.write_text(yaml.safe_dump(plain))
        out = tmp_path / kind
        assert run_stage(load_config(config), Sources(data, data, out, init, None))
        init = out / CHECKPOINT
    aligned, joint = (checkpoint.load(tmp_path / kind / CHECKPOINT) for kind in ("align", "joint"))
    tokenizer = checkpoint.load(tmp_path / "tokenizer" / CHECKPOINT).ema
    for name, weight in tokenizer.items():
        assert torch.equal(aligned.model[f"vqgan.{name}"], weight), name
    assert torch.equal(joint.model["vqgan.encoder.conv_in.weight"], tokenizer["encoder.conv_in.weight"])


def test_tokenizer_without_rounding_leaves_its_codes_alone(tmp_path: Path) -> None:
    config = replace(CONFIG, quantised=False)
    torch.manual_seed(21)
    stage = TokenizerStage(config, None, pictures()[:1])
    vqgan = stage.module
    codes, weight = vqgan.quantize.codebook().clone(), vqgan.encoder.conv_in.weight.clone()
    assert Run(config, stage, Sampler(), tmp_path).train()
    assert torch.equal(vqgan.quantize.codebook(), codes)
    assert not torch.equal(vqgan.encoder.conv_in.weight, weight)
    pixels = to_float(pictures()[:1]) * 2 - 1
    with torch.no_grad():
        picture, z, _, vq = stage.reconstruct(pixels, rounded=False)
        assert vq == 0
        assert torch.equal(picture, vqgan.decode(z))


def test_perceptual_term_needs_its_weights(tmp_path: Path) -> None:
    config = replace(CONFIG, weights=Weights(perceptual=1.0))
    with pytest.raises(ValueError, match="perceptual"):
        build_stage(config, Sources(tmp_path, tmp_path, tmp_path, None, None), pictures(), [])


@pytest.mark.parametrize(
    ("preset", "stage", "reason"),
    [("compact", "align", "aligned to codes"), ("tiny", "tokenizer", "tiny has no codes that it could move")],
)
def test_a_codebook_that_nothing_would_spread_is_an_error(preset: str, stage: str, reason: str) -> None:
    """Only the warm start from a tokenizer moves codes; a later start must not forget that silently."""
    config = replace(CONFIG, preset=preset, stage="joint", codebook_spread=4.0)
    with pytest.raises(ValueError, match=f"codebook_spread is 4, but .*{reason}.*set codebook_spread=1"):
        check_spread(config, Start({}, stage))
    check_spread(replace(config, codebook_spread=1.0), Start({}, stage))
    check_spread(replace(config, preset="compact"), Start({}, "joint"))  # they are apart since it began


def test_weights_of_an_align_stage_say_so(tmp_path: Path) -> None:
    run = make_run("align", tmp_path)
    run.save()
    assert load_start(tmp_path / CHECKPOINT).stage == "align"


def test_draws_ask_for_tokens_that_exist() -> None:
    _, stage = make_stage("joint")
    assert isinstance(stage, CodecStage)
    draws = [stage.draw(Sampler()(step), 0.5) for step in range(40)]
    keeps = torch.cat([draw.keep for draw in draws])
    qualities = torch.cat([draw.quality for draw in draws])
    assert keeps.min() >= 1
    assert keeps.max() <= TINY.tokens.count
    assert qualities.min() >= 0
    assert qualities.max() <= 100
    assert qualities.std() > 20


def test_lambda_climbs_while_the_rate_is_above_the_window(tmp_path: Path) -> None:
    """One step a validation, kept in the checkpoint, and used as the weight of the rate."""
    rate = Rate(schedule=LambdaSchedule((0.5, 2.0, 8.0), 0.0, 1e-6))
    config, stage = make_stage("joint")
    config = replace(config, rate=rate, validate_every=2)
    stage.config = config
    run = Run(config, stage, Sampler(), tmp_path)
    assert run.train()
    assert isinstance(stage, CodecStage)
    assert stage.lambda_step == 2
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    ratios = [row["rate"] / row["bpp"] for row in rows if row["kind"] == "train"]
    assert ratios == pytest.approx([0.5, 2.0, 8.0], rel=0.01)
    _, fresh = make_stage("joint")
    fresh.config = config
    assert isinstance(fresh, CodecStage)
    Run(config, fresh, Sampler(), tmp_path)
    assert fresh.lambda_step == 2


@pytest.mark.parametrize("kind", ["align", "joint"])
def test_a_streamed_run_resumes_exactly(kind: str, tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    torch.manual_seed(1)
    config = replace(CONFIG, stage=kind, stream=True, steps=4)
    sources = Sources(data, data, tmp_path, None, None)

    def start(folder: Path) -> Run:
        torch.manual_seed(21)
        sampler, images = open_images(config, data, torch.device("cpu"))
        return Run(config, build_stage(config, sources, images, pictures()[:1]), sampler, folder)

    assert start(tmp_path / "whole").train()
    first = start(tmp_path / "parts")
    first.logger.log_terms = lambda *_: setattr(first, "stop", True)  # type: ignore[method-assign]
    assert not first.train()
    assert first.step == 2
    second = start(tmp_path / "parts")
    assert second.train()
    a, b = (checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert_same(a.model, b.model)
    rows = [json.loads(line) for line in (tmp_path / "whole" / LOG).read_text().splitlines()]
    assert [row["unread"] for row in rows if row["kind"] == "train" and "unread" in row]


def test_a_model_without_codes_learns_the_latents_and_then_the_pixels(tmp_path: Path) -> None:
    """Autoencoder, alignment, joint, decoder: each from the files of the stage before."""
    data = write_pictures(tmp_path / "photos")
    before: Path | None = None
    for stage in ("tokenizer", "align", "joint", "decoder"):
        config = replace(
            CONFIG,
            preset="tiny-v2",
            stage=stage,
            quantised=False,
            adversarial=Adversarial(weight=0.1, adaptive=False, kinds=("pixels",), width=8),
        )
        sources = Sources(data, data, tmp_path / stage, before, None)
        sampler, images = open_images(config, data, torch.device("cpu"))
        torch.manual_seed(1)
        built = build_stage(config, sources, images, images[:1])
        assert Run(config, built, sampler, sources.out).train()
        rows = [json.loads(line) for line in (sources.out / LOG).read_text().splitlines()]
        assert ("latent" if stage == "align" else "l1") in rows[0]
        assert "code" not in rows[0]
        before = sources.out / CHECKPOINT
