"""The second decoder reads what the first one does, and needs only numpy for it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf.bitstream import container
from dlf.cli.main import main
from dlf.codec import bundle
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.onnx_backend import OnnxBackend, open_session
from dlf.entropy.coder import SymbolReader, SymbolWriter
from dlf.entropy.gaussian import exchange_symbols
from dlf.entropy.tables import Tables, gaussian_frequencies
from dlf.errors import BundleError, ChecksumError, FormatError
from dlf.records import UInt8
from dlf.reference.decoder import _Walk, decode_symbols
from dlf.reference.fixed import Fixed
from dlf.reference.model import ReferenceModel
from dlf.reference.network import Network
from dlf.reference.onnx_file import read_graph
from dlf.reference.range_decoder import RangeDecoder, ends_of
from shipped_models import NAMES, needs_models

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def astronaut(width: int, height: int) -> UInt8:
    with Image.open(ROOT / "tests" / "data" / "astronaut.jpg") as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))


def check_equal(folder: Path, data: bytes) -> None:
    """Both decoders find the same in a file, to the last bit."""
    opened, stream = ModelBundle.open(folder), container.load(data)
    tables = opened.tables()
    wanted = StreamCodec(opened.manifest, tables, OnnxBackend(opened, tables, 1)).receive(stream)
    found = decode_symbols(stream, ReferenceModel.open(folder))
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_array_equal(found.details, wanted.details)
    np.testing.assert_array_equal(found.y_hat, wanted.y_hat)
    np.testing.assert_allclose(found.token_cost, wanted.token_cost, atol=1e-9)
    np.testing.assert_allclose(found.detail_cost, wanted.detail_cost, atol=1e-9)


@pytest.mark.parametrize("folder", NAMES)
@pytest.mark.parametrize(
    ("size", "quality"), [((1, 1), 50), ((33, 300), 0), ((300, 420), 50), ((290, 120), 100)]
)
def test_both_decoders_read_the_same(folder: str, size: tuple[int, int], quality: int) -> None:
    codec = dlf.Codec(bundle.ASSETS / folder, threads=2)
    check_equal(bundle.ASSETS / folder, codec.encode(astronaut(*size), quality))


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["tiny", "tiny_v2"])
def test_options_of_the_tables(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Other units, padding, and a checksum behind the symbols."""
    folder = tmp_path / "other"
    shutil.copytree(request.getfixturevalue(f"{kind}_bundle"), folder)
    with np.load(folder / "tables.npz") as file:
        arrays = dict(file)
    options = {"mean_unit": 8, "step_unit": 32, "padding": 96, "symbol_sum": 1}
    arrays |= {name: np.array(value, np.int64) for name, value in options.items()}
    np.savez(folder / "tables.npz", **arrays)  # type: ignore[arg-type]
    reseal(folder)
    data = dlf.Codec(folder, threads=1).encode(astronaut(90, 130), 70)
    check_equal(folder, data)
    other = container.load(data)
    end = bytearray(other.payload)
    end[-2] ^= 1  # within the sum
    damaged = container.seal(other.header, bytes(end), ModelBundle.open(folder).manifest.numerics)
    with pytest.raises(FormatError):
        decode_symbols(damaged, ReferenceModel.open(folder))


def reseal(folder: Path) -> None:
    """Bring the hashes of a folder's manifest up to date."""
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest["numerics"] = bundle.numerics_id(manifest["files"])
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", [path.name for path in sorted(GOLDEN.glob("*-v*.dlf"))])
def test_golden_files(name: str) -> None:
    stream = container.load((GOLDEN / name).read_bytes())
    model = ReferenceModel.open(bundle.find(stream.header.model).folder)
    found = decode_symbols(stream, model)
    symbols = found.tokens.astype("<i4").tobytes() + found.y_hat.astype("<f4").tobytes()
    assert symbols == (GOLDEN / f"{name}.symbols").read_bytes()


@pytest.mark.parametrize("folder", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (9, 17)])
def test_networks_give_the_same_integers(folder: str, size: tuple[int, int]) -> None:
    """On numbers of any size that the format allows, far beyond those of pictures."""
    rng = np.random.default_rng(sum(size))
    opened = ModelBundle.open(bundle.ASSETS / folder)
    channels, shape = opened.manifest.channels, (1, opened.manifest.channels, *size)
    windows = -(-size[0] // 8), -(-size[1] // 8)
    tokens = rng.integers(-1, opened.manifest.codes, (*windows, opened.manifest.tokens))
    inputs = {
        "prior": {"prior": rng.integers(-255, 256, shape).astype(np.int32), "tokens": tokens},
        "context": {
            "y_hat": rng.integers(-(2**19), 2**19, shape).astype(np.int32),
            "common": rng.integers(-255, 256, shape).astype(np.int32),
            "index": rng.integers(0, 3, ()),
        },
    }
    for name, given in inputs.items():
        data = opened.read(f"{name}.onnx")
        network, session = Network(read_graph(data)), open_session(data, 1)
        assert session.get_inputs()[0].shape[1] == channels
        feeds = {key: x if x.dtype == np.int64 else x.astype(np.float32) for key, x in given.items()}
        wanted = session.run(network.outputs, {key: feeds[key] for key in network.inputs})
        values = {key: x if x.dtype == np.int64 else Fixed(x) for key, x in given.items()}
        for a, b in zip(network.run(network.outputs, values), wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def random_payload(rng: np.random.Generator, symbols: int) -> tuple[bytes, list[list[int]], list[int]]:
    """A payload, and the table and the value of each symbol in it."""
    writer, tables, values = SymbolWriter(), [], []
    for _ in range(symbols):
        size = int(rng.integers(2, 50))
        weights = rng.exponential(size=size) ** 6
        frequency = 1 + np.floor(weights / weights.sum() * (2**16 - size)).astype(np.uint32)
        frequency[-1] += 2**16 - frequency.sum()
        value = int(rng.choice(size, p=frequency / 2**16))
        writer.exchange(np.array([value], np.int32), frequency)
        tables.append(frequency.tolist())
        values.append(value)
    return writer.finish(), tables, values


def read_first(data: bytes, tables: list[list[int]]) -> list[int] | None:
    reader = SymbolReader(data)
    try:
        one = np.zeros(1, np.int32)
        found = [int(reader.exchange(one, np.array(table, np.uint32))[0]) for table in tables]
        reader.finish()
    except FormatError:
        return None
    return found


def read_second(data: bytes, tables: list[list[int]]) -> list[int] | None:
    reader = RangeDecoder(data)
    try:
        found = [reader.symbol(ends_of(table)) for table in tables]
        reader.finish()
    except FormatError:
        return None
    return found


@pytest.mark.parametrize("seed", range(6))
def test_range_decoder_takes_and_refuses_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    accepted = 0
    for _ in range(12):
        data, tables, values = random_payload(rng, int(rng.integers(0, 12)))
        assert read_second(data, tables) == values
        others = [data + b"\0", data + b"\1", data[:-1], b"", b"\xff" * 9, bytes(rng.bytes(len(data)))]
        for at in range(8 * len(data)):
            changed = bytearray(data)
            changed[at // 8] ^= 1 << at % 8
            others.append(bytes(changed))
        for other in others:
            found = read_second(other, tables)
            assert found == read_first(other, tables)
            accepted += found is not None and other != data
    assert accepted  # some are other symbols' payloads


def test_escapes() -> None:
    arrays = {"gaussian_frequency": gaussian_frequencies(np.array([0.5, 1.0, 3.0]), 4)}
    arrays["scale_bounds"] = np.array([1, 2], np.int32)
    tables = Tables(
        **arrays, token_frequency=np.full((1, 2), 2**15, np.uint32), token_count=np.ones(101, np.uint8),
        prior=np.zeros((101, 1), np.int16),
    )  # fmt: skip
    rng = np.random.default_rng(1)
    scale = rng.integers(0, 3, 90)
    symbols = np.rint(rng.standard_cauchy(90) * 50).clip(-(2**15), 2**15).astype(np.int32)
    symbols[:2], scale[:2] = (2**15, -(2**15)), 2
    writer = SymbolWriter()
    sent = exchange_symbols(writer, symbols, scale.astype(np.int16), tables)
    model = type("Model", (), {"tables": tables})()
    walk = _Walk(RangeDecoder(writer.finish()), model)
    found, bits = walk._read_step(scale)
    np.testing.assert_array_equal(found, sent.symbols)
    np.testing.assert_allclose(bits, sent.bits, atol=1e-9)
    assert (np.abs(found) == 2**15).sum() >= 2


@pytest.mark.parametrize("zeros", [15, 16, 60])
def test_an_endless_escape_is_refused(zeros: int) -> None:
    writer, bit = SymbolWriter(), np.array([2**15, 2**15], np.uint32)
    for each in (0, *[0] * zeros, 1, *[1] * zeros):
        writer.exchange(np.array([each], np.int32), bit)
    tables = {"gaussian_frequency": np.full((1, 4), 2**14), "scale_bounds": np.zeros(0)}
    model = type("Model", (), {"tables": type("Tables", (), tables)})()
    walk = _Walk(RangeDecoder(writer.finish()), model)
    with pytest.raises(FormatError, match="too large"):
        walk._read_large()


@pytest.mark.parametrize("folder", NAMES[:1])
def test_damage_is_refused(folder: str) -> None:
    data = dlf.Codec(bundle.ASSETS / folder, threads=2).encode(astronaut(64, 64), 60)
    model = ReferenceModel.open(bundle.ASSETS / folder)
    stream = container.load(data)
    with pytest.raises(ChecksumError):
        decode_symbols(container.load(data[:-1] + bytes([data[-1] ^ 1])), model)
    for payload in (stream.payload + b"\0", stream.payload + b"\5\0", b"\xff" * 99, b"\0"):
        with pytest.raises(FormatError):
            decode_symbols(container.seal(stream.header, payload, model.numerics), model)
    long = container.seal(stream.header, bytes(range(1, 256)) * 200, model.numerics)
    with pytest.raises(FormatError, match="more than the model has"):
        decode_symbols(long, model)


@needs_models
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = dlf.Codec(threads=2).encode(astronaut(80, 60), 50)
    (tmp_path / "a.dlf").write_bytes(data)
    shown = []
    for engine in ("onnxruntime", "reference"):
        arguments = ["--engine", engine, str(tmp_path / "a.dlf")]
        assert main(["info", "--symbols", "--json", *arguments]) == 0
        shown.append(json.loads(capsys.readouterr().out))
        assert main(["decode", *arguments, "-o", str(tmp_path / f"{engine}.png"), "--quiet"]) == 0
    bits = [[info.pop(name) for name in ("token_bits", "detail_bits", "parts", "settled")] for info in shown]
    assert shown[0] == shown[1]
    assert bits[0][:2] == pytest.approx(bits[1][:2])
    assert len(shown[0]["detail_sha256"]) == 64
    assert (tmp_path / "onnxruntime.png").read_bytes() == (tmp_path / "reference.png").read_bytes()
    assert main(["encode", "--engine", "reference", str(ROOT / "tests" / "data" / "astronaut.jpg")]) == 2
    assert "only decodes" in capsys.readouterr().err
    with pytest.raises(dlf.EngineError, match="only decodes"):
        dlf.Codec(engine=dlf.EngineOptions(engine="reference")).encode(astronaut(8, 8))


@needs_models
def test_a_limit_of_time() -> None:
    data = dlf.Codec(threads=1).encode(astronaut(8, 8))
    engine = dlf.EngineOptions(threads=1, engine="reference")
    assert dlf.Codec(max_seconds=600, engine=engine).info(data, symbols=True).detail_sha256
    with pytest.raises(dlf.LimitExceeded, match="longer than"):
        dlf.Codec(max_seconds=1e-9, engine=engine).info(data, symbols=True)


@needs_models
def test_symbols_need_no_onnxruntime(tmp_path: Path) -> None:
    data = dlf.Codec(threads=2).encode(astronaut(80, 60), 50)
    (tmp_path / "a.dlf").write_bytes(data)
    program = """
        import sys
        sys.modules["onnxruntime"] = None  # importing it fails
        from dlf.cli.main import main
        sys.exit(main(sys.argv[1:]))
    """
    arguments = ["--engine", "reference", str(tmp_path / "a.dlf")]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(program), *words, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = run("info", "--symbols", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["detail_sha256"] == dlf.info(data, symbols=True).detail_sha256
    painted = run("decode", "-o", str(tmp_path / "a.png"))
    assert painted.returncode == 1
    assert "ONNX Runtime cannot be loaded" in painted.stderr
    assert "Traceback" not in painted.stderr
    assert not (tmp_path / "a.png").exists()


def test_reading_symbols_imports_nothing_but_numpy(tmp_path: Path) -> None:
    program = """
        import sys
        import dlf.reference.decoder
        import dlf.reference.model
        others = {"PIL", "click", "constriction", "onnx", "onnxruntime", "rich", "torch", "yaml"}
        print(sorted(others & {name.partition(".")[0] for name in sys.modules}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("folder", NAMES[:1])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "manifest"),
        ({"engine": "torch"}, "manifest"),
        ({"channels": 6}, "manifest"),
        ({"channels": True}, "manifest"),
        ({"numerics": "0" * 64}, "hash is wrong"),
        ({"codes": 512}, "do not fit"),
    ],
)
def test_wrong_manifests(folder: str, change: dict[str, object], words: str, tmp_path: Path) -> None:
    shutil.copytree(bundle.ASSETS / folder, tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / bundle.MANIFEST).read_text())
    (tmp_path / "m" / bundle.MANIFEST).write_text(json.dumps(manifest | change))
    with pytest.raises(BundleError, match=words):
        ReferenceModel.open(tmp_path / "m")


@pytest.mark.parametrize("folder", NAMES[:1])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("token_count", np.full(101, 25, np.uint8), "token_count"),
        ("scale_bounds", np.zeros(63, np.int32), "scale_bounds"),
        ("gaussian_frequency", np.full((64, 50), 1, np.uint32), "gaussian_frequency"),
        ("prior", np.zeros((100, 48), np.int16), "prior"),
        ("prior", np.zeros((101, 48), np.int32), "prior"),
        ("padding", np.array(33, np.int64), "padding"),
        ("other", np.array(1, np.int64), "too many"),
    ],
)
def test_wrong_tables(
    folder: str, name: str, value: np.ndarray, words: str, to_npz: Callable[[dict[str, object]], bytes]
) -> None:
    from dlf.reference.model import read_tables

    with np.load(io.BytesIO((bundle.ASSETS / folder / "tables.npz").read_bytes())) as file:
        arrays: dict[str, object] = dict(file)
    read_tables(to_npz(arrays))
    with pytest.raises(BundleError, match=words):
        read_tables(to_npz(arrays | {name: value}))
    with pytest.raises(BundleError, match="cannot be read"):
        read_tables(b"PK no zip")
