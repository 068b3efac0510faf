"""Pretrained files are taken over whole, or refused."""

# ruff: noqa: E402
from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file
from torch import Tensor

from dlf.bundles import checkpoint_file
from dlf.bundles.keymap import entries
from dlf.bundles.pretrained import take_over
from dlf.bundles.released import TITOK, VQGAN, Origin, match
from dlf.bundles.torch_bundle import write_start
from dlf.errors import CheckpointError
from dlf.losses.objective import Weights
from dlf.nn.build import DLF_L, PRESETS
from dlf.nn.model import Dlf
from dlf.train.codec_stage import CodecStage
from dlf.train.config import Optimiser, TrainConfig
from dlf.train.run import Sources, build_stage

pytestmark = pytest.mark.torch

# tensor names of the released weights, where a copy lies beside the checkout
RELEASED = Path(__file__).parents[3] / "shared/parity/keys.json"

SMALL = replace(
    DLF_L,
    name="small-l",
    tokens=replace(
        DLF_L.tokens, count=4, codes=16, code_dim=4, width=32, heads=2, encoder_layers=2, decoder_layers=2
    ),
    detail=replace(
        DLF_L.detail, width=16, head_width=8, encoder_in_swin=2, encoder_out_swin=1, decoder_in_swin=1
    ),
    interact=replace(DLF_L.interact, encoder_layers=(0,), decoder_layers=(1,), width=16, heads=2),
    quant=replace(DLF_L.quant, channels=8, hidden=16),
    fusion=replace(DLF_L.fusion, width=32, hidden=32),
    vqgan=replace(DLF_L.vqgan, channels=(32, 32, 32, 32, 32), codes=16, code_dim=8),
)  # fmt: skip
SURPLUS = {
    TITOK: {"pixel_quantize.embedding.weight": (6, 4), "pixel_decoder.conv_in.weight": (8, 4, 3, 3),
            "decoder.ffn.0.weight": (64, 32, 1, 1), "decoder.ffn.2.bias": (16,)},
    VQGAN: {"loss.discriminator.main.0.weight": (4, 3, 4, 4), "loss.perceptual_loss.scale": (1, 3, 1, 1)},
}  # fmt: skip


def pretrained(origin: Origin, seed: int = 3) -> dict[str, Tensor]:
    """Random weights under the names of such a file; 1x1 convolutions where ours are linear."""
    torch.manual_seed(seed)
    model = Dlf(SMALL)
    found = {}
    for entry in entries(name for name, _ in model.named_parameters()):
        if entry.ours is not None and origin.wants(entry):
            weight = torch.randn_like(model.get_parameter(entry.ours))
            name = entry.theirs.removeprefix(origin.prefix)
            found[name] = (
                weight[..., None, None] if name == "encoder.conv_out.weight" and origin is TITOK else weight
            )
    return found | {name: torch.randn(shape) for name, shape in SURPLUS[origin].items()}


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if path.suffix == ".ckpt" else tensors, path)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "ckpt"])
@pytest.mark.parametrize("origin", [TITOK, VQGAN], ids=lambda origin: origin.title)
def test_everything_is_taken_over_or_reported(
    origin: Origin, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = pretrained(origin)
    path = write(tmp_path / f"weights.{suffix}", tensors)
    torch.manual_seed(5)
    model = Dlf(SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level(logging.INFO, "dlf"):
        dropped = take_over(model, path, origin)
    assert set(dropped) == set(SURPLUS[origin])
    for name in dropped:
        assert f"dropped {name}" in caplog.text
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert len(changed) == len(tensors) - len(dropped)
    if origin is VQGAN:
        assert changed == {name for name in before if name.startswith("vqgan.")}
        torch.testing.assert_close(
            model.vqgan.decoder.mid.stages["attn_1"].q.weight, tensors["decoder.mid.attn_1.q.weight"]
        )
    else:
        assert not any(
            part in name for name in changed for part in ("inter", "feat", "details", "fusion", "vqgan")
        )
        torch.testing.assert_close(
            model.encoder.path.transformer[1].in_proj.weight,
            tensors["encoder.transformer.1.attn.in_proj_weight"],
        )
        torch.testing.assert_close(
            model.encoder.conv_out.weight, tensors["encoder.conv_out.weight"][..., 0, 0]
        )


@pytest.mark.parametrize("origin", [TITOK, VQGAN], ids=lambda origin: origin.title)
def test_what_does_not_fit_is_refused_and_changes_nothing(origin: Origin, tmp_path: Path) -> None:
    tensors = pretrained(origin)
    name = "quantize.embedding.weight"
    model = Dlf(SMALL)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for wrong, message in (
        (
            {k: v for k, v in tensors.items() if k != name},
            f"x.bin is not the {origin.title} of .* lacks 1 tensors: {name}",
        ),
        (tensors | {"decoder.strange": torch.ones(1)}, "has 1 tensors .*: decoder.strange"),
        (tensors | {name: torch.ones(3, 4)}, f"{name}.* has shape"),
        ({}, "not a state dict"),
    ):
        with pytest.raises(CheckpointError, match=message):
            take_over(model, write(tmp_path / "x.bin", wrong), origin)
    (tmp_path / "y.ckpt").write_bytes(b"neither")
    with pytest.raises(CheckpointError, match="damaged"):
        take_over(model, tmp_path / "y.ckpt", origin)
    (tmp_path / "z.safetensors").write_bytes(b"neither")
    with pytest.raises(CheckpointError, match="damaged"):
        take_over(model, tmp_path / "z.safetensors", origin)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("origin", [TITOK, VQGAN], ids=lambda origin: origin.title)
def test_a_file_that_the_import_wrote_is_taken_over_alike(origin: Origin, tmp_path: Path) -> None:
    path = write(tmp_path / "start.bin", pretrained(origin))
    write_start(match(SMALL, checkpoint_file.read(path), origin), tmp_path / "start.safetensors", "float32")
    torch.manual_seed(5)
    models = Dlf(SMALL), Dlf(SMALL)
    models[1].load_state_dict(models[0].state_dict())
    assert take_over(models[0], path, origin)
    assert not take_over(models[1], tmp_path / "start.safetensors", origin)
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].get_parameter(name)), name


def test_a_model_of_another_form_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "titok.bin", pretrained(TITOK))
    with pytest.raises(CheckpointError, match="the model 'tiny' has not the published form"):
        take_over(Dlf(PRESETS["tiny"]), path, TITOK)


def test_a_stage_starts_from_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "small-l", SMALL)
    titok, vqgan = (write(tmp_path / f"{o.title}.bin", pretrained(o)) for o in (TITOK, VQGAN))
    config = TrainConfig(
        "small-l",
        "align",
        4,
        ((64, 64),),
        4096,
        Optimiser(1e-3, 1e-3),
        Weights(latent=1.0),
        freeze=("quantize.",),
    )
    sources = Sources(tmp_path, tmp_path, tmp_path / "run", None, None, titok=titok, vqgan=vqgan)
    stage = build_stage(config, sources, [], [])
    assert isinstance(stage, CodecStage)
    book = stage.module.quantize.embedding.weight
    assert torch.equal(book, pretrained(TITOK)["quantize.embedding.weight"])
    # frozen codes are neither seeded anew nor moved
    assert stage.keeper.seeded
    assert not stage.module.quantize.embedding.weight.requires_grad
    assert torch.equal(stage.module.vqgan.post_quant_conv.bias, pretrained(VQGAN)["post_quant_conv.bias"])


@pytest.mark.parametrize("origin", [TITOK, VQGAN], ids=lambda origin: origin.title)
def test_the_papers_preset_has_the_published_tensors(origin: Origin) -> None:
    if not RELEASED.exists():
        pytest.skip("the released weights' list of tensors is not at hand")
    released = json.loads(RELEASED.read_text("utf-8"))
    with torch.device("meta"):
        model = Dlf(DLF_L)
    wanted = {e.theirs: e.ours for e in entries(n for n, _ in model.named_parameters()) if origin.wants(e)}
    for theirs, ours in wanted.items():
        shape = [n for n in released[theirs] if n != 1]
        assert shape == [n for n in model.get_parameter(ours).shape if n != 1], theirs
    if origin is VQGAN:
        assert set(wanted) == {name for name in released if name.startswith("vqgan.")}
    else:
        added = ("inter_blocks", "feat_", "pix_emb_proj", "quantize_feat", "_mask")
        hybrid = {name for name in released if name.startswith(origin.prefix)}
        assert set(wanted) == {name for name in hybrid if not any(part in name for part in added)} - {
            name for name in hybrid if "init_feat_up" in name
        }
