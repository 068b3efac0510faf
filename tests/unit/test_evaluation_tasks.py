"""Metrics through libraries, and what other programs still see; each is compared with the library itself."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dlf.errors import MissingExtra
from dlf.evaluation.codecs.fitting import ScaledCodec
from dlf.evaluation.codecs.formats import open_format
from dlf.evaluation.comparison import Comparison, Target
from dlf.evaluation.curves import HULL
from dlf.evaluation.dataset import find_images
from dlf.evaluation.ledger import Ledger
from dlf.evaluation.metrics import detection, learned, sets, tasks
from dlf.evaluation.metrics.fidelity import PSNR
from dlf.evaluation.results import gather
from dlf.evaluation.runner import run
from dlf.evaluation.set_scores import set_scores
from dlf.records import UInt8

Picture = Callable[[int, int], UInt8]


def noisy(rgb: UInt8, amount: float) -> UInt8:
    noise = np.random.default_rng(0).normal(0, amount, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


def need_libraries(*modules: str) -> None:
    for module in modules:
        # also one that does not fit another that is there
        pytest.importorskip(module, exc_type=(ImportError, RuntimeError))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*(pretrained|weight enum).*")
@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_is_that_of_the_library(picture: Picture, network: str) -> None:
    need_libraries("torch", "torchvision", "lpips")
    import lpips
    import torch

    torch.manual_seed(0)
    metric = learned.lpips_metric(network, random_weights=True)
    torch.manual_seed(0)
    model = lpips.LPIPS(net=network, pnet_rand=True, verbose=False).eval()
    a = picture(70, 90)
    b = noisy(a, 20)
    x, y = (lpips.im2tensor(rgb) for rgb in (a, b))
    with torch.inference_mode():
        wanted = float(model(x, y).detach())
    assert wanted > 0
    assert metric.against(a)(b) == pytest.approx(wanted, rel=1e-4)
    assert metric.against(picture(5, 5))(picture(5, 5)) == 0


@pytest.mark.torch
def test_dists_is_that_of_the_library(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    need_libraries("torch", "torchvision", "DISTS_pytorch")
    import torch
    from torchvision import models

    make = models.vgg16  # with random weights, for there may be no network to download others
    monkeypatch.setattr(models, "vgg16", lambda *args, **options: make(weights=None))
    torch.manual_seed(0)
    metric = learned.dists_metric()
    a = picture(70, 90)
    import DISTS_pytorch

    torch.manual_seed(0)
    model = DISTS_pytorch.DISTS(load_weights=False)
    place = next(path for path in dists_weights() if path.exists())
    for name, tensor in torch.load(place, weights_only=True).items():
        getattr(model, name).data = tensor
    score, b = metric.against(a), noisy(a, 20)
    x, y = (torch.tensor(rgb / 255).permute(2, 0, 1)[None].float() for rgb in (a, b))
    wanted = float(model(x, y).detach())
    assert wanted > 1e-3
    assert score(b) == pytest.approx(wanted, rel=1e-4)
    assert score(a) == pytest.approx(0, abs=1e-4)
    assert 0 < score(noisy(a, 5)) < score(noisy(a, 60)) <= 1


def dists_weights() -> list[Path]:
    """Where a way of installing DISTS may have put its own weights."""
    import DISTS_pytorch

    return [Path(DISTS_pytorch.__file__).parent / "weights.pt", Path(sys.prefix, "weights.pt")]


Seen = dict[int, list[tuple[tuple[float, float, float, float], int, float]]]


def precision(seen: Seen, decoded: list[int]) -> float:
    """Return the mAP of pictures that a stand-in for a detector knows by their first pixel."""
    from torchmetrics import detection as library

    def find(rgb: UInt8) -> list[tasks.Detection]:
        return [tasks.Detection(*one) for one in seen[int(rgb[0, 0, 0])]]

    judge = detection.map_metric(find, library, "stand-in").make(0)
    for number, other in enumerate(decoded):
        judge.update(str(number), np.full((1, 1, 3), number, np.uint8), real=True)
        judge.update(str(number), np.full((1, 1, 3), other, np.uint8), real=False)
    found = float(judge.compute())
    judge.reset()
    return found


@pytest.mark.torch
def test_mean_average_precision_of_known_cases() -> None:
    need_libraries("torch", "torchmetrics", "pycocotools", "torchvision")
    a, b, elsewhere = (0.0, 0.0, 100.0, 100.0), (200.0, 0.0, 300.0, 100.0), (0.0, 200.0, 100.0, 300.0)
    seen: Seen = {
        0: [(a, 1, 0.9), (b, 1, 0.8), (elsewhere, 1, 0.3)],  # the last one is no truth
        1: [(a, 2, 0.9)],
        2: [],
        3: [(a, 1, 0.9)],
        4: [(elsewhere, 1, 0.99), (a, 1, 0.9), (b, 1, 0.8)],
        5: [((0.0, 0.0, 100.0, 77.0), 2, 0.9)],  # overlaps by 0.77
    }
    assert precision(seen, [0, 1]) == pytest.approx(1)
    assert precision(seen, [2, 2]) == 0
    # class 1: recall 1/2 without an error, which is 51 of 101 recalls; class 2: all
    assert precision(seen, [3, 1]) == pytest.approx((51 / 101 + 1) / 2, abs=1e-6)
    # an error before both: precision 1/2, then 2/3, and at no recall less than at a later one
    assert precision(seen, [4, 1]) == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    # 6 of the 10 overlaps asked for, 0.5 to 0.75
    assert precision(seen, [0, 5]) == pytest.approx((1 + 0.6) / 2, abs=1e-6)
    # a class that no original has does not count
    assert precision(seen | {6: [*seen[0], (a, 3, 0.9)]}, [6, 1]) == pytest.approx(1)
    assert math.isnan(precision({0: []}, [0]))


@pytest.mark.torch
def test_pictures_of_any_size_have_a_precision(picture: Picture, tmp_path: Path) -> None:
    need_libraries("torch", "torchmetrics", "pycocotools", "torchvision")
    from torchmetrics import detection as library

    def find(rgb: UInt8) -> list[tasks.Detection]:
        side = float(rgb.mean())
        return [tasks.Detection((0.0, 0.0, side, side), 1, 0.9)]

    for name, size in (("a", (30, 40)), ("b", (50, 20))):
        Image.fromarray(picture(*size)).save(tmp_path / f"{name}.png")
    pictures = find_images(tmp_path)
    webp = ScaledCodec("webp", open_format("webp"), (Fraction(1),))
    comparison = Comparison((webp,), (Target(bpp=6),), (PSNR,), "psnr")
    rows = list(run(comparison, pictures, Ledger(tmp_path / "rows.jsonl")))
    metric = detection.map_metric(find, library, "stand-in")
    (score,) = set_scores(comparison, pictures, rows, [metric])
    assert (score.codec, score.target) == ("webp", "6")
    assert score.scores["objects_map"] > 0.9


def test_ssimulacra2_is_that_of_the_library(picture: Picture, tmp_path: Path) -> None:
    need_libraries("ssimulacra2")
    import ssimulacra2

    metric, a = learned.ssimulacra2_metric(), picture(64, 80)
    b = noisy(a, 10)
    for name, rgb in (("a", a), ("b", b)):
        Image.fromarray(rgb).save(tmp_path / f"{name}.png")
    wanted = ssimulacra2.compute_ssimulacra2(str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert metric.against(a)(b) == pytest.approx(wanted, abs=1e-6)
    assert metric.against(a)(a) == pytest.approx(100)


def test_patches_at_two_offsets() -> None:
    rgb = np.arange(512 * 700, dtype=np.uint32).view(np.uint8).reshape(512, 700, 4)[..., :3]
    found = sets.patches(rgb)
    assert found.shape == (4 + 2, 256, 256, 3)
    assert np.array_equal(found[3], rgb[256:512, 256:512])
    assert np.array_equal(found[5], rgb[128:384, 384:640])
    assert sets.patches(rgb[:255]).shape == (0, 256, 256, 3)


@pytest.mark.torch
def test_frechet_and_kernel_distances(picture: Picture) -> None:
    need_libraries("torch", "torchmetrics")
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Means(torch.nn.Module):
        num_features = 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().mean((2, 3))

    originals = [noisy(picture(512, 512), k) for k in (1, 30, 60)]
    decoded = [255 - rgb for rgb in originals]
    fid = sets.fid_metric(Means())
    judge, wanted = fid.make(15), FrechetInceptionDistance(feature=Means())
    for real, pictures in ((True, originals), (False, decoded)):
        for rgb in pictures:
            judge.update("", rgb, real=real)
            wanted.update(torch.tensor(sets.patches(rgb)).permute(0, 3, 1, 2), real=real)
    assert judge.compute() == pytest.approx(float(wanted.compute()), rel=1e-6)
    judge.reset()
    for rgb in originals:
        judge.update("", rgb, real=False)
    assert judge.compute() == pytest.approx(0, abs=1e-2)
    kid = sets.kid_metric(Means()).make(15)
    for real, pictures in ((True, originals), (False, decoded)):
        for rgb in pictures:
            kid.update("", rgb, real=real)
    assert kid.compute() > 0


@pytest.mark.torch
def test_sets_of_decoded_pictures(picture: Picture, tmp_path: Path) -> None:
    need_libraries("torch", "torchmetrics")
    import torch

    class Means(torch.nn.Module):
        num_features = 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().mean((2, 3))

    for name, size in (("a", (300, 520)), ("b", (512, 256)), ("small", (40, 40))):
        Image.fromarray(noisy(picture(*size), 30)).save(tmp_path / f"{name}.png")
    pictures = find_images(tmp_path)
    webp = ScaledCodec("webp", open_format("webp"), (Fraction(1),))
    targets = (Target(bpp=0.1), Target(bpp=6))
    comparison = Comparison((webp,), targets, (PSNR,), "psnr")
    rows = list(run(comparison, pictures, Ledger(tmp_path / "rows.jsonl")))
    both = set_scores(comparison, pictures, rows, [sets.fid_metric(Means()), sets.kid_metric(Means())])
    assert [(score.codec, score.target) for score in both] == [("webp", "0.1"), ("webp", "6")]
    assert both[1].scores["fid"] < both[0].scores["fid"]
    again = set_scores(comparison, pictures, rows, [sets.kid_metric(Means())])
    assert again[1].scores["kid"] == both[1].scores["kid"]
    small = [row for row in rows if row.picture == "small.png"]
    assert set_scores(comparison, pictures, small, [sets.fid_metric(Means())]) == []
    assert set_scores(comparison, pictures, rows, []) == []
    metrics = [sets.fid_metric(Means())]
    joined = gather(rows, comparison, anchors=[HULL], set_metrics=metrics, set_scores=both)
    assert [d.reason for d in joined.differences if d.metric == "fid"] == [
        "there is no best format of a picture by this metric"
    ]
    assert [point.scores["fid"] for point in joined.curves["webp"]] == [score.scores["fid"] for score in both]


@pytest.mark.parametrize(
    "size", [(512, 700), (255, 900), (256, 256), (384, 384), (383, 640), (1, 1), (1000, 300)]
)
def test_patches_are_counted(size: tuple[int, int]) -> None:
    assert sets.patch_count(*size) == len(sets.patches(np.zeros((*size, 3), np.uint8)))


def test_boxes() -> None:
    assert tasks.overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert tasks.overlap((0, 0, 2, 2), (2, 0, 3, 2)) == 0
    a, b = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 9.0)
    a1, a2, b1, b2 = (tasks.Detection(box, label, 1) for box in (a, b) for label in (1, 2))
    assert tasks.matches([a1, b1], [a1]) == 1
    assert tasks.matches([a1], [a2]) == 0
    assert tasks.matches([a1, b2], [b1, a2]) == 2


def test_recall_and_agreement() -> None:
    seen = {
        0: [],
        1: [((0.0, 0.0, 4.0, 4.0), 1), ((9.0, 9.0, 12.0, 12.0), 1)],
        2: [((0.0, 0.0, 4.0, 4.0), 1)],
    }
    pictures = {key: np.full((1, 1, 3), key, np.uint8) for key in seen}

    def find(picture: UInt8) -> list[tasks.Detection]:
        return [tasks.Detection(box, label, 1) for box, label in seen[int(picture[0, 0, 0])]]

    recall = tasks._recall("r", "r", "r", find).against(pictures[1])
    assert [recall(pictures[key]) for key in (1, 2, 0)] == [1, 0.5, 0]
    agreement = tasks._recall("f", "f", "f", find, harmonic=True).against(pictures[1])
    assert agreement(pictures[2]) == pytest.approx(2 / 3)
    assert math.isnan(tasks._recall("r", "r", "r", find).against(pictures[0])(pictures[1]))


def test_faces(picture: Picture) -> None:
    need_libraries("cv2")
    try:
        metric = tasks.faces_metric()
    except MissingExtra as error:
        pytest.skip(str(error))
    with Image.open(Path(__file__).parents[1] / "data" / "astronaut.jpg") as image:
        rgb = np.asarray(image.convert("RGB"))
    score = metric.against(rgb)
    assert score(rgb) == 1
    assert score(np.zeros_like(rgb)) == 0
    assert math.isnan(metric.against(np.zeros_like(rgb))(rgb))


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_text() -> None:
    image = Image.new("RGB", (420, 80), "white")
    ImageDraw.Draw(image).text((15, 15), "quick brown fox", "black", ImageFont.load_default(44))
    rgb, blank = np.asarray(image), np.full((80, 420, 3), 255, np.uint8)
    assert tasks.read(shutil.which("tesseract") or "", rgb) == "quick brown fox"
    score = tasks.text_metric().against(rgb)
    assert score(rgb) == 0
    assert score(blank) == 1
    assert math.isnan(tasks.text_metric().against(blank)(rgb))


@pytest.mark.parametrize(
    ("truth", "read", "share"),
    [
        ("abcd", "abcd", 0),
        ("abcd", "abxd", 0.25),
        ("ab", "xyzuvw", 1),
        ("abcd", "", 1),
        ("abcd", "bcda", 0.5),  # one left out in front, one put in behind
        ("xabab", "ababx", 0.4),
    ],
)
def test_character_error(truth: str, read: str, share: float) -> None:
    assert tasks.character_error(truth, read) == share


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's distance, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last = row
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y)))
    return row[-1]


def test_the_character_error_is_an_edit_distance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        truth, read = ("".join(rng.choice([*"abc "], rng.integers(1, 12))) for _ in range(2))
        assert tasks.character_error(truth, read) == min(1, edit_distance(truth, read) / len(truth))


@pytest.mark.torch
def test_networks_of_torchvision_by_stand_ins(picture: Picture) -> None:
    torch = pytest.importorskip("torch")

    def brightest(x: object) -> object:
        return torch.as_tensor(x).float().mean((2, 3))

    metric = tasks.classifier(brightest, lambda x: x, "c")
    red, blue = (np.full((4, 4, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    assert (metric.against(red)(red), metric.against(red)(blue)) == (1, 0)

    def model(pictures: list[object]) -> list[dict[str, object]]:
        boxes = torch.tensor([[0.0, 0, 2, 2], [1.0, 1, 3, 3]])
        return [{"boxes": boxes, "scores": torch.tensor([0.9, 0.2]), "labels": torch.tensor([7, 8])}]

    found = tasks.detector(model)(red)
    assert [(one.box, one.label) for one in found] == [((0, 0, 2, 2), 7), ((1, 1, 3, 3), 8)]
    assert [one.score for one in found] == pytest.approx([0.9, 0.2])
