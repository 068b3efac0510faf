"""Released checkpoints: the table of names, strictness, and the way to a model that encodes and decodes."""

# ruff: noqa: E402
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from safetensors.torch import load_file, save_file
from torch import Tensor

import dlf
from dlf.bundles import checkpoint_file, released
from dlf.bundles.keymap import MASKS, entries
from dlf.cli.main import main
from dlf.codec.bundle import MANIFEST, ModelBundle
from dlf.errors import CheckpointError
from dlf.nn.build import DLF_L, TINY_L
from dlf.nn.model import Dlf
from dlf.records import UInt8

pytestmark = pytest.mark.torch

# tensor names of the released weights, where a copy lies beside the checkout
RELEASED = Path(__file__).parents[3] / "shared/parity/keys.json"
TRAINING = {"epoch_for_strategy": torch.tensor(3), "img_loss.logvar": torch.zeros(2)}

Names = Callable[[str], str | None]


def state() -> dict[str, Tensor]:
    """Weights of the tiny model in the published form."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dlf(TINY_L)
        for name, tensor in model.state_dict().items():
            if "token_add" in name:  # zero at first, which would hide a mistake
                tensor.normal_(std=0.1)
        return model.state_dict()


def as_released(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same as a DLF checkpoint has it."""
    half = torch.arange(256) // 16 >= 8
    lines = {MASKS[0]: half, MASKS[1]: half.reshape(16, 16).t().flatten()}
    found = {}
    for entry in entries(ours):
        if entry.ours is None:
            late = next(value for mask, value in lines.items() if entry.theirs.endswith(mask))
            hidden = late[:, None] != late[None, :]
            found[entry.theirs] = torch.zeros(256, 256).masked_fill(hidden, -torch.inf)
        else:
            tensor = ours[entry.ours]
            found[entry.theirs] = tensor[..., None, None] if entry.theirs.endswith("_q") else tensor
    return found


@pytest.fixture(scope="module")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Lightning checkpoint of the tiny model."""
    path = tmp_path_factory.mktemp("released") / "dlf_qp1.ckpt"
    torch.save({"epoch": 3, "state_dict": as_released(state()) | TRAINING}, path)
    return path


@pytest.fixture(scope="module")
def model(lightning: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, imported."""
    folder = tmp_path_factory.mktemp("models") / "dlf-l-qp1"
    command = ["weights", "import", str(lightning), "--preset", "tiny-l", "-o", str(folder)]
    assert main(command) == 0
    return folder


def test_names_are_those_of_the_released_checkpoints() -> None:
    if not RELEASED.exists():
        pytest.skip("the released weights' list of tensors is not at hand")
    with torch.device("meta"):
        ours = Dlf(DLF_L).state_dict()
    wanted = json.loads(RELEASED.read_text("utf-8"))
    table = {entry.theirs: entry.ours for entry in entries(ours)}
    assert table.keys() | {"epoch_for_strategy", "lmbda_idx", "lmbda_list"} == wanted.keys()
    for theirs, name in table.items():
        if name is not None:
            assert [n for n in wanted[theirs] if n != 1] == [n for n in ours[name].shape if n != 1]


def test_every_tensor_arrives(lightning: Path) -> None:
    found = released.match(TINY_L, checkpoint_file.read(lightning), released.DLF)
    wanted = state()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_a_name_that_no_row_fits_is_an_error() -> None:
    with pytest.raises(KeyError, match="no row"):
        entries(["encoder.something.weight"])


MISTAKES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda s: s.pop("hybrid_codec.latent_tokens"), "lacks 1 tensors: hybrid_codec.latent_tokens"),
    "unknown": (lambda s: s.update({"other": torch.zeros(1)}), "does not have: other"),
    "shape": (lambda s: s.update({"hybrid_codec.latent_tokens": torch.zeros(5, 16)}), r"shape \(5, 16\)"),
    "mask": (
        lambda s: s[next(name for name in s if name.endswith(MASKS[1]))].zero_(),
        "not the one that the model computes",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_checkpoint_is_refused(mistake: str) -> None:
    change, message = MISTAKES[mistake]
    found = as_released(state())
    change(found)
    with pytest.raises(CheckpointError, match=message):
        released.match(TINY_L, found, released.DLF)


class Trap:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("the checkpoint ran code",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": Trap()}, path)
    assert main(["weights", "import", str(path), "--name", "x", "--id", "9"]) == 1
    out, err = capsys.readouterr()
    assert "ran code" not in out
    assert "would run code" in err


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_what_is_no_checkpoint_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoint_file.read(path)


def test_safetensors_and_plain_state_dicts_are_read_too(tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in as_released(state()).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.pth"):
        found = checkpoint_file.read(tmp_path / name)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("origin", [released.TITOK, released.VQGAN], ids=lambda origin: origin.title)
def test_checkpoints_to_start_training_from(origin: released.Origin, tmp_path: Path) -> None:
    ours = state()
    wanted = [entry for entry in entries(ours) if origin.wants(entry)]
    tensors = {e.theirs.removeprefix(origin.prefix): ours[str(e.ours)] for e in wanted}
    tensors[f"{origin.ignored[0]}weight"] = torch.zeros(1)
    source, target = tmp_path / "start.pth", tmp_path / "start.safetensors"
    torch.save(tensors, source)
    assert main(["weights", "import", str(source), "--preset", "tiny-l"]) == 2  # it is no codec
    assert main(["weights", "import", str(source), "--preset", "tiny-l", "-o", str(target)]) == 0
    found = load_file(target)
    assert found.keys() == {e.ours for e in wanted}
    assert all(torch.equal(found[name], ours[name]) for name in found)


def test_the_model_folder_says_what_it_is(model: Path, lightning: Path) -> None:
    manifest = ModelBundle.open(model).manifest
    assert (manifest.name, manifest.id, manifest.engine) == ("dlf-l-qp1", 17, "torch")
    again = ["weights", "import", str(lightning), "--preset", "tiny-l", "-o", str(model)]
    assert main(again) == 2
    assert main([*again, "--overwrite"]) == 0
    assert "encoder.conv_in.weight" in "".join(load_file(model / "training.safetensors"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_streams_do_not_depend_on_the_stored_type(
    dtype: str, model: Path, lightning: Path, tmp_path: Path, picture: Callable[[int, int], UInt8]
) -> None:
    half = tmp_path / dtype
    command = ["weights", "import", str(lightning), "--preset", "tiny-l", "--dtype", dtype, "-o", str(half)]
    assert main(command) == 0
    bundles = [ModelBundle.open(folder).manifest for folder in (model, half)]
    assert bundles[0].numerics == bundles[1].numerics
    data = dlf.Codec(model).encode(picture(256, 300))
    images = [np.asarray(dlf.Codec(folder).decode(data), int) for folder in (model, half)]
    assert np.abs(images[0] - images[1]).mean() < 2


def test_encode_and_decode_by_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Callable[[int, int], UInt8]
) -> None:
    from PIL import Image

    monkeypatch.setenv("DLF_MODELS", str(model.parent))
    assert (model / MANIFEST).exists()
    photo, stream, back = (tmp_path / name for name in ("photo.png", "photo.dlf", "back.png"))
    Image.fromarray(picture(200, 300)).save(photo)
    assert main(["encode", "--model", "dlf-l-qp1", str(photo)]) == 0
    assert main(["decode", str(stream), "-o", str(back)]) == 0
    with Image.open(back) as image:
        assert image.size == (300, 200)
    assert main(["info", str(stream)]) == 0
