"""What the decoder in JavaScript refuses, and how: as Python does."""

from __future__ import annotations

import base64
from pathlib import Path
from random import Random

import pytest

from dlf.bitstream import container
from dlf.bitstream.header import Header
from dlf.bitstream.metadata import pack
from dlf.codec import bundle
from dlf.errors import DlfError
from dlf.limits import MAX_PIXELS, MAX_SIDE
from dlf.records import Metadata
from web_decoder import Driver, kind, make_site, receiver_of, sha

GOLDEN = Path(__file__).parents[1] / "golden"


def with_metadata() -> bytes:
    blob = pack(Metadata(b"profile", b"exif" * 40, None, (72.0, 300.5)))
    return container.dump(container.seal(Header(4, 50, 30, 40, True), b"pay", "8b" * 32, blob))


def test_container(driver: Driver) -> None:
    data = with_metadata()
    answer = driver.ask("parse", bytes=data)
    assert answer["header"]["headerBytes"] == 8
    assert {"width": 30, "height": 40, "quality": 50, "model": 4}.items() <= answer["header"].items()
    assert answer["sizes"]["payloadBytes"] == 3
    assert answer["metadata"] == {
        "icc": base64.b64encode(b"profile").decode(), "exif": base64.b64encode(b"exif" * 40).decode(),
        "xmp": None, "dpi": [72.0, 300.5],
    }  # fmt: skip


def test_limit(driver: Driver) -> None:
    """It is that of Python."""
    for width, height in [(2**13, 2**12), (2**13 + 1, 2**12), (2**16, 1), (2**16 + 1, 1)]:
        data = container.dump(container.seal(Header(5, 50, width, height), b"", "8b" * 32))
        within = width * height <= MAX_PIXELS and width <= MAX_SIDE
        assert driver.ask("parse", bytes=data).get("error") == (None if within else "limit")


def test_damaged_containers(driver: Driver) -> None:
    """Whatever Python says of the header and the metadata, JavaScript says too."""
    random, whole = Random(5), [with_metadata(), (GOLDEN / "small-v1.dlf").read_bytes()[:40]]
    tried = [data[:length] for data in whole for length in range(len(data))]
    for _ in range(150):
        data = bytearray(random.choice(whole))
        for _ in range(random.choice([1, 1, 2])):
            data[random.randrange(min(len(data), 60))] = random.choice([0, 1, 2, 127, 128, 255])
        tried.append(bytes(data))
    refused = set()
    for data in tried:
        try:
            container.load(data).metadata  # noqa: B018
            wanted = None
        except DlfError as error:
            wanted = kind(error)
        assert driver.ask("parse", bytes=data).get("error") == wanted, data
        refused.add(wanted)
    assert refused == {None, "format", "version", "limit"}


def test_damaged_payloads(driver: Driver) -> None:
    """Under a checksum that fits, whatever Python says of the payload, JavaScript says too."""
    stream = container.load((GOLDEN / "small-v1.dlf").read_bytes())
    model, random = bundle.find(stream.header.model), Random(3)
    codec, payload = receiver_of(model.folder), stream.payload
    tried = [b"", payload[:-1], payload + b"\1", payload[:40], b"\xff" * 50]
    for _ in range(6):
        at = random.randrange(len(payload))
        tried.append(payload[:at] + bytes([payload[at] ^ random.randrange(1, 256)]) + payload[at + 1 :])
    for damaged in tried:
        sealed = container.seal(stream.header, damaged, model.manifest.numerics)
        answer = driver.ask("receive", bytes=container.dump(sealed))
        try:
            wanted = {"tokens": sha(codec.receive(sealed).tokens)}
        except DlfError as error:
            wanted = {"error": kind(error)}
        assert wanted.items() <= answer.items()


def test_other_refusals(driver: Driver, tmp_path: Path) -> None:
    data = (GOLDEN / "small-v1.dlf").read_bytes()
    out = str(tmp_path / "picture")
    flipped = data[:60] + bytes([data[60] ^ 1]) + data[61:]
    answer = driver.ask("decode", bytes=flipped, out=out)
    assert answer["error"] == "checksum"
    assert "damaged, or written with another model of the number 5" in answer["message"]
    answer = driver.ask("decode", bytes=data[:4] + b"\x63" + data[5:], out=out)
    assert answer["error"] == "unknown-model"
    assert "number 99" in answer["message"]
    answer = driver.ask("decode", bytes=data, maxPixels=63_999, out=out)
    assert answer["error"] == "limit"
    assert "320x200, above the limit of 63,999 pixels" in answer["message"]
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        # what onnxruntime-web says of a picture of 16384x16384 pixels in one tile, and browsers of arrays
        ("failed to call OrtRun(). ERROR_CODE: 6, ERROR_MESSAGE: std::bad_alloc", "memory"),
        ("Array buffer allocation failed", "memory"),
        ("Invalid typed array length: 9000000000", "memory"),
        ("failed to call OrtRun(). ERROR_CODE: 2, ERROR_MESSAGE: Invalid rank for input", "bundle"),
    ],
)
def test_errors_of_the_runtime(message: str, wanted: str, driver: Driver) -> None:
    assert driver.ask("explain", message=message)["error"] == wanted


def test_damaged_models(tmp_path: Path) -> None:
    make_site(tmp_path, [bundle.find("fast")])
    graph = tmp_path / "models" / "fast" / "prior.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + b"x")
    driver = Driver(tmp_path)
    data = (GOLDEN / "small-v1.dlf").read_bytes()
    out = str(tmp_path / "picture")
    answer = driver.ask("decode", bytes=data, out=out)
    assert answer["error"] == "bundle"
    assert "prior.onnx" in answer["message"]
    graph.unlink()
    answer = driver.ask("decode", bytes=data, out=out)
    assert answer["error"] == "bundle"
    assert "no such file" in answer["message"]
    # whoever tries again once the file is there gets the picture
    graph.write_bytes(whole)
    answer = driver.ask("decode", bytes=data, out=out)
    driver.close()
    assert answer["width"] == 320
