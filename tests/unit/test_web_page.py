"""The page in a real browser: a photo in, a file out and in again, by pointer, keyboard and telephone."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dlf
from service_run import Running, serving
from web_decoder import WEB as TESTS
from web_decoder import make_site, runtime

sync_api = pytest.importorskip("playwright.sync_api")

PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"
CODED = Path(__file__).parents[1] / "golden" / "small-v1.dlf"
WEB = Path(dlf.__file__).parent / "web"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
PATIENCE = 90_000  # milliseconds


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A piece of the photo, where all of it would only take longer."""
    path = tmp_path_factory.mktemp("photo") / "piece.jpg"
    with Image.open(PHOTO) as image:
        image.crop((150, 20, 310, 148)).save(path, quality=95)
    return path


@dataclass
class Watched:
    """A page, and what the browser said and asked for meanwhile."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def done(self) -> None:
        """Wait until all work is done; an error of the page is a failure."""
        status, error = (
            self.page.locator("#status", has_text="Done."),
            self.page.locator("#error", has_text="."),
        )
        status.or_(error).first.wait_for(timeout=PATIENCE)
        assert self.page.inner_text("#error") == ""

    def facts(self) -> dict[str, str]:
        names = self.page.locator("#facts dt").all_inner_texts()
        return dict(zip(names, self.page.locator("#facts dd").all_inner_texts(), strict=True))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        opened = play.chromium.launch(executable_path=BROWSER, args=switches)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("page"), "--workers", "1", "--threads", "1") as running:
        running.wait_for_workers(1)
        yield running


@pytest.fixture
def watch(browser: Any) -> Iterator[Any]:
    """Open an address in a window of its own."""
    contexts = []

    def opened(url: str, **options: object) -> Watched:
        context = browser.new_context(viewport={"width": 1200, "height": 1000}, locale="en", **options)
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.on("console", lambda message: watched.said.append(message.text))
        watched.page.on("pageerror", lambda error: watched.said.append(str(error)))
        watched.page.on("request", lambda request: watched.asked.append(request.url))
        watched.page.goto(url)
        return watched

    yield opened
    for context in contexts:
        context.close()


def only_from(url: str, watched: Watched) -> bool:
    return all(asked.startswith((url, "blob:", "data:")) for asked in watched.asked)


def test_a_photo_a_file_and_back(service: Running, watch: Any, tmp_path: Path) -> None:
    watched = watch(f"{service.url}/")
    page = watched.page
    page.fill("#bytes", "900")
    assert page.is_checked("#by-bytes")
    page.set_input_files("#file", PHOTO)
    watched.done()
    facts = watched.facts()
    assert 873 <= int(facts["Bytes"].replace(",", "")) <= 900
    assert facts["Size"] == "512 \N{MULTIPLICATION SIGN} 512"
    assert float(facts["Bits a pixel"]) == pytest.approx(8 * 890 / 512**2, rel=0.03)
    assert facts["Model"] == dlf.models()[0].name

    # the border follows the keyboard and the pointer
    page.focus("#slider")
    page.keyboard.press("Home")
    clip = "getComputedStyle(document.getElementById('left-image')).clipPath"
    assert page.evaluate(clip) == "inset(0px 100% 0px 0px)"
    page.keyboard.press("End")
    assert page.evaluate(clip) in ("inset(0px)", "inset(0px 0% 0px 0px)")
    box = page.locator("#compare").bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    assert page.input_value("#slider") == "25"

    # the map has a colour for every cell, and its text the numbers
    page.check("#map-on")
    assert page.is_visible("#map")
    colours = "new Set(document.getElementById('map').getContext('2d').getImageData(0, 0, 16, 16).data).size"
    assert page.evaluate(colours) > 5
    assert "Bits of each square of 32 pixels" in page.inner_text("#map-text")

    with page.expect_download() as download:
        page.click("#save-file")
    assert download.value.suggested_filename == "astronaut.dlf"
    coded = tmp_path / "astronaut.dlf"
    download.value.save_as(coded)
    assert dlf.info(coded).file_bytes == int(facts["Bytes"].replace(",", ""))
    with page.expect_download() as download:
        page.click("#save-picture")
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")

    # dropped again it is shown, and there is nothing to compare with
    drop(page, coded)
    page.locator("#left option").first.wait_for(state="attached")
    page.wait_for_timeout(100)
    watched.done()
    assert page.locator("#left option").all_inner_texts() == [f"this file, {facts['Bytes']} bytes"]
    assert not any(page.is_visible(part) for part in ("#left", "#right", "#slider", "#left-caption"))
    assert page.is_disabled("#encode")
    assert watched.said == []
    assert only_from(service.url, watched)


def drop(page: Any, path: Path) -> None:
    """Drop a file onto the page."""
    script = """(bytes) => {
        const dropped = new DataTransfer();
        dropped.items.add(new File([new Uint8Array(bytes)], "dropped.dlf"));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, cancelable: true }));
    }"""
    page.evaluate(script, list(path.read_bytes()))


@pytest.mark.slow
def test_the_rival(service: Running, watch: Any) -> None:
    page = (watched := watch(f"{service.url}/")).page
    page.set_input_files("#file", PHOTO)
    watched.done()
    if page.locator("#left option", has_text="AVIF").count() == 0:
        pytest.skip("Pillow has no AVIF here")
    ours, rival = (
        int("".join(filter(str.isdigit, watched.facts()[name].split(" ")[0]))) for name in ("Bytes", "AVIF")
    )
    assert rival <= ours
    page.select_option("#left", "avif")
    assert page.inner_text("#left-caption").startswith("AVIF")
    assert page.evaluate("document.getElementById('left-image').naturalWidth") > 0


def test_errors_are_said(service: Running, watch: Any, small: Path, tmp_path: Path) -> None:
    page = (watched := watch(f"{service.url}/")).page
    for name, content, says in (
        ("a.txt", b"no picture", "not an image"),
        ("a.dlf", b"DLF" + bytes(30), "version"),
        ("empty.jpg", b"", "empty"),
    ):
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#file", tmp_path / name)
        page.locator("#error", has_text=says).wait_for(timeout=PATIENCE)
        assert page.is_hidden("#result")
        assert page.inner_text("#status") == ""
    page.set_input_files("#file", small)
    page.fill("#bytes", "5")
    page.click("#encode", no_wait_after=True)
    assert not page.evaluate("document.getElementById('bytes').checkValidity()")
    assert only_from(service.url, watched)


def test_by_keyboard_on_a_telephone_and_read_aloud(
    service: Running, watch: Any, small: Path, tmp_path: Path
) -> None:
    page = (watched := watch(f"{service.url}/")).page
    page.set_input_files("#file", small)
    watched.done()
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    for name in ("file", "quality", "bytes", "model", "side", "encode", "left", "right", "map-on", "slider",
                 "save-file", "save-picture", "HTTP interface for programs"):  # fmt: skip
        assert name in reached, name

    assert page.evaluate(NAMELESS) == []
    assert page.get_by_role("slider", name="Border between").count() == 1
    assert page.get_attribute("#status", "role") == "status"

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1200, 320, 360):
            page.set_viewport_size({"width": width, "height": 740})
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"the page is {wide} wide"
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    assert page.evaluate(TOO_SMALL) == []
    assert watched.said == []


# what has no name for readers of the screen
NAMELESS = """[...document.querySelectorAll("input, select, button, progress, img, canvas")]
    .filter((each) => !(each.labels?.length || each.ariaLabel || each.alt || each.textContent.trim()))
    .map((each) => each.id)"""

# what a finger would miss
TOO_SMALL = """[...document.querySelectorAll(
        "button, .button, select, input[type=range], input[type=number]"
    )]
    .filter((each) => each.offsetParent && each.getBoundingClientRect().height < 44)
    .map((each) => each.id)"""


def axe() -> Path | None:
    """The accessibility checker of npm, installed for all or named by the variable AXE."""
    if named := os.environ.get("AXE"):
        return Path(named)
    if shutil.which("npm") is None:
        return None
    done = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, timeout=60)
    roots = Path(done.stdout.strip()), TESTS / "node_modules"
    places = [root / "axe-core" / "axe.min.js" for root in roots]
    return next((place for place in places if place.is_file()), None)


@pytest.mark.slow
def test_no_serious_fault_of_accessibility(service: Running, watch: Any, small: Path) -> None:
    script = axe()
    if script is None:
        pytest.skip("axe-core is not installed (npm install -g axe-core)")
    for address in ("/", "/api"):
        page = (watched := watch(service.url + address, bypass_csp=True)).page
        if address == "/":
            page.set_input_files("#file", small)
            watched.done()
            page.check("#map-on")
        page.evaluate(script.read_text("utf-8"))
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = page.evaluate("axe.run()")
            faults = [
                (fault["id"], fault["impact"], [node["html"] for node in fault["nodes"]])
                for fault in found["violations"]
            ]
            assert len(found["passes"]) > 10
            assert faults == []


def runtime_folder() -> Path:
    """Where onnxruntime-web lies, or the test is skipped."""
    return runtime()["ort.js"].parents[1]


@contextmanager
def hosting(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and nothing else; yields where."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_on_a_host_that_has_files_only(watch: Any, small: Path) -> None:
    with hosting(WEB) as url:
        page = (watched := watch(f"{url}/")).page
        page.locator("#place", has_text="neither a service nor a decoder").wait_for(timeout=PATIENCE)
        assert page.is_hidden("#settings")
        page.set_input_files("#file", small)
        page.locator("#error", has_text="this is none").wait_for(timeout=PATIENCE)
        assert only_from(url, watched)


@pytest.fixture(scope="module")
def painted_locally() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(dlf.decode(CODED))


def drawn(page: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What the page offers to download as the picture."""
    with page.expect_download() as download:
        page.click("#save-picture")
    with Image.open(download.value.path()) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.slow
def test_decoding_in_the_browser(watch: Any, tmp_path: Path, painted_locally: Any) -> None:
    """The same picture whether the service paints it or this browser, and nothing asked of others."""
    folder = runtime_folder()
    with serving(tmp_path, "--workers", "1", "--onnxruntime-web", str(folder)) as running:
        page = (watched := watch(f"{running.url}/")).page
        page.locator("#local-choice").wait_for()
        for local in (False, True):
            page.set_checked("#local", local)
            before = len(watched.asked)
            page.set_input_files("#file", CODED)
            page.locator("#progress").wait_for(state="hidden", timeout=PATIENCE)
            watched.done()
            paths = [asked.rpartition("/")[2].partition("?")[0] for asked in watched.asked[before:]]
            assert ("decode" in paths) != local
            assert abs(drawn(page).astype(int) - painted_locally).max() <= 3
        assert watched.said == []
        assert only_from(running.url, watched)


@pytest.mark.slow
def test_a_static_site_shows_files(watch: Any, tmp_path: Path, painted_locally: Any) -> None:
    make_site(tmp_path / "site")
    with hosting(tmp_path / "site") as url:
        page = (watched := watch(f"{url}/")).page
        page.locator("#place", has_text="shows .dlf files").wait_for(timeout=PATIENCE)
        page.set_input_files("#file", CODED)
        watched.done()
        assert abs(drawn(page).astype(int) - painted_locally).max() <= 3
        assert watched.said == []
        assert only_from(url, watched)


def test_the_page_names_no_other_host() -> None:
    for path in WEB.glob("*.*"):
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path.name
        assert "style=" not in text, path.name
