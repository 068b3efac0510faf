"""Ends for the streams of another model: what is taken over, what teaches, and files that both read."""

# ruff: noqa: E402
from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import dlf
from dlf.bitstream import container
from dlf.bundles.bundle_writer import BundleSpec
from dlf.bundles.exporter import DECODER, ENCODER, ExportJob, SameStreamJob, export, export_same_stream
from dlf.codec.bundle import ModelBundle
from dlf.errors import BundleError
from dlf.nn.build import PRESETS, TINY_V2
from dlf.nn.model import Dlf
from dlf.records import UInt8
from dlf.train import checkpoint, weights
from dlf.train.checkpoint import Checkpoint
from dlf.train.codec_stage import CodecStage, new_model
from dlf.train.engine import CHECKPOINT
from dlf.train.half_stages import DecoderStage, EncoderStage
from dlf.train.run import Sources, run_stage
from dlf.train.trained_model import load_model, sample_images
from tiny_runs import CONFIG, Sampler, assert_same, pictures
from web_decoder import receiver_of

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]

SHALLOW = "tiny-shallow"
FLAT = (0, 0, 0, 0)


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset of the streams of tiny-v2 that is less deep."""
    vqgan = replace(TINY_V2.vqgan, encoder_blocks=FLAT, decoder_blocks=FLAT)
    monkeypatch.setitem(PRESETS, SHALLOW, replace(TINY_V2, name=SHALLOW, vqgan=vqgan))


@pytest.fixture
def teacher() -> Dlf:
    torch.manual_seed(3)
    model = new_model("tiny-v2").eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def save(path: Path, model: Dlf, preset: str) -> Path:
    weights = dict(model.state_dict())
    checkpoint.save(path, Checkpoint(0, {"preset": preset, "stage": "joint"}, weights, weights, {}))
    return path


def stage_of(kind: type[CodecStage], name: str, preset: str = SHALLOW) -> CodecStage:
    config = replace(CONFIG, stage=name, preset=preset)
    return kind(config, new_model(preset), None, pictures(), pictures()[:1])


@pytest.mark.parametrize("start", [True, False])
def test_what_writes_symbols_is_taken_over_and_on_demand_what_fits(teacher: Dlf, *, start: bool) -> None:
    stage = stage_of(DecoderStage, "decoder")
    assert isinstance(stage, DecoderStage)
    before = copy.deepcopy(stage.module.state_dict())
    stage.learn_from(teacher, start=start)
    theirs = teacher.state_dict()
    assert len(before) < len(theirs)
    for name, now in stage.module.state_dict().items():
        taken = start or name.startswith(("details.context.", "quantize."))
        assert torch.equal(now, (theirs if taken else before)[name]), name


def test_the_other_end_is_the_teachers(teacher: Dlf) -> None:
    batch = Sampler()(0)
    quality, grid = torch.tensor([40.0] * len(batch.pixels)), teacher.grid(*batch.pixels.shape[2:])
    sent = torch.ones(grid.token.gather.shape[0] * len(batch.pixels), 4, dtype=torch.bool)
    for kind, name in ((DecoderStage, "decoder"), (EncoderStage, "encoder")):
        stage = stage_of(kind, name)
        stage.learn_from(teacher, start=True)  # type: ignore[attr-defined]
        stage.loss(stage.inputs(batch, 0.5)).total.backward()
        assert all(p.grad is None for p in teacher.parameters())
        moved = {
            n.split(".")[0] for n, p in stage.module.named_parameters() if p.grad is not None and p.grad.any()
        }
        if kind is DecoderStage:
            assert moved == {"details", "decoder", "fusion", "vqgan"}
            assert stage.painter is stage.module
            with torch.no_grad():
                found, wanted = (
                    m.compress(batch.pixels, quality, sent, grid) for m in (stage.coder, teacher)
                )
            assert_same(found.details.y_hat, wanted.details.y_hat)
        else:
            assert moved == {"encoder", "details"}
            assert stage.painter is teacher
            assert stage.coder is stage.module


def test_an_encoder_may_be_drawn_to_its_teachers_latent(teacher: Dlf) -> None:
    """The teacher's own encoder is nearer than another; only with a teacher and a weight is there a term."""
    batch = Sampler()(0)
    found = {}
    for weight, taught in ((1.0, True), (0.0, True), (1.0, False)):
        config = replace(
            CONFIG, stage="encoder", preset="tiny-v2", weights=replace(CONFIG.weights, latent=weight)
        )
        stage = EncoderStage(config, new_model("tiny-v2"), None, pictures(), pictures()[:1])
        if taught:
            stage.learn_from(teacher, start=False)
        terms = stage.loss(stage.inputs(batch, 0.5)).terms
        assert ("latent" in terms) == (weight > 0 and taught)
        found[weight, taught] = terms.get("latent")
    same = EncoderStage(
        replace(CONFIG, stage="encoder", preset="tiny-v2", weights=replace(CONFIG.weights, latent=1.0)),
        new_model("tiny-v2"), None, pictures(), pictures()[:1],
    )  # fmt: skip
    same.learn_from(teacher, start=True)
    own = same.loss(same.inputs(batch, 0.5)).terms["latent"]
    assert own < found[1.0, True]


def test_a_teacher_of_other_streams_is_refused(tmp_path: Path, teacher: Dlf) -> None:
    other = save(tmp_path / "other.pt", new_model("tiny"), "tiny")
    own = save(tmp_path / "own.pt", teacher, "tiny-v2")
    wrong = save(tmp_path / "wrong.pt", new_model("tiny"), "tiny-v2")
    nameless = tmp_path / "parts"
    weights.save_parts(nameless, teacher.state_dict(), 1)
    data = write_pictures(tmp_path / "data")
    for path, stage, sentence in (
        (other, "decoder", "the teacher's streams are not those of the preset 'tiny-shallow'"),
        (wrong, "decoder", "does not hold the weights of a codec of the preset 'tiny-v2'"),
        (nameless, "decoder", "do not say which preset they are of; a checkpoint does"),
        (own, "joint", "a teacher is for the stages decoder and encoder, not for joint"),
    ):
        config = replace(CONFIG, stage=stage, preset=SHALLOW)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=sentence):
            run_stage(config, Sources(data, data, tmp_path / "out", None, None, teacher=path))


def write_pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
def test_small_ends_read_and_write_the_files_of_the_teacher(
    tmp_path: Path, teacher: Dlf, picture: Callable[[int, int], UInt8]
) -> None:
    """Decoder, then encoder, both beside the teacher; then a model of both with its id and numerics."""
    data = write_pictures(tmp_path / "data")
    images = sample_images(data, 3)
    source = save(tmp_path / "teacher.pt", teacher, "tiny-v2")
    export(copy.deepcopy(teacher), images, ExportJob(tmp_path / "base", BundleSpec("large", 103, 40, {})))
    base = ModelBundle.open(tmp_path / "base")
    init = None
    for kind in ("decoder", "encoder"):
        config = replace(CONFIG, stage=kind, preset=SHALLOW, steps=4)  # type: ignore[arg-type]
        assert run_stage(config, Sources(data, data, tmp_path / kind, init, None, teacher=source))
        init = tmp_path / kind / CHECKPOINT
    half, both = (load_model(tmp_path / kind / CHECKPOINT) for kind in ("decoder", "encoder"))
    assert_same(half.vqgan.decoder.state_dict(), both.vqgan.decoder.state_dict())
    job = SameStreamJob(tmp_path / "small", "small", {}, base, "int8", (ENCODER, DECODER))
    export_same_stream(copy.deepcopy(both), images, job)
    made = ModelBundle.open(job.folder)
    assert (made.manifest.id, made.manifest.numerics) == (base.manifest.id, base.manifest.numerics)
    large, small = dlf.Codec(base.folder, 1), dlf.Codec(made.folder, 1)
    for writer in (large, small):
        file = writer.encode(picture(100, 310), 37)
        first, second = (receiver_of(found.folder).receive(container.load(file)) for found in (base, made))
        np.testing.assert_array_equal(first.tokens, second.tokens)
        np.testing.assert_array_equal(first.y_hat, second.y_hat)
        painted = [np.asarray(codec.decode(file)).astype(int) for codec in (large, small)]
        assert painted[0].shape == painted[1].shape == (100, 310, 3)
        assert np.abs(painted[0] - painted[1]).mean() > 0
    # an end alone is no judge of the other, which is its teacher's
    export_same_stream(half, images, replace(job, folder=tmp_path / "half", graphs=(DECODER,)))
    stranger = copy.deepcopy(both)
    stranger.details.context.y_spatial_prior_reduction.weight.data.add_(0.3)
    with pytest.raises(BundleError, match="context network is not that of 'large'"):
        export_same_stream(stranger, images, replace(job, folder=tmp_path / "other"))
