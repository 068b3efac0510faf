"""The decoder in a real browser, from a plain static server: the picture, and nothing from elsewhere."""

from __future__ import annotations

import shutil
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dlf
from dlf.codec import bundle
from web_decoder import WEB, make_site

GOLDEN = Path(__file__).parents[1] / "golden"
POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; img-src data:"
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
SECONDS = 120_000  # in thousandths; the machine may be busy
SHIPPED = [found for found in bundle.installed() if found.folder.parent == bundle.ASSETS]
PIXELS = """() => {
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let text = "";
    for (let i = 0; i < data.length; i += 4) text += String.fromCharCode(data[i], data[i + 1], data[i + 2]);
    return btoa(text);
}"""


class Handler(SimpleHTTPRequestHandler):
    """Files, with headers, and types for names that end in .js and .html only, as of a poor host."""

    headers_to_send: dict[str, str]
    extensions_map = {".js": "text/javascript", ".html": "text/html", "": "application/octet-stream"}  # noqa: RUF012

    def __init__(self, *given: Any, headers: dict[str, str], **named: Any) -> None:
        self.headers_to_send = headers
        super().__init__(*given, **named)

    def end_headers(self) -> None:
        for name, value in self.headers_to_send.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path, headers: dict[str, str]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder, headers=headers)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/below/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose folder `below` is a site with the demo page."""
    folder = tmp_path_factory.mktemp("host")
    make_site(folder / "below")
    for name in ("demo.html", "demo.js"):
        shutil.copy(WEB / name, folder / "below")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as play:
        switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        running = play.chromium.launch(executable_path=program, args=switches)
        yield running
        running.close()


@contextmanager
def opened(browser: Any, url: str, *, name: str = "demo.html", quiet: bool = True) -> Iterator[Any]:
    """A page that asks no other host, and unless it is told otherwise says nothing on its console."""
    page = browser.new_page(viewport={"width": 900, "height": 700})
    page.set_default_timeout(SECONDS)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.context.on("request", lambda request: asked.append(request.url))
    page.goto(url + name)
    yield page
    page.close()
    assert said == [] or not quiet
    assert any(address.endswith(".wasm") for address in asked)
    assert all(address.startswith((url, "data:", f"blob:{url[:-7]}")) for address in asked), asked


def check_picture(page: Any, path: Path) -> None:
    page.evaluate("said.textContent = ''")
    page.locator("#file").set_input_files(path)
    page.wait_for_selector("#said:not(:empty)")
    name = dlf.info(path).model_name
    wanted = np.asarray(dlf.decode(path), int)
    height, width = wanted.shape[:2]
    assert page.locator("#said").text_content() == f"{width}x{height}, {path.stat().st_size} bytes, {name}"
    pixels = np.frombuffer(b64decode(page.evaluate(PIXELS)), np.uint8).reshape(height, width, 3)
    assert np.abs(pixels - wanted).max() <= 2


def test_decodes_under_a_strict_policy(browser: Any, site: Path) -> None:
    """On a host that knows few types, sends a content security policy and isolates nothing."""
    with served(site, {"Content-Security-Policy": POLICY}) as url, opened(browser, url) as page:
        assert not page.evaluate("crossOriginIsolated")
        check_picture(page, GOLDEN / "small-v1.dlf")
        assert page.evaluate("info.threads") == 1
        stages = page.evaluate("stages.map(({stage, done, total}) => `${stage} ${done}/${total}`)")
        models = [f"model {i}/3" for i in range(4)]
        assert stages == [*models, *(f"symbols {i}/4" for i in range(1, 5)), "painting 0/1", "painting 1/1"]
        # a file that is none
        page.locator("#file").set_input_files(GOLDEN / "coder.bin")
        page.get_by_text("format: this is not a .dlf file").wait_for()


@pytest.mark.slow
def test_the_page_of_the_site(browser: Any, site: Path) -> None:
    """It shows files without a service behind it."""
    if not (site / "below" / "index.html").exists():
        pytest.skip("this checkout has no page")
    policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:"
    headers = {"Content-Security-Policy": policy}
    with served(site, headers) as url, opened(browser, url, name="index.html") as page:
        page.locator("#file").set_input_files(GOLDEN / "small-v1.dlf")
        page.get_by_text("Done.").wait_for()
        assert page.locator("#error").text_content() == ""
        page.set_input_files("#file", {"name": "cut.dlf", "mimeType": "", "buffer": b"DLF"})
        page.locator("#error", has_text=".").wait_for()
        said = page.inner_text("#error")
        assert said[0].isupper()
        assert said.endswith(".")
        size = page.evaluate("[...document.images].map((i) => [i.naturalWidth, i.naturalHeight])")
        assert [320, 200] in size


@pytest.mark.slow
def test_a_request_that_is_given_up_leaves_the_next_alone(browser: Any, site: Path) -> None:
    with served(site, {}) as url, opened(browser, url) as page:
        outcome = page.evaluate(
            """async (file) => {
                const bytes = Uint8Array.from(file);
                const [first, second] = [new AbortController(), new AbortController()];
                const all = [first.signal, second.signal, undefined].map((signal) =>
                    decoder.decodeDlf(bytes, {signal}).then(({width}) => width, (error) => error.name));
                await new Promise((resolve) => setTimeout(resolve, 50));
                second.abort(); // waits
                first.abort(); // is being worked on
                return Promise.all(all);
            }""",
            list((GOLDEN / "small-v1.dlf").read_bytes()),
        )
        assert outcome == ["AbortError", "AbortError", 320]


@pytest.mark.slow
def test_a_site_that_was_incomplete_works_once_it_is_whole(browser: Any, site: Path) -> None:
    part = site / "below" / "onnxruntime" / "ort-wasm.js"
    with served(site, {}) as url, opened(browser, url, quiet=False) as page:
        away = part.rename(part.with_suffix(".away"))
        page.locator("#file").set_input_files(GOLDEN / "small-v1.dlf")
        page.wait_for_selector("#said:not(:empty)")
        said = page.locator("#said").text_content()
        assert said.startswith("bundle: the model's")
        assert "network cannot be loaded" in said
        away.rename(part)
        page.evaluate("file.value = ''")
        check_picture(page, GOLDEN / "small-v1.dlf")


@pytest.mark.slow
@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.manifest.name)
def test_isolated_pages_use_threads(
    browser: Any, site: Path, model: bundle.ModelBundle, tmp_path: Path
) -> None:
    path = tmp_path / "photo.dlf"
    path.write_bytes(dlf.Codec(model.folder).encode(GOLDEN.parent / "data" / "astronaut.jpg", 40))
    with served(site, ISOLATED) as url, opened(browser, url) as page:
        assert page.evaluate("crossOriginIsolated")
        check_picture(page, path)
        assert page.evaluate("info.threads") == min(4, page.evaluate("navigator.hardwareConcurrency"))
