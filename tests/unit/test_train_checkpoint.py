"""Checkpoints: whole or not at all, and nothing but ours is read."""

# ruff: noqa: E402
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from dlf.train import checkpoint
from dlf.train.checkpoint import Checkpoint

pytestmark = pytest.mark.torch

CONFIG = {"preset": "tiny", "shapes": ((64, 64),)}
STATE = Checkpoint(3, CONFIG, {"a": torch.ones(3)}, {"a": torch.zeros(3)}, {"main": {}}, {"seen": 1})


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.pt"
    checkpoint.save(path, STATE)
    found = checkpoint.load(path)
    assert torch.equal(found.model["a"], STATE.model["a"])
    assert torch.equal(found.ema["a"], STATE.ema["a"])
    assert replace(found, model={}, ema={}) == replace(STATE, model={}, ema={})
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)

    def fail(data: object, where: Path) -> None:
        where.write_bytes(b"half a checkpoint")
        raise OSError

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError):  # noqa: PT011
        checkpoint.save(path, replace(STATE, step=4))
    assert checkpoint.load(path).step == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


class Bomb:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a checkpoint ran code",)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"not a checkpoint", [1, 2], {"format": 0}, {"format": 1, "step": 3}, Bomb(),
        {"format": 1, **vars(STATE), "surplus": 0},
    ],
    ids=["empty", "text", "list", "format", "missing", "code", "surplus"],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"x\.pt is not a training checkpoint"):
        checkpoint.load(path)
