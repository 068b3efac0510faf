"""Published numbers, plots, where the bits went, and the page in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from dlf.api import Codec
from dlf.codec.bundle import ModelBundle
from dlf.errors import ImageError
from dlf.evaluation import complexity, cost, dataset
from dlf.evaluation.codecs.specs import parse_codec
from dlf.evaluation.comparison import Comparison
from dlf.evaluation.dataset import NAMED, ImageFile, check_set
from dlf.evaluation.report import published
from dlf.evaluation.report.plots import Line, Plot, draw, label, plots
from dlf.evaluation.results import gather
from dlf.records import UInt8

TITLES_AND_TOOLBARS = """[...document.querySelectorAll('.plot')].map((box) =>
    box.querySelector('.modebar').getBoundingClientRect().left
    - box.querySelector('.gtitle').getBoundingClientRect().right)"""
"""Pixels between the title of each plot and the toolbar at its right."""

RESULTS = gather([], Comparison((), (), (), ""))

MOCK = [sys.executable, str(Path(__file__).parents[1] / "mock_cli.py")]


def test_published_numbers() -> None:
    points, rates = published.points(), published.rates()
    assert {point.reading for point in points} == {"plot", "eye", "printed", "stated"}
    assert {rate.reading for rate in rates} == {"stated", "computed"}
    assert all(point.source and 0.003 < point.bpp < 0.05 and point.value > 0 for point in points)
    kodak = [
        (p.bpp, p.value) for p in published.points("kodak") if (p.codec, p.metric) == ("DLF (paper)", "dists")
    ]
    assert kodak == [(0.0079, 0.1486), (0.0097, 0.1386), (0.0125, 0.1307), (0.0156, 0.125)]
    aeic = [p for p in published.points("clic2020") if (p.codec, p.metric) == ("AEIC-SE", "fid")]
    assert [(p.bpp, p.value, p.reading) for p in aeic[::4]] == [
        (0.00327, 7.35, "printed"),
        (0.02821, 2.45, "printed"),
    ]
    (psnr,) = [plot for plot in plots(RESULTS, published.points("kodak")) if plot.metric == "psnr"]
    assert not psnr.lower_is_better
    assert [line.name for line in psnr.lines] == ["AEIC-SE"]
    assert {rate.dataset for rate in published.rates("clic2020")} == {"clic2020"}
    assert set(published.datasets()) >= {known.published for known in NAMED.values() if known.published}


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    lines = [
        Line("ours", [(0.1, 20.0), (0.2, 22.0)]),
        Line("theirs", [(0.1, 21.0)], True, True),
        Line("none", []),
    ]
    plot = Plot("psnr", "PSNR", False, lines)
    made = draw(plot)
    assert made["png"].startswith(b"\x89PNG")
    assert b"<svg" in made["svg"]
    assert made == draw(plot)
    assert [label(line) for line in lines] == ["ours", "theirs, published, by eye", "none"]


def test_named_sets(tmp_path: Path) -> None:
    pictures = [ImageFile(f"x/kodim{n:02}.png", tmp_path / f"kodim{n:02}.png") for n in range(1, 25)]
    assert check_set("kodak", pictures[::-1]).published == "kodak"
    with pytest.raises(ImageError, match="Kodak has 24 pictures, the folder 23"):
        check_set("kodak", pictures[1:])
    with pytest.raises(ImageError, match="names of the pictures"):
        check_set("kodak", [*pictures[1:], ImageFile("a", tmp_path / "a.png")])


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (30, 30), (5, 99)])
def test_the_square_in_the_middle(picture: Callable[[int, int], UInt8], size: tuple[int, int]) -> None:
    rgb = picture(*size)
    assert dataset.cropped(rgb, 20).shape == (20, 20, 3)
    side = min(size)
    top, left = ((length - side) // 2 for length in size)
    assert np.array_equal(dataset.cropped(rgb, side), rgb[top : top + side, left : left + side])


@pytest.fixture
def model(
    tmp_path: Path, write_bundle: Callable[..., Path], backend: object, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A bundle that runs on the stand-in for the networks."""
    stand_in = ModuleType("dlf.codec.onnx_backend")
    stand_in.OnnxBackend = lambda *_: backend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dlf.codec.onnx_backend", stand_in)
    write_bundle(tmp_path / "model")
    return tmp_path / "model"


def test_what_each_network_costs(model: Path, picture: Callable[[int, int], UInt8]) -> None:
    work = cost.Work(parse_codec(f"dlf:{model}"), 60)
    encode = cost.encode_cost(work, picture(300, 520))
    assert encode.data == Codec(model).encode(picture(300, 520), 60)
    decode = cost.decode_cost(work, encode.data)
    sizes = complexity.network_sizes(ModelBundle.open(model))
    found = {stage.name: stage for stage in complexity.stages(sizes, encode.cost, decode)}
    networks = [found[name] for name in ("analysis", "prior", "context", "synthesis")]
    assert all(stage.size == (model / f"{stage.name}.onnx").stat().st_size for stage in networks)
    assert found["all"].size == sum(stage.size for stage in networks)
    for seconds in ("encode_s", "decode_s"):
        parts = sum(getattr(stage, seconds) for stage in (*networks, found["the rest"]))
        assert parts == pytest.approx(getattr(found["all"], seconds))
        assert getattr(found["all"], seconds) > 0
    assert found["analysis"].decode_s == found["synthesis"].encode_s == 0
    assert min(found["analysis"].encode_s, found["synthesis"].decode_s, found["context"].decode_s) > 0
    assert found["all"].encode_macs is None  # the stand-in has no graphs to count in


@pytest.fixture
def report(tmp_path: Path, picture: Callable[[int, int], UInt8], write_bundle: Callable[..., Path]) -> Path:
    for module in ("plotly", "matplotlib"):
        pytest.importorskip(module)
    (tmp_path / "pictures").mkdir()
    other = "b" if sys.platform == "win32" else "<b>b"
    for name, size in (("a", (96, 64)), (other, (70, 90))):
        Image.fromarray(picture(*size)).save(tmp_path / "pictures" / f"{name}.png")
    write_bundle(tmp_path / "model")
    command = [*MOCK, "eval", "pictures", "--model", "model", "-o", "out", "--codecs", "dlf,webp,jpeg"]
    command += ["--bpp", "0.5,1,2", "--published", "kodak", "--quiet"]
    env = os.environ | {"DLF_MODELS": str(tmp_path / "no-models")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


def test_the_page_holds_everything(report: Path) -> None:
    text = (report / "report.html").read_text("utf-8")
    data = json.loads(
        re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[0]
    )
    assert len(data["examples"]) == 2
    first = data["examples"][-1]
    assert set(first["targets"]) == {"0.5", "1", "2"}
    assert set(first["targets"]["1"]) == {"dlf", "webp", "jpeg"}
    assert first["bits"]["1"]["windows"][0]["tokens"] >= 1
    assert {plot["title"] for plot in data["plots"]} == {"PSNR dB", "MS-SSIM", "LPIPS (Alex)", "DISTS"}
    psnr, ms_ssim = ([line["label"] for line in plot["lines"]] for plot in data["plots"][:2])
    assert ms_ssim == ["dlf", "webp", "jpeg"]
    assert psnr == [*ms_ssim, "AEIC-SE, published"]
    assert "Against the best format" in text
    assert "<b>b" not in text  # names of files are text, not markup
    assert {path.name for path in (report / "plots").iterdir()} >= {"psnr.png", "psnr.svg", "dists.png"}


def test_the_page_in_a_browser(report: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("chromium is not installed")
    said: list[str] = []
    with sync_api.sync_playwright() as play:
        switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        browser = play.chromium.launch(executable_path=browser_path, args=switches)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((report / "report.html").as_uri())
        page.wait_for_selector(".plot .main-svg")
        assert page.locator(".plot").count() == 4
        assert page.locator(".plot").first.locator(".scatterlayer .trace").count() == 4
        # every plot is as wide as its place, and readable on a dark page too
        for scheme, light in (("light", True), ("dark", False)):
            page.emulate_media(color_scheme=scheme)
            page.reload()
            page.wait_for_selector(".plot .main-svg")
            widths = page.evaluate(
                "[...document.querySelectorAll('.plot')].map((box) => "
                "box.querySelector('.main-svg').getBoundingClientRect().width - box.clientWidth)"
            )
            assert len(widths) == 4
            assert max(map(abs, widths)) < 2
            fill = "getComputedStyle(document.querySelector('.plot .main-svg')).backgroundColor"
            ink = "getComputedStyle(document.querySelector('.plot .gtitle')).fill"
            assert page.evaluate(fill) == "rgba(0, 0, 0, 0)"
            levels = [int(level) for level in re.findall(r"\d+", page.evaluate(ink))[:3]]
            assert (max(levels) < 100) if light else (min(levels) > 155)
        for width in (1200, 390):  # also as wide as a telephone
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(300)
            gaps = page.evaluate(TITLES_AND_TOOLBARS)
            assert len(gaps) == 4
            assert min(gaps) > 0, gaps
        page.set_viewport_size({"width": 1200, "height": 900})
        before = page.evaluate("document.getElementById('left-image').style.clipPath")
        slider = page.locator("#slider")
        box = slider.bounding_box()
        assert box is not None
        slider.click(position={"x": box["width"] * 0.25, "y": box["height"] / 2})
        after = page.evaluate("document.getElementById('left-image').style.clipPath")
        assert before == "inset(0px 50% 0px 0px)"
        assert float(after.split()[1].rstrip("%")) == pytest.approx(75, abs=1.5)
        page.select_option("#left", "original")
        assert page.locator("#left-caption").inner_text().startswith("original")
        page.select_option("#target", "2")
        assert "bytes" in page.locator("#right-caption").inner_text()
        assert page.locator("#bits-windows span").count() >= 1
        assert page.evaluate(
            "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
        )
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "file:", "blob:"))] == []
