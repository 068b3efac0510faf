"""The service as its clients meet it: what it answers, and how it refuses what it does not do."""

from __future__ import annotations

import io
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf.cli.main import main
from service_run import Reply, Running, ask, serving

pytest.importorskip("starlette")

from dlf.service.openapi import document

PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"
LIMIT = 3_000_000


def jpeg(side: int = 160) -> bytes:
    with Image.open(PHOTO) as image:
        file = io.BytesIO()
        image.crop((150, 20, 150 + side, 20 + side)).save(file, "JPEG", quality=95)
    return file.getvalue()


SMALL = jpeg()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    options = ("--workers", "1", "--threads", "1", "--max-bytes", str(LIMIT), "--max-pixels", "2M")
    options += ("--engine", "onnxruntime")
    with serving(tmp_path_factory.mktemp("service"), *options) as running:
        yield running
    assert "Traceback" not in running.said()


@pytest.fixture(scope="module")
def coded(service: Running) -> bytes:
    """The small photo in 400 bytes."""
    reply = ask(f"{service.url}/encode?bytes=400", SMALL)
    assert reply.status == 200
    return reply.body


def local_file(model: str) -> bytes:
    """The small photo at quality 7, as this process encodes it."""
    options = dlf.EngineOptions(threads=1, engine="onnxruntime")
    return dlf.Codec(model, engine=options).encode(SMALL, 7)


def sentence(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/json"
    fields = json.loads(reply.body)
    assert set(fields) == {"error"}
    return str(fields["error"])


class TestWork:
    def test_a_photo_and_back(self, service: Running, coded: bytes) -> None:
        assert 388 <= len(coded) <= 400
        painted = ask(f"{service.url}/decode", coded)
        assert (painted.status, painted.headers["content-type"]) == (200, "image/png")
        local = dlf.Codec(threads=1, engine=dlf.EngineOptions(engine="onnxruntime")).decode(coded)
        with Image.open(io.BytesIO(painted.body)) as image:
            difference = np.asarray(image).astype(int) - np.asarray(local)
        assert abs(difference).max() <= 1

    def test_the_head_tells_the_numbers(self, service: Running) -> None:
        reply = ask(f"{service.url}/encode?quality=7&model=base", SMALL)
        assert reply.headers["content-type"] == "image/x-dlf"
        assert [reply.headers[f"dlf-{name}"] for name in ("quality", "width", "height")] == [
            "7",
            "160",
            "160",
        ]
        assert float(reply.headers["dlf-bpp"]) == pytest.approx(8 * len(reply.body) / 160**2, abs=1e-5)
        assert reply.body == local_file("base")

    def test_models_of_one_number_are_told_apart(self, service: Running) -> None:
        """Those of the package have the same streams, and only a number does not say which encodes."""
        written = {name: local_file(name) for name in ("base", "fast")}
        assert written["base"] != written["fast"]
        models = json.loads(ask(f"{service.url}/models").body)
        for model in models:
            (role,) = set(model["roles"]) - {"default"}
            for name in (model["name"], role):
                reply = ask(f"{service.url}/encode?quality=7&model={name}", SMALL)
                assert reply.body == written[role]
        assert len({model["id"] for model in models}) == 1
        reply = ask(f"{service.url}/encode?quality=7&model={models[0]['id']}", SMALL)
        assert reply.body == written["base"]

    def test_a_form_holds_the_same(self, service: Running, coded: bytes) -> None:
        form = (
            b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nnothing\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../etc/passwd"\r\n'
            b"Content-Type: image/jpeg\r\n\r\n" + SMALL + b"\r\n--b--\r\n"
        )
        reply = ask(f"{service.url}/encode?bytes=400", form, content_type="multipart/form-data; boundary=b")
        assert (reply.status, reply.body) == (200, coded)

    @pytest.mark.parametrize(("query", "accept", "kind"), [
        ("", "*/*", "PNG"),
        ("", "image/webp", "WEBP"),
        ("", "text/html, image/jpeg;q=0.8, */*;q=0.1", "JPEG"),
        ("?format=jpg&quality=40", "image/png", "JPEG"),
    ])  # fmt: skip
    def test_formats(self, service: Running, coded: bytes, query: str, accept: str, kind: str) -> None:
        reply = ask(f"{service.url}/decode{query}", coded, accept=accept)
        assert reply.status == 200
        with Image.open(io.BytesIO(reply.body)) as image:
            assert (image.format, image.size) == (kind, (160, 160))

    def test_what_is_in_a_file(self, service: Running, coded: bytes) -> None:
        info = json.loads(ask(f"{service.url}/info?symbols=true", coded).body)
        local = dlf.info(coded, symbols=True)
        assert info["file_bytes"] == len(coded)
        assert info["detail_bits"] == pytest.approx(local.detail_bits)
        spent = json.loads(ask(f"{service.url}/bits", coded).body)
        assert np.sum(spent["cells"]) == pytest.approx(local.detail_bits, abs=0.5)
        assert np.sum(spent["windows"]) == pytest.approx(local.token_bits, abs=0.5)
        assert np.shape(spent["cells"]) == (5, 5)

    def test_an_avif_file_to_compare_with(self, service: Running) -> None:
        reply = ask(f"{service.url}/avif?bytes=700", SMALL)
        if reply.status == 415:
            pytest.skip("Pillow has no AVIF here")
        assert reply.status == 200
        assert len(reply.body) <= 700
        with Image.open(io.BytesIO(reply.body)) as image:
            assert image.format == "AVIF"
        assert "AVIF" in sentence(ask(f"{service.url}/avif?bytes=20", SMALL))

    def test_what_there_is(self, service: Running) -> None:
        models = json.loads(ask(f"{service.url}/models").body)
        assert [model["name"] for model in models if model["default"]] == [dlf.models()[0].name]
        assert not any("folder" in model for model in models)
        limits = json.loads(ask(f"{service.url}/limits").body)
        assert (limits["max_bytes"], limits["max_pixels"]) == (LIMIT, 2_000_000)
        assert json.loads(ask(f"{service.url}/health").body) == {"status": "alive"}
        assert json.loads(ask(f"{service.url}/ready").body) == {"status": "ready", "workers": 1}

    def test_numbers_for_prometheus(self, service: Running, coded: bytes) -> None:
        text = ask(f"{service.url}/metrics").body.decode()
        assert 'dlf_requests_total{route="/encode",status="200"}' in text
        assert "dlf_workers_ready 1.0" in text
        assert 'dlf_work_seconds_count{task="Encode"}' in text

    def test_the_description_names_every_route(self, service: Running) -> None:
        service.wait_for_workers(1)
        described = json.loads(ask(f"{service.url}/openapi.json").body)
        assert described == json.loads(json.dumps(document(dlf.__version__)))
        for path, methods in described["paths"].items():
            reply = ask(service.url + path, b"" if "post" in methods else None)
            assert reply.status == (422 if "post" in methods else 200), path
        page = ask(f"{service.url}/api").body.decode()
        assert "POST /encode" in page
        assert "//" not in page.replace("<!doctype", "")


def png_bomb(width: int, height: int) -> bytes:
    """A PNG file of one bit a pixel, all of them 0."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((1 + width // 8) * height), 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class TestRefusals:
    @pytest.mark.parametrize(("path", "status", "says"), [
        ("encode?quality=101", 422, "0 to 100"),
        ("encode?quality=-1", 422, "whole number"),
        ("encode?quality=" + "9" * 5000, 422, "whole number"),
        ("encode?quality=1&bytes=900", 422, "not allowed"),
        ("encode?quality=1&quality=2", 422, "twice"),
        ("encode?bytes=3", 422, "bytes"),
        ("encode?bytes=14", 422, "the smallest has"),
        ("encode?bpp=1e400", 422, "number"),
        ("encode?bpp=0", 422, "above 0"),
        ("encode?best=perhaps", 422, "true or false"),
        ("encode?path=/etc/passwd", 422, "no parameter"),
        ("encode?model=no-such", 422, "no model"),
        ("decode?format=tiff", 422, "no format"),
        ("decode?format=png&quality=90", 422, "lossless"),  # although it is no .dlf file: nothing is decoded
        ("decode?format=webp&quality=0", 422, "1 to 100"),
        ("decode", 415, "not a .dlf file"),
        ("info", 415, "not a .dlf file"),
        ("bits", 415, "not a .dlf file"),
        ("avif", 422, "how many bytes"),
    ])  # fmt: skip
    def test_what_makes_no_sense(self, service: Running, path: str, status: int, says: str) -> None:
        reply = ask(f"{service.url}/{path}", SMALL)
        assert (reply.status, says in sentence(reply)) == (status, True), reply.body

    def test_no_picture(self, service: Running) -> None:
        for body in (b"hello", bytes(1000), SMALL[:500], b"DLF", b"%PDF-1.7\n" + bytes(99)):
            reply = ask(f"{service.url}/encode", body)
            assert reply.status == 415, body[:10]
            assert sentence(reply)
        assert ask(f"{service.url}/encode", b"").status == 422

    def test_damaged_files(self, service: Running, coded: bytes) -> None:
        for body in (coded[:-1], coded + b"x", coded[:40] + b"\xff" + coded[41:], b"DLF" + bytes(20)):
            assert ask(f"{service.url}/decode", body).status == 422

    def test_a_picture_too_wide_for_its_format(self, service: Running) -> None:
        file = io.BytesIO()
        Image.new("L", (16384, 1)).save(file, "PNG")
        wide = ask(f"{service.url}/encode?quality=0", file.getvalue()).body
        reply = ask(f"{service.url}/decode?format=webp", wide)
        assert (reply.status, "webp" in sentence(reply)) == (422, True), reply.body

    def test_a_type_that_nobody_accepts(self, service: Running, coded: bytes) -> None:
        reply = ask(f"{service.url}/decode", coded, accept="text/html, image/*;q=0")
        assert (reply.status, "image/png" in sentence(reply)) == (406, True)

    def test_too_many_pixels(self, service: Running) -> None:
        bomb = png_bomb(20000, 10000)  # 200 megapixels in a few kilobytes
        assert len(bomb) < 100_000
        reply = ask(f"{service.url}/encode", bomb)
        assert (reply.status, "20000x10000" in sentence(reply)) == (413, True)

    def test_too_many_bytes(self, service: Running) -> None:
        reply = ask(f"{service.url}/encode", bytes(10_000_000))
        assert (reply.status, "3,000,000 bytes" in sentence(reply)) == (413, True)
        assert ask(f"{service.url}/encode", bytes(LIMIT)).status == 415  # read, and no picture

    def test_a_long_body_is_refused_before_it_came(self, service: Running) -> None:
        """Whether its length is promised or not."""
        head = b"POST /encode HTTP/1.1\r\nHost: x\r\n"
        with socket.create_connection(("127.0.0.1", service.port), 10) as link:
            link.sendall(head + b"Content-Length: 99999999999\r\n\r\n")
            assert link.recv(100).startswith(b"HTTP/1.1 413 ")
        with socket.create_connection(("127.0.0.1", service.port), 10) as link:
            link.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(LIMIT // 100_000 + 2):
                link.sendall(b"186a0\r\n" + bytes(100_000) + b"\r\n")
            assert link.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_kinds_of_bodies_that_are_not_read(self, service: Running) -> None:
        assert ask(f"{service.url}/encode", SMALL, content_encoding="gzip").status == 415
        form = "multipart/form-data; boundary=b"
        for body, content_type in (
            (SMALL, form),
            (b"--b\r\n\r\n--b--\r\n", form),
            (b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--\r\n", form),
            (SMALL, "multipart/form-data"),
        ):
            assert ask(f"{service.url}/encode", body, content_type=content_type).status == 422

    def test_methods_and_names(self, service: Running) -> None:
        reply = ask(f"{service.url}/encode")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        for path in ("nothing", "encode/", "static", "decoder/none.js"):
            assert ask(f"{service.url}/{path}").status == 404
        assert ask(f"{service.url}/models", b"x").status == 405


class TestPagesOfOthers:
    def test_headers_of_safety(self, service: Running) -> None:
        for path in ("/", "/models", "/nothing", "/api", "/app.js"):
            headers = ask(service.url + path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe-inline" not in policy
            assert "'unsafe-eval'" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in headers
            assert "server" not in headers

    def test_they_are_not_let_in(self, service: Running) -> None:
        foreign = {"origin": "https://example.org", "sec_fetch_site": "cross-site"}
        assert ask(f"{service.url}/encode", SMALL, **foreign).status == 403
        assert ask(f"{service.url}/encode", SMALL, sec_fetch_site="same-origin").status == 200

    def test_browsers_that_name_the_origin_alone(self, service: Running) -> None:
        """On plain HTTP from another machine they send no Sec-Fetch-Site."""
        for origin, status in (
            (service.url, 200),
            (service.url.replace("http:", "https:"), 200),
            ("https://example.org", 403),
            ("http://127.0.0.1:1", 403),
            ("null", 403),
        ):
            assert ask(f"{service.url}/encode", SMALL, origin=origin).status == status, origin

    @pytest.mark.parametrize(("host", "status"), [
        ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("localhost", 200), ("dlf:8000", 200),
        ("camera.local", 200), ("example.org", 421), ("example.org:8000", 421), ("EXAMPLE.org.", 421),
        ("127.0.0.1.example.org", 421),
    ])  # fmt: skip
    def test_names_that_others_give_this_machine(self, service: Running, host: str, status: int) -> None:
        """A page may let its own name lead here: to the browser its origin is then the service's."""
        for path, body in (("/health", None), ("/", None), ("/info", b"x")):
            reply = ask(f"{service.url}{path}", body, host=host, sec_fetch_site="same-origin")
            assert (reply.status == 421) == (status == 421), (path, reply)
        if status == 421:
            assert "--host-name" in sentence(reply)

    def test_unless_named(self, tmp_path: Path) -> None:
        with serving(
            tmp_path, "--workers", "1", "--cors", "https://example.org", "--host-name", "Example.net"
        ) as running:
            assert ask(f"{running.url}/health", host="example.net:80").status == 200
            assert ask(f"{running.url}/health", host="example.org").status == 421
            foreign = {"origin": "https://example.org", "sec_fetch_site": "cross-site"}
            reply = ask(f"{running.url}/encode?quality=x", b"x", **foreign)
            assert reply.status == 422
            assert reply.headers["access-control-allow-origin"] == "https://example.org"
            others = foreign | {"origin": "https://example.com"}
            assert ask(f"{running.url}/encode?quality=x", b"x", **others).status == 403


class TestFilesOfTheServer:
    """No name in a request is ever a name of a file."""

    @pytest.mark.parametrize("path", [
        "/../pyproject.toml", "/../../../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fapi.py", "/decoder/../../api.py", "//etc/passwd", "/%2fetc%2fpasswd", "/..\\..\\api.py",
        "/.%00/../api.py", "/app.js%00.html", "/" + "a" * 5000, "/%ff%fe", "/../assets/default/manifest.json",
    ])  # fmt: skip
    def test_paths(self, service: Running, path: str) -> None:
        with socket.create_connection(("127.0.0.1", service.port), 10) as link:
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            reply = b"".join(iter(lambda: link.recv(65536), b""))
        assert reply.split()[1] in (b"404", b"400")
        assert b"root:" not in reply
        assert b"import" not in reply

    def test_models_and_bodies(self, service: Running, tmp_path: Path) -> None:
        base = dlf.models()[1].folder
        (tmp_path / "a.dlf").write_bytes(b"DLF")
        for model in (str(base), "../base", "/etc", "."):
            reply = ask(f"{service.url}/encode?model={model}", SMALL)
            assert (reply.status, "no model" in sentence(reply)) == (422, True)
        for body in (str(tmp_path / "a.dlf"), "/etc/passwd", "file:///etc/passwd"):
            assert ask(f"{service.url}/decode", body.encode()).status == 415
            assert ask(f"{service.url}/encode", body.encode()).status == 415

    def test_the_log_has_one_line_for_each(self, service: Running) -> None:
        ask(f"{service.url}/%0aGET%20forged%1b[31m")
        assert "\nGET forged" not in service.said()
        assert "\x1b" not in service.said()


@pytest.mark.parametrize(("options", "code", "says"), [
    (("--cors", "example.org"), 2, "'example.org' is not an origin"),
    (("--host-name", "example.org:80"), 2, "'example.org:80' is not the name of a host"),
    (("--max-bytes", "many"), 2, "'many' is not a number of bytes"),
    (("--timeout", "0"), 2, "0"),
    (("--host", "no such host"), 1, "cannot listen on no such host"),
    (("--model", "no-such"), 1, "model 'no-such' is not installed"),
])  # fmt: skip
def test_options_that_make_no_sense(
    options: tuple[str, ...], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--port", "0", *options]) == code
    assert says in capsys.readouterr().err
