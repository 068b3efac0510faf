"""Disks that are full while a model is written: a sentence, and the model of before stays as it was."""

# ruff: noqa: E402
from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from dlf.bundles.bundle_writer import BundleSpec, staged
from dlf.bundles.torch_bundle import write_model
from dlf.nn.build import PRESETS
from dlf.nn.model import Dlf
from dlf.train.weights import save_parts

pytestmark = pytest.mark.torch


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    resource = pytest.importorskip("resource", reason="no limits of file sizes here")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def half_written(folder: Path) -> None:
    (folder / "a").write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    with staged(folder) as part:
        (part / "a").write_bytes(b"one")
    with pytest.raises(OSError, match="No space"), staged(folder) as part:
        half_written(part)
    assert (os.listdir(tmp_path), contents(folder)) == (["model"], {"a": b"one"})
    rename = Path.rename

    def second_fails(path: Path, target: Path) -> Path:
        if path.suffix == ".part":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", second_fails)
        with pytest.raises(OSError, match="No space"), staged(folder) as part:
            (part / "a").write_bytes(b"two")
    assert (os.listdir(tmp_path), contents(folder)) == (["model"], {"a": b"one"})
    with staged(folder) as part:
        (part / "a").write_bytes(b"two")
    assert (os.listdir(tmp_path), contents(folder)) == (["model"], {"a": b"two"})


def test_an_imported_model_that_does_not_fit(tmp_path: Path) -> None:
    folder, spec = tmp_path / "model", BundleSpec("x", 99)
    tensors = Dlf(PRESETS["tiny-l"]).state_dict()
    write_model("tiny-l", tensors, folder, spec, "float16")
    before = contents(folder)
    with files_of_at_most(10_000), pytest.raises(OSError, match=r"cannot be written.*free some room"):
        write_model("tiny-l", tensors, folder, spec, "float32")
    assert (os.listdir(tmp_path), contents(folder)) == (["model"], before)


def test_weights_in_parts_that_do_not_fit(tmp_path: Path) -> None:
    save_parts(tmp_path, {"a": torch.zeros(10)}, 1)
    before = contents(tmp_path)
    with files_of_at_most(10_000), pytest.raises(OSError, match="File too large"):
        save_parts(tmp_path, {"a": torch.zeros(100_000)}, 2)
    assert contents(tmp_path) == before
