"""Pixel losses and the feature distance, on made-up weights."""

# ruff: noqa: E402
from __future__ import annotations

import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F
from safetensors.torch import save_file

from dlf.errors import MissingExtra
from dlf.losses.objective import Weights, pixel_terms, weighted_sum
from dlf.losses.perceptual import ConvBn, LpipsDistance, StemDistance, feature_distance, perceptual_distance

pytestmark = pytest.mark.torch

PLAIN = {
    "Conv2d_1a_3x3": (3, 32, 3),
    "Conv2d_2a_3x3": (32, 32, 3),
    "Conv2d_2b_3x3": (32, 64, 3),
    "Conv2d_3b_1x1": (64, 80, 1),
    "Conv2d_4a_3x3": (80, 192, 3),
}


def layer(name: str, c_in: int, c_out: int, kernel: int) -> dict[str, torch.Tensor]:
    std = (2 / (c_in * kernel * kernel)) ** 0.5
    return {
        f"{name}.conv.weight": std * torch.randn(c_out, c_in, kernel, kernel),
        f"{name}.bn.weight": 0.5 + torch.rand(c_out),
        f"{name}.bn.bias": 0.1 * torch.randn(c_out),
        f"{name}.bn.running_mean": 0.1 * torch.randn(c_out),
        f"{name}.bn.running_var": 0.5 + torch.rand(c_out),
    }


def stem_weights() -> dict[str, torch.Tensor]:
    """Tensors of the names and shapes of Inception-v3's first layers."""
    torch.manual_seed(2)
    weights: dict[str, torch.Tensor] = {}
    for name, shape in PLAIN.items():
        weights |= layer(name, *shape)
    for name, c_in, pool in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
        weights |= layer(f"{name}.branch1x1", c_in, 64, 1)
        weights |= layer(f"{name}.branch5x5_1", c_in, 48, 1)
        weights |= layer(f"{name}.branch5x5_2", 48, 64, 5)
        weights |= layer(f"{name}.branch3x3dbl_1", c_in, 64, 1)
        weights |= layer(f"{name}.branch3x3dbl_2", 64, 96, 3)
        weights |= layer(f"{name}.branch3x3dbl_3", 96, 96, 3)
        weights |= layer(f"{name}.branch_pool", c_in, pool, 1)
    return weights


@pytest.fixture(scope="module")
def distance(tmp_path_factory: pytest.TempPathFactory) -> StemDistance:
    path = tmp_path_factory.mktemp("stem") / "stem.safetensors"
    save_file(stem_weights(), path)
    return StemDistance(path)


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    target = F.interpolate(torch.rand(2, 3, 16, 16), size=96, mode="bilinear") * 2 - 1
    return target, (target + 0.2 * torch.randn_like(target)).clamp(-1, 1)


def test_stem_distance(distance: StemDistance) -> None:
    target, worse = pictures()
    assert distance(target, target).abs().max() == 0
    near, far = distance(0.5 * (target + worse), target), distance(worse, target)
    assert near.shape == (2,)
    assert (near > 0).all()
    assert (near < far).all()
    assert (far < 4).all()
    torch.testing.assert_close(far, distance(target, worse))
    torch.testing.assert_close(far[1:], distance(worse[1:], target[1:]))


def test_only_the_picture_gets_a_gradient(distance: StemDistance) -> None:
    target, worse = (t.requires_grad_() for t in pictures())
    distance(worse, target).sum().backward()
    assert worse.grad.isfinite().all()
    assert worse.grad.abs().max() > 0
    assert target.grad is None
    assert not any(p.requires_grad for p in distance.parameters())


def test_feature_maps(distance: StemDistance) -> None:
    shapes = [tuple(f.shape[1:]) for f in distance.features(pictures()[0])]
    assert shapes == [(32, 47, 47), (64, 45, 45), (192, 20, 20), (256, 9, 9), (288, 9, 9)]


def test_batch_norm_is_folded_in() -> None:
    torch.manual_seed(4)
    weights = layer("name", 5, 7, 3)
    x = torch.randn(2, 5, 9, 9)
    conv = F.conv2d(x, weights["name.conv.weight"], stride=2, padding=1)
    norm = [weights[f"name.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    wanted = F.relu(F.batch_norm(conv, *norm, eps=1e-3))
    torch.testing.assert_close(ConvBn(weights, "name", 2, 1)(x), wanted, atol=1e-5, rtol=1e-5)


def test_feature_distance_ignores_length_and_is_finite_at_zero() -> None:
    a, b = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(feature_distance([3 * a], [b]), feature_distance([a], [b]))
    torch.testing.assert_close(feature_distance([a], [-a]), torch.full((2,), 4.0))
    zero = torch.zeros(2, 4, 3, 3, requires_grad=True)
    feature_distance([zero], [b]).sum().backward()
    assert zero.grad.isfinite().all()


def test_terms_of_weight_zero_are_not_computed(distance: StemDistance) -> None:
    target, worse = pictures()
    assert set(pixel_terms(worse, target, Weights(l1=1), distance)) == {"l1"}
    assert set(pixel_terms(worse, target, Weights(l1=1, low=1), None)) == {"l1", "low"}
    terms = pixel_terms(worse, target, Weights(l1=1, low=2, perceptual=3), distance)
    assert set(terms) == {"l1", "low", "perceptual"}
    total = weighted_sum(terms, Weights(l1=1, low=2, perceptual=3))
    torch.testing.assert_close(total, terms["l1"] + 2 * terms["low"] + 3 * terms["perceptual"])


def test_low_frequency_term_sees_colour_not_texture() -> None:
    target = torch.zeros(1, 3, 32, 32)
    checks = ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2.0 - 1).expand(1, 3, 32, 32)
    weights = Weights(l1=1, low=1)
    assert pixel_terms(target + checks, target, weights, None)["low"] < 1e-6
    tinted = pixel_terms(target + 0.25, target, weights, None)
    torch.testing.assert_close(tinted["low"], tinted["l1"])


def test_lpips_is_the_library_s() -> None:
    """Under random weights of VGG-16: nothing is downloaded."""
    try:
        lpips = pytest.importorskip("lpips", reason="the lpips library is not installed")
    except RuntimeError:
        pytest.skip("this torchvision does not fit this torch")
    torch.manual_seed(3)
    ours = LpipsDistance(random_weights=True)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    x, y = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    found = ours(x.requires_grad_(), y)
    torch.testing.assert_close(found, theirs(x, y).flatten())
    assert found.shape == (2,)
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in ours.parameters())


def test_the_network_of_the_perceptual_term_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        perceptual_distance(str(tmp_path / "none.safetensors"))

    def refuse(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("dlf.extras.import_module", refuse)
    with pytest.raises(MissingExtra, match=r"dlf-codec\[lpips\]"):
        perceptual_distance("lpips-vgg")

    def fail(name: str) -> None:
        msg = "operator torchvision::nms does not exist"
        raise RuntimeError(msg)

    monkeypatch.setattr("dlf.extras.import_module", fail)
    with pytest.raises(MissingExtra, match=r"lpips does not work here \(operator .*dlf-codec\[lpips\]"):
        perceptual_distance("lpips-vgg")
