"""A new decoder for the files of a model, or both ends: same streams, other pixels, or no bundle at all."""

# ruff: noqa: E402
from __future__ import annotations

import copy
import json
import subprocess
import sys
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
from dlf.bundles.exporter import (
    DECODER,
    ENCODER,
    ExportJob,
    SameStreamJob,
    export,
    export_same_stream,
)
from dlf.bundles.parity import compare
from dlf.bundles.recover import recover
from dlf.cli.main import main
from dlf.codec.bundle import FILES, ModelBundle
from dlf.errors import BundleError
from dlf.nn.build import TINY
from dlf.nn.model import Dlf
from dlf.records import UInt8
from dlf.train import checkpoint
from dlf.train.checkpoint import Checkpoint
from dlf.train.trained_model import load_model, sample_images
from web_decoder import receiver_of

pytestmark = pytest.mark.torch

SYNTHESIS = "synthesis.onnx"


def save(path: Path, model: Dlf, preset: str = "tiny") -> Path:
    weights = dict(model.state_dict())
    checkpoint.save(path, Checkpoint(0, {"preset": preset}, weights, weights, {}))
    return path


@pytest.fixture(scope="module")
def model() -> Dlf:
    torch.manual_seed(8)
    model = Dlf(TINY).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[:96, :320]
    for i in range(2):
        waves = np.stack([(x * x // 40 + y * (3 + i)) % 256, (y * y // 30 + x) % 256, (x + y) % 256], 2)
        Image.fromarray(waves.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def images(data: Path) -> list[UInt8]:
    return sample_images(data, 2)


@pytest.fixture(scope="module")
def base(model: Dlf, images: list[UInt8], tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    folder = tmp_path_factory.mktemp("models") / "base"
    export(copy.deepcopy(model), images, ExportJob(folder, BundleSpec("base-v1", 101, 40, {"by": "us"})))
    return ModelBundle.open(folder)


@pytest.fixture(scope="module")
def further(model: Dlf) -> Dlf:
    """The model trained further behind the symbols: every weight of the last layers moved."""
    other = copy.deepcopy(model)
    for name, parameter in other.named_parameters():
        if name.startswith(("fusion.", "vqgan.decoder.", "decoder.", "details.dec_")):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other


@pytest.fixture(scope="module")
def job(base: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> SameStreamJob:
    return SameStreamJob(tmp_path_factory.mktemp("decoder") / "bundle", "base-v2", {"by": "them"}, base)


@pytest.fixture(scope="module")
def newer(further: Dlf, images: list[UInt8], job: SameStreamJob) -> ModelBundle:
    export_same_stream(copy.deepcopy(further), images, job)
    return ModelBundle.open(job.folder)


def test_all_but_the_decoder_is_the_same(base: ModelBundle, newer: ModelBundle) -> None:
    for name in FILES:
        assert (newer.read(name) == base.read(name)) == (name != SYNTHESIS)
    old, new = base.manifest, newer.manifest
    assert new == replace(old, name="base-v2", card={"by": "them"}, files=new.files)
    assert (new.id, new.numerics) == (old.id, old.numerics)
    assert {path.name for path in newer.folder.iterdir()} == {*FILES, "manifest.json"}


@pytest.mark.parametrize("quality", [0, 37, 100])
def test_files_of_the_one_are_decoded_by_the_other(
    quality: int, base: ModelBundle, newer: ModelBundle, picture: Callable[[int, int], UInt8]
) -> None:
    first, second = dlf.Codec(base.folder, 1), dlf.Codec(newer.folder, 1)
    data = first.encode(picture(100, 310), quality)
    assert second.encode(picture(100, 310), quality) == data
    stream = container.load(data)
    symbols = [receiver_of(found.folder).receive(stream) for found in (base, newer)]
    np.testing.assert_array_equal(symbols[0].tokens, symbols[1].tokens)
    np.testing.assert_array_equal(symbols[0].y_hat, symbols[1].y_hat)
    painted = [np.asarray(codec.decode(data)).astype(int) for codec in (first, second)]
    assert np.abs(painted[0] - painted[1]).mean() > 1
    assert second.info(data).model_name == "base-v2"


@pytest.fixture(scope="module")
def both_ends(further: Dlf) -> Dlf:
    """Trained further before the symbols as well."""
    return with_another_encoder(further)


def with_another_encoder(model: Dlf) -> Dlf:
    other = copy.deepcopy(model)
    for name, parameter in other.named_parameters():
        if name.startswith(("encoder.", "details.enc_")):
            parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
    return other


def test_a_new_encoder_writes_files_that_the_old_decoder_reads(
    both_ends: Dlf,
    images: list[UInt8],
    job: SameStreamJob,
    base: ModelBundle,
    picture: Callable[[int, int], UInt8],
    tmp_path: Path,
) -> None:
    """And the other way round: what says how likely a symbol is stays, byte for byte."""
    job = replace(job, folder=tmp_path / "ends", name="ends", graphs=(ENCODER, DECODER))
    for graphs, kept in {(DECODER,): "encoder, quantisers or", (ENCODER,): "decoder or"}.items():
        with pytest.raises(BundleError, match=f"{kept} context network are not those of 'base-v1'"):
            export_same_stream(copy.deepcopy(both_ends), images, replace(job, graphs=graphs))
    parity = export_same_stream(copy.deepcopy(both_ends), images, job)
    assert parity.context
    made = ModelBundle.open(job.folder)
    changed = {name for name in FILES if made.read(name) != base.read(name)}
    assert changed == {"analysis.onnx", SYNTHESIS}
    assert (made.manifest.id, made.manifest.numerics) == (base.manifest.id, base.manifest.numerics)
    old, new = dlf.Codec(base.folder, 1), dlf.Codec(made.folder, 1)
    files = [codec.encode(picture(100, 310), 37) for codec in (old, new)]
    assert files[0] != files[1]
    for data in files:
        received = [receiver_of(found.folder).receive(container.load(data)) for found in (base, made)]
        np.testing.assert_array_equal(received[0].tokens, received[1].tokens)
        np.testing.assert_array_equal(received[0].y_hat, received[1].y_hat)


@pytest.mark.slow
def test_a_new_encoder_alone_leaves_the_decoder_as_it_is(
    model: Dlf,
    images: list[UInt8],
    job: SameStreamJob,
    base: ModelBundle,
    picture: Callable[[int, int], UInt8],
    tmp_path: Path,
) -> None:
    other = with_another_encoder(model)
    job = replace(job, folder=tmp_path / "encoder", name="encoder", graphs=(ENCODER,), weights="int8")
    export_same_stream(other, images, job)
    made = ModelBundle.open(job.folder)
    assert {name for name in FILES if made.read(name) != base.read(name)} == {"analysis.onnx"}
    old, new = dlf.Codec(base.folder, 1), dlf.Codec(made.folder, 1)
    data = new.encode(picture(100, 310), 37)
    assert data != old.encode(picture(100, 310), 37)
    np.testing.assert_array_equal(np.asarray(old.decode(data)), np.asarray(new.decode(data)))


@pytest.mark.slow
def test_both_ends_need_the_context_network(
    both_ends: Dlf, images: list[UInt8], job: SameStreamJob, tmp_path: Path
) -> None:
    sentences = {
        "details.context.y_spatial_prior_reduction.weight": r"context network is not that of 'base-v1'",
        "quantize.embedding.weight": r"codes of the checkpoint's tokens are not those of 'base-v1'",
    }
    for part, sentence in sentences.items():
        other = copy.deepcopy(both_ends)
        moved = other.get_parameter(part)
        moved.add_(0.2 * torch.randn_like(moved))
        wrong = replace(job, folder=tmp_path / "ends", name="ends", graphs=(ENCODER, DECODER))
        with pytest.raises(BundleError, match=sentence):
            export_same_stream(other, images, wrong)
    assert not list(tmp_path.iterdir())


def test_its_weights_come_back(newer: ModelBundle, picture: Callable[[int, int], UInt8]) -> None:
    model = Dlf(TINY).eval().requires_grad_(False)
    model.load_state_dict(recover(newer, "tiny").tensors)
    parity = compare(model, newer, [picture(96, 320)], 50)
    parity.check()
    assert parity.tokens == 1


@pytest.mark.parametrize(
    "part",
    [
        "encoder.conv_out.weight",
        pytest.param("quantize.embedding.weight", marks=pytest.mark.slow),
        pytest.param("details.context.y_spatial_prior_reduction.weight", marks=pytest.mark.slow),
    ],
)
def test_other_frozen_parts_are_refused(
    part: str, model: Dlf, images: list[UInt8], job: SameStreamJob, tmp_path: Path
) -> None:
    other = copy.deepcopy(model)
    moved = other.get_parameter(part)
    moved.add_(0.2 * torch.randn_like(moved))
    with pytest.raises(BundleError, match=r"are not those of 'base-v1'") as found:
        export_same_stream(other, images, replace(job, folder=tmp_path / "out"))
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_the_base_is_refused(
    further: Dlf, images: list[UInt8], job: SameStreamJob, base: ModelBundle, tmp_path: Path
) -> None:
    manifest = base.manifest
    wrong = {
        "has other tokens": replace(base, manifest=replace(manifest, channels=12)),
        "name of its own": replace(base, manifest=replace(manifest, name=job.name)),
    }
    for sentence, bundle in wrong.items():
        with pytest.raises(BundleError, match=sentence):
            export_same_stream(further, images, replace(job, base=bundle, folder=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_bundle_that_stood_there_stays_when_the_check_fails(
    model: Dlf, images: list[UInt8], job: SameStreamJob, tmp_path: Path
) -> None:
    other = copy.deepcopy(model)
    other.get_parameter("encoder.conv_out.weight").mul_(-1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(BundleError):
        export_same_stream(other, images, replace(job, folder=tmp_path / "out"))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mine").read_text() == "kept"


def dlf_export(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "dlf", "export", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command(data: Path, base: ModelBundle, further: Dlf, model: Dlf, tmp_path: Path) -> None:
    out, trained = tmp_path / "out", save(tmp_path / "b.pt", further)
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"by": "me"}))
    common = ["-o", out, "--data", data, "--name", "mine", "--decoder-for", base.folder, "--card", card]
    done = dlf_export(trained, *common)
    assert done.returncode == 0, done.stderr
    made = ModelBundle.open(out).manifest
    assert (made.name, made.id, made.card) == ("mine", 101, {"by": "me"})
    other = copy.deepcopy(model)
    other.get_parameter("encoder.conv_out.weight").mul_(-1)
    refused = dlf_export(save(tmp_path / "c.pt", other), *common)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("dlf: the checkpoint's encoder")
    assert "Traceback" not in refused.stderr
    assert ModelBundle.open(out).manifest == made
    both = dlf_export(trained, *common, "--encoder-for", base.folder)
    assert both.returncode == 0, both.stderr
    assert ModelBundle.open(out).manifest.id == 101


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--decoder-for", "base", "--id", "5", "--tokens", "1", "2"], "--id, --tokens cannot be chosen"),
        (["--decoder-for", "base", "--encoder-for", "fast"], "name two models"),
        (["--encoder-for", "base", "--id", "5"], "--id cannot be chosen with --encoder-for"),
        ([], "--id is needed"),
    ],
)
def test_words_that_do_not_go_together(
    words: list[str],
    sentence: str,
    data: Path,
    model: Dlf,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained, out = save(tmp_path / "b.pt", model), tmp_path / "out"
    line = ["export", str(trained), "-o", str(out), "--data", str(data), "--name", "mine", *words]
    assert main(line) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_what_is_no_codec_is_refused(model: Dlf, tmp_path: Path) -> None:
    tokenizer = {k: v for k, v in model.state_dict().items() if k.startswith("vqgan.")}
    path = tmp_path / "t.pt"
    checkpoint.save(path, Checkpoint(0, {"preset": "tiny"}, tokenizer, tokenizer, {}))
    with pytest.raises(ValueError, match="does not hold the weights of a codec"):
        load_model(path)
    with pytest.raises(ValueError, match="does not have"):
        load_model(save(path, model, "huge"))
