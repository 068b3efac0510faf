"""How networks come to be: beside each other, once, on an accelerator; and many images at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf.cli.main import main
from dlf.codec import bundle, engine_times, onnx_backend, openvino_engine
from dlf.codec.backend import Network
from dlf.codec.engine import TO_DECODE, EngineOptions
from dlf.codec.many import in_order
from dlf.codec.onnx_backend import OnnxBackend
from shipped_models import needs_models

PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"
GOLDEN = Path(__file__).parents[1] / "golden"

pytestmark = needs_models


def make(build: Callable[..., Network], soon: tuple[str, ...] = (), threads: int = 2) -> OnnxBackend:
    found = bundle.find()
    return OnnxBackend(found, found.tables(), threads, build, soon)


def test_networks_are_built_beside_each_other_and_once() -> None:
    """All three wait for one another, which they could not one after the other."""
    built: list[str] = []
    together = threading.Barrier(3, timeout=30)

    def build(graph: str, data: bytes, plain: Callable[[], Network]) -> Network:
        together.wait()
        built.append(graph)
        return Network((), lambda *_: [])

    backend = make(build, TO_DECODE)
    backend.prepare(TO_DECODE)
    for graph in TO_DECODE:
        assert backend._network(graph) is backend._network(graph)
    assert sorted(built) == sorted(TO_DECODE)


def test_one_thread_prepares_nothing() -> None:
    built: list[str] = []

    def build(graph: str, data: bytes, plain: Callable[[], Network]) -> Network:
        built.append(graph)
        return Network((), lambda *_: [])

    backend = make(build, TO_DECODE, threads=1)
    assert built == []
    backend._network("prior")
    assert built == ["prior"]


def test_a_network_that_fails_is_tried_again() -> None:
    attempts: list[str] = []

    def build(graph: str, data: bytes, plain: Callable[[], Network]) -> Network:
        attempts.append(graph)
        if len(attempts) == 1:
            msg = "not now"
            raise RuntimeError(msg)
        return Network((), lambda *_: [])

    backend = make(build)
    with pytest.raises(dlf.BundleError, match=r"prior network cannot be loaded \(not now\)"):
        backend._network("prior")
    backend._network("prior")
    assert attempts == ["prior", "prior"]


def test_preloading_changes_nothing() -> None:
    with Image.open(PHOTO) as photo:
        image = photo.convert("RGB").resize((96, 64))
    codec = dlf.Codec(threads=2)
    codec.preload(encode=True, decode=True)
    data = codec.encode(image)
    assert data == dlf.Codec(threads=1).encode(image)
    assert codec.decode(data).size == image.size
    codec.preload(decode=True, model="fast")
    with pytest.raises(dlf.UnknownModel):
        codec.preload(model="none-such")


@pytest.mark.parametrize(("options", "role"), [((), "base"), (("--model", "fast"), "fast")])
def test_decode_builds_the_networks_of_the_model_that_paints(
    options: tuple[str, ...], role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the number that the file names."""
    opened: list[Path] = []
    read = bundle.ModelBundle.read

    def noted(self: bundle.ModelBundle, name: str) -> bytes:
        opened.append(self.folder)
        return read(self, name)

    monkeypatch.setattr(bundle.ModelBundle, "read", noted)
    coded = GOLDEN / "small-v1.dlf"
    assert main(["decode", str(coded), "-o", str(tmp_path / "out.png"), *options]) == 0
    assert set(opened) == {bundle.find(role).folder}


def test_directions_may_be_preloaded_one_after_the_other() -> None:
    codec = dlf.Codec(threads=2)
    codec.preload(encode=True)
    codec.preload(decode=True)
    backend = codec._models.ready()._backend
    assert isinstance(backend, OnnxBackend)
    assert set(backend._networks) == {"analysis", "synthesis", "prior", "context"}


def test_many_images_are_those_of_one_at_a_time() -> None:
    with Image.open(PHOTO) as photo:
        images = [photo.convert("RGB").crop((40 * i, 0, 40 * i + 64, 96)) for i in range(6)]
    codec = dlf.Codec(engine=EngineOptions(threads=2, engine="onnxruntime"))
    files = list(codec.encode_many(iter(images), 40))
    assert files == [codec.encode(image, 40) for image in images]
    painted = list(codec.decode_many(files))
    for one, data in zip(painted, files, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(codec.decode(data)))
    several = codec.decode_many([files[0], b"no file", files[1]])
    assert next(several).size == (64, 96)
    with pytest.raises(dlf.FormatError):
        next(several)


def test_results_come_in_order_and_items_a_few_ahead() -> None:
    taken: list[int] = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda number: number * number, items(), 2)  # type: ignore[arg-type]
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 8
    results.close()  # type: ignore[attr-defined]
    assert list(in_order(str, [1, 2], 1)) == ["1", "2"]


def test_an_accelerator_runs_the_networks_of_pixels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor stands in for it."""
    asked: list[str] = []
    whole = onnx_backend.open_session

    def open_session(*arguments: object, **options: object) -> object:
        asked.append(str(options.get("provider", "none")))
        return whole(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_backend, "open_session", open_session)
    monkeypatch.setitem(onnx_backend.PROVIDERS, "cuda", "CPUExecutionProvider")
    with Image.open(PHOTO) as photo:
        image = photo.convert("RGB").resize((96, 64))
    codec = dlf.Codec(engine=EngineOptions(threads=1, engine="cuda"))
    data = codec.encode(image)
    codec.decode(data)
    assert sorted(asked) == ["CPUExecutionProvider", "CPUExecutionProvider", "none", "none"]
    assert data == dlf.Codec(engine=EngineOptions(threads=1, engine="onnxruntime")).encode(image)


def test_an_accelerator_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_backend.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    codec = dlf.Codec(engine=EngineOptions(engine="directml"))
    with pytest.raises(dlf.EngineError, match="no DmlExecutionProvider here; onnxruntime-directml has it"):
        codec.encode(Image.new("RGB", (32, 32)))
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: False)
    rows = {
        row.engine: row for row in engine_times.measure(bundle.find("fast"), 32, 32, threads=1, repeats=1)
    }
    assert rows["onnxruntime"].analysis is not None
    assert rows["cuda"].version is None
    assert rows["cuda"].missing is not None
    assert main(["engines", "--model", "fast", "--size", "32x32", "--threads", "1", "--repeats", "1"]) == 0
    assert "coreml: ONNX Runtime has no CoreMLExecutionProvider here" in capsys.readouterr().out


def test_importing_the_package_imports_nothing_else_that_is_slow() -> None:
    code = "import sys; before = set(sys.modules); import dlf; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:  # an editable install is found by `site`
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"dlf", "dlf.errors", "__future__", "errno"}
