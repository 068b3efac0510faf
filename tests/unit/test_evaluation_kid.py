"""KID on patches: the unbiased estimate, its subsets, and that it comes out the same again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tool_modules import load_file

pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

import torch

from dlf.evaluation.codecs.fitting import ScaledCodec
from dlf.evaluation.codecs.formats import open_format
from dlf.evaluation.comparison import Comparison, Target
from dlf.evaluation.dataset import find_images
from dlf.evaluation.image_bench import ImageBench
from dlf.evaluation.ledger import Ledger, Row
from dlf.evaluation.metrics import sets
from dlf.evaluation.metrics.fidelity import PSNR
from dlf.evaluation.runner import run
from dlf.evaluation.set_scores import set_scores

pytestmark = pytest.mark.torch


def kernel_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the unbiased squared maximum mean discrepancy of (n, d) with the kernel (x y / d + 1)^3."""

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def others(k: NDArray[np.float64]) -> float:
        return float(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    return others(kernel(x, x)) + others(kernel(y, y)) - 2 * float(kernel(x, y).mean())


@pytest.fixture
def perceptual_tests() -> ModuleType:
    """The tests next door, which can write a small Inception stem."""
    return load_file(Path(__file__).with_name("test_evaluation_perceptual.py"))


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for name in "ab":
        small = Image.fromarray(rng.integers(0, 256, (20, 26, 3), np.uint8))
        small.resize((520, 400)).save(tmp_path / "pictures" / f"{name}.png")
    webp = ScaledCodec("webp", open_format("webp"), (Fraction(1),))
    return Comparison((webp,), (Target(bpp=0.1), Target(bpp=4)), (PSNR,), "psnr")


def rows_of(comparison: Comparison, folder: Path) -> list[Row]:
    return list(run(comparison, find_images(folder / "pictures"), Ledger(folder / "rows.jsonl")))


def test_the_stem_kid_is_the_unbiased_estimate_over_all_patches(
    tmp_path: Path, comparison: Comparison, perceptual_tests: ModuleType
) -> None:
    perceptual_tests.write_stem(tmp_path / "stem.safetensors")
    metric = sets.stem_kid_metric(tmp_path / "stem.safetensors")
    pictures = find_images(tmp_path / "pictures")
    rows = rows_of(comparison, tmp_path)
    scores = set_scores(comparison, pictures, rows, [metric])
    from dlf.evaluation.metrics.feature_distance import stem_vectors

    network = stem_vectors(tmp_path / "stem.safetensors")

    def vectors(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
        with torch.inference_mode():
            x = torch.tensor(sets.patches(rgb)).permute(0, 3, 1, 2)
            return np.asarray(network(x).double())

    benches = [ImageBench(comparison, image) for image in pictures]
    x = np.concatenate([vectors(bench.original) for bench in benches])
    assert len(x) == 2 * 3
    for score, target in zip(scores, ("0.1", "4"), strict=True):
        chosen = [row for row in rows if row.target == target]
        y = np.concatenate([vectors(bench.decoded(row)) for bench, row in zip(benches, chosen, strict=True)])
        assert score.target == target
        value = score.scores["stem_kid"]
        assert value == pytest.approx(1000 * kernel_distance(x, y), rel=1e-3, abs=1e-4)
    assert set_scores(comparison, pictures, rows, [metric]) == scores


def test_more_patches_than_a_subset_are_drawn_with_a_fixed_seed(
    tmp_path: Path, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Means(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().mean((2, 3)) / 255

    monkeypatch.setattr(sets, "SUBSET", 4)
    pictures, rows = find_images(tmp_path / "pictures"), rows_of(comparison, tmp_path)
    metric = sets.kid_metric(Means())
    many, few = (metric.make(count).metric for count in (5, 4))  # type: ignore[attr-defined]
    assert (many.subsets, many.subset_size) == (sets.SUBSETS, 4)
    assert (few.subsets, few.subset_size) == (1, 4)
    first = set_scores(comparison, pictures, rows, [metric])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert set_scores(comparison, pictures, rows, [metric]) == first
    assert torch.equal(torch.get_rng_state(), before)
