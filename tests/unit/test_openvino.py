"""OpenVINO beside ONNX Runtime: other pixels by a little, never other symbols; a guest that tells nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf.bitstream import container
from dlf.cli.main import main
from dlf.codec import bundle, onnx_backend, openvino_engine
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import EngineOptions, make_backend
from dlf.records import UInt8
from shipped_models import needs_models

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
ROLES = [role for role in bundle.shipped_roles() if role != "default"]

pytestmark = [
    pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed"),
    needs_models,
]

OPENVINO = EngineOptions(threads=2, engine="openvino")
EXACT = EngineOptions(threads=2, engine="openvino", precision="float32")
ONNXRUNTIME = EngineOptions(threads=2, engine="onnxruntime")


@pytest.fixture(scope="module")
def rgb() -> UInt8:
    with Image.open(ROOT / "tests" / "data" / "astronaut.jpg") as image:
        return np.asarray(image.convert("RGB").resize((320, 200), Image.Resampling.LANCZOS))


def difference(a: object, b: object) -> float:
    """Root mean square, in grey levels."""
    return float(np.sqrt(((np.asarray(a, float) - np.asarray(b, float)) ** 2).mean()))


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*arguments: object) -> Done:
        code = main(list(map(str, arguments)))
        return Done(code, *capsys.readouterr())

    return run


def stream_codec(role: str | None, options: EngineOptions) -> StreamCodec:
    model = bundle.find(role)
    tables = model.tables()
    return StreamCodec(model.manifest, tables, make_backend(model, tables, options))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("options", [OPENVINO, EXACT], ids=["default", "float32"])
def test_what_one_engine_writes_the_other_reads(role: str, options: EngineOptions, rgb: UInt8) -> None:
    """The same symbols, and nearly the same image."""
    codecs = [stream_codec(role, each) for each in (ONNXRUNTIME, options)]
    for sender in codecs:
        stream = container.load(container.dump(sender.encode_rgb(rgb, 50)))
        first, second = (codec.receive(stream) for codec in codecs)
        np.testing.assert_array_equal(first.tokens, second.tokens)
        np.testing.assert_array_equal(first.y_hat, second.y_hat)
        images = [codec.decode_stream(stream) for codec in codecs]
        assert 0 < difference(*images) < (0.05 if options is EXACT else 2)


@pytest.mark.parametrize("name", [path.name for path in sorted(GOLDEN.glob("*-v*.dlf"))])
def test_committed_files_give_the_committed_symbols(name: str) -> None:
    stream = container.load((GOLDEN / name).read_bytes())
    model = bundle.find(stream.header.model)
    tables = model.tables()
    found = StreamCodec(model.manifest, tables, make_backend(model, tables, OPENVINO)).receive(stream)
    symbols = found.tokens.astype("<i4").tobytes() + found.y_hat.astype("<f4").tobytes()
    assert symbols == (GOLDEN / f"{name}.symbols").read_bytes()
    images = [dlf.Codec(engine=each).decode(GOLDEN / name) for each in (ONNXRUNTIME, EXACT)]
    assert difference(*images) < 0.05


def test_the_networks_of_symbols_never_go_to_openvino(rgb: UInt8, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, kept = [], []
    compile_, open_ = openvino_engine._compile, onnx_backend.open_session
    monkeypatch.setattr(
        openvino_engine, "_compile", lambda *given: compiled.append(given[0]) or compile_(*given)
    )
    monkeypatch.setattr(onnx_backend, "open_session", lambda *given: kept.append(given[0]) or open_(*given))
    codec = dlf.Codec(engine=OPENVINO)
    codec.decode(codec.encode(rgb))
    model = bundle.find(None)
    assert sorted(compiled) == sorted(model.read(f"{graph}.onnx") for graph in ("analysis", "synthesis"))
    assert sorted(kept) == sorted(model.read(f"{graph}.onnx") for graph in ("prior", "context"))


def test_several_threads_may_use_one_codec(rgb: UInt8) -> None:
    codec = dlf.Codec(engine=EngineOptions(threads=1, engine="openvino"))
    images = [rgb, rgb[:100], rgb[:, :90], rgb[:33, :40]] * 2
    with ThreadPoolExecutor(4) as pool:
        streams = list(pool.map(codec.encode, images))
        decoded = list(pool.map(codec.decode, streams))
    assert streams == [codec.encode(image) for image in images]
    assert decoded == [codec.decode(stream) for stream in streams]


class TestOfItself:
    """What happens when nobody chooses."""

    def test_painting_moves_over_when_it_pays_and_encoding_never(
        self, rgb: UInt8, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "bfloat16" not in openvino_engine.precisions():
            pytest.skip("the processor has no bfloat16")
        compiled = []
        compile_ = openvino_engine._compile
        monkeypatch.setattr(
            openvino_engine, "_compile", lambda *given: compiled.append(given) or compile_(*given)
        )
        monkeypatch.setattr(openvino_engine, "PAYS_AFTER", 3 * 320 * 224)
        codec = dlf.Codec(threads=2)
        data = codec.encode(rgb)
        images = [codec.decode(data) for _ in range(5)]
        assert images[0] == images[1] == images[2] != images[3] == images[4]
        assert difference(images[0], images[4]) < 2
        assert codec.encode(rgb) == data
        assert len(compiled) == 1

    @pytest.mark.parametrize("trouble", ["processor", "openvino"])
    def test_it_stays_where_nothing_is_gained(
        self, trouble: str, rgb: UInt8, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(openvino_engine, "PAYS_AFTER", 1)

        def fails(*given: object) -> None:
            msg = "no such operation"
            raise RuntimeError(msg)

        monkeypatch.setattr(openvino_engine, "_compile", fails)
        able = ("float32",) if trouble == "processor" else ("float32", "bfloat16")
        monkeypatch.setattr(openvino_engine, "precisions", lambda: able)
        codec = dlf.Codec(threads=2)
        data = codec.encode(rgb)
        assert codec.decode(data) == codec.decode(data)
        with pytest.raises(dlf.BundleError, match="analysis network cannot be loaded"):
            dlf.Codec(engine=OPENVINO).encode(rgb)

    def test_without_openvino(self, rgb: UInt8, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        openvino_engine.precisions.cache_clear()
        dlf.Codec(threads=2).encode(rgb)
        with pytest.raises(dlf.MissingExtra, match=r"pip install 'dlf-codec\[openvino\]'"):
            dlf.Codec(engine=OPENVINO).encode(rgb)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_goes_on_in_onnx_runtime() -> None:
    """Also where the parent has not finished, and the child comes to its end."""
    code = """
        import os, sys, warnings
        import numpy, dlf

        warnings.simplefilter("ignore")  # some Pythons warn of every fork beside threads
        rgb = numpy.arange(6000, dtype=numpy.uint8).reshape(40, 50, 3)
        codec = dlf.Codec(threads=2, engine=dlf.EngineOptions(engine="openvino"))
        data = codec.encode(rgb)
        image = codec.decode(data)
        child = os.fork()
        if child:
            assert codec.encode(rgb) == data
            assert os.waitpid(child, 0)[1] == 0
        else:
            assert codec.encode(rgb) == dlf.encode(rgb)
            opened = dlf.Codec(engine=codec._models.engine).decode(data)
            assert codec.decode(data).size == opened.size == (50, 40)
            sys.exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_options_that_do_not_fit() -> None:
    for options, match in (
        (EngineOptions(engine="openvino", precision="int8"), "computes in float32.* not in int8"),
        (EngineOptions(engine="openvino", device="cuda"), "on the processor only"),
        (EngineOptions(engine="onnxruntime", precision="bfloat16"), "in its own precision only"),
    ):
        with pytest.raises(dlf.EngineError, match=match):
            stream_codec(None, options)


def test_the_command_line(run_cli: Callable[..., Done], tmp_path: Path, rgb: UInt8) -> None:
    source, stream = tmp_path / "a.png", tmp_path / "a.dlf"
    Image.fromarray(rgb).save(source)
    assert run_cli("encode", source, "--engine", "openvino", "--precision", "float32").code == 0
    assert dlf.info(stream).checked
    assert run_cli("decode", stream, "-o", tmp_path / "b.png", "--engine", "openvino").code == 0
    refused = run_cli(
        "decode", stream, "-o", tmp_path / "c.png", "--engine", "openvino", "--precision", "int8"
    )
    assert refused.code == 2
    assert "--precision, --engine: OpenVINO computes in float32" in refused.err


def test_engines_are_listed_with_times(run_cli: Callable[..., Done]) -> None:
    listed = run_cli("engines", "--size", "64x64", "--repeats", "1", "--json")
    assert listed.code == 0
    rows = [json.loads(line) for line in listed.out.splitlines()]
    here = [row for row in rows if row["missing"] is None]
    assert [(row["engine"], row["precision"]) for row in here] == [
        ("onnxruntime", "float32"),
        *(("openvino", precision) for precision in openvino_engine.precisions()),
    ]
    assert all(row[graph]["best"] > 0 for row in here for graph in ("analysis", "synthesis"))
    assert {row["engine"] for row in rows if row["missing"]} <= {"cuda", "coreml", "directml"}


def test_engines_that_are_not_installed_are_listed(
    run_cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: False)
    listed = run_cli("engines", "--size", "64x64", "--repeats", "1")
    assert listed.code == 0
    lines = listed.out.splitlines()
    assert lines[1].split()[:3:2] == ["onnxruntime", "float32"]
    assert "openvino" in lines[2]
    assert "pip install 'dlf-codec[openvino]'" in lines[2]
    assert run_cli("engines", "--size", "9000x9").code == 2
