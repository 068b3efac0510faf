"""The folder for a machine with a GPU: what is in it, and that it is not too large."""

# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, features

from tool_modules import load_tool

torch = pytest.importorskip("torch")
pytest.importorskip("yaml")
from safetensors.torch import load_file, save_file

from dlf.train.codec_stage import new_model
from dlf.train.plan import load_plan
from dlf.train.shards import find_images
from dlf.train.weights import load_labelled, save_parts
from tiny_runs import lite_weights

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP"),
]

FEATURES = "efficientnet_lite0.safetensors"
TOOL = Path(__file__).parents[2] / "tools" / "gpu_pack.py"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_tool("gpu_pack")
    # the checkout may be no git repository
    monkeypatch.setattr(module, "tracked_bytes", lambda: 2**20)
    return module


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(5)
    for folder, count in (("one", 3), ("two", 2), ("val", 8)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
            Image.fromarray(pixels).resize((400, 300)).save(tmp_path / folder / f"{number}.png")
    networks = tmp_path / "networks"
    networks.mkdir()
    (networks / "inception_v3_stem.safetensors").write_bytes(b"stem")
    save_file(lite_weights() | {"blocks.11.expand.bias": torch.ones(672)}, networks / FEATURES)
    data = [str(tmp_path / folder) for folder in ("one", "two")]
    return [
        "--data", *data, "--val", str(tmp_path / "val"), "--networks", str(networks),
        "-o", str(tmp_path / "carry"),
    ]  # fmt: skip


def test_everything_that_travels_is_in_one_folder(
    tool: ModuleType, line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "start"
    save_parts(start, new_model("tiny").state_dict(), 9, {"preset": "tiny", "stage": "joint"})
    assert tool.main([*line, "--start", str(start)]) == 0
    said = capsys.readouterr().out
    carry = tmp_path / "carry"
    assert len(find_images(carry / "photos.tar")) == 5
    assert len(find_images(carry / "val.tar")) == 6
    assert (carry / "lib" / "click" / "__init__.py").exists()
    assert load_file(carry / FEATURES).keys() == lite_weights().keys()
    assert (carry / "inception_v3_stem.safetensors").read_bytes() == b"stem"
    for name in ("gpu10_base", "gpu10_more"):
        assert '"base":' not in (carry / f"{name}.json").read_text("utf-8")
        load_plan(carry / f"{name}.json")
    _, about = load_labelled(carry / "start")
    assert about == {"preset": "tiny", "stage": "joint", "step": "9"}
    size = sum(path.stat().st_size for path in carry.rglob("*") if path.is_file())
    assert f"{carry}: {size / 2**20:.1f} MiB, {size / 2**20 + 1:.1f} MiB with what git knows" in said
    assert not list(tmp_path.glob("carry-*"))


def test_too_much_is_refused_and_what_was_there_stays(
    tool: ModuleType,
    line: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "carry").mkdir()
    (tmp_path / "carry" / "before").touch()
    monkeypatch.setattr(tool, "LIMIT", 2 * 2**20)
    assert tool.main(line) == 1
    assert "MiB of 2 are left for photos" in capsys.readouterr().err
    monkeypatch.setattr(tool, "SLACK", -(2**24))
    monkeypatch.setattr(tool, "tracked_bytes", lambda: 2**21)
    assert tool.main(line) == 1
    assert "MiB, above 2 MiB" in capsys.readouterr().err
    (tmp_path / "networks" / FEATURES).unlink()
    assert tool.main(line) == 1
    assert "efficientnet_lite0" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "carry").iterdir()] == ["before"]
