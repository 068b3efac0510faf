"""Hostile sizes: what is refused, and before what is spent on it."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from numpy.typing import NDArray

import dlf
from cli_run import ENGINE, MOCK, Done, stand_in
from conftest import CHANNELS, TOKENS
from dlf import api
from dlf.bitstream import container
from dlf.bitstream.bounds import file_bound, payload_bound, read_file
from dlf.bitstream.header import Header
from dlf.cli.options import pixels
from dlf.codec import bundle, deadline, loaded
from dlf.codec.bundle import MANIFEST, MAX_BYTES, TABLES, ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.entropy.tables import Tables
from dlf.errors import BundleError, FormatError, LimitExceeded
from dlf.geometry import Plan
from dlf.limits import MAX_CHANNELS, MAX_FILE_BYTES, MAX_PADDING, MAX_PIXELS, MAX_TOKENS
from dlf.records import Latents, UInt8
from shipped_models import DEFAULT

Picture = Callable[[int, int], UInt8]
Write = Callable[..., Path]
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")


@pytest.fixture
def installed(tmp_path: Path, write_bundle: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The mock as the model of the package."""
    write_bundle(tmp_path / "assets" / DEFAULT)
    monkeypatch.setattr(bundle, "ASSETS", tmp_path / "assets")
    monkeypatch.setenv("DLF_MODELS", str(tmp_path / "models"))
    monkeypatch.setitem(sys.modules, ENGINE, stand_in())
    api._default_codec.cache_clear()
    yield
    api._default_codec.cache_clear()


class Endless(io.RawIOBase):
    """A header, and zeros after it for ever; counts what is taken, and gives short parts as a pipe may."""

    def __init__(self, head: bytes) -> None:
        self._head, self.taken = head, 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "all of it was asked for"
        size = min(size, 50_000)
        part, self._head = self._head[:size], self._head[size:]
        part += bytes(size - len(part))
        self.taken += len(part)
        return part


# bounds


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 20), (300, 270)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_no_symbols_need_more_than_the_bound(codec: StreamCodec, height: int, width: int, sign: int) -> None:
    plan = Plan(height, width)
    windows = plan.windows[0] * plan.windows[1]
    dearest = Latents(
        np.ones((windows, TOKENS), np.int32), np.full((CHANNELS, *plan.cells), sign * 1e4, np.float32)
    )
    stream = codec.write(dearest, Header(1, 100, width, height))
    bound = payload_bound(plan, TOKENS, CHANNELS)
    assert bound / 3 < len(stream.payload) <= bound
    codec.receive(stream)


def test_the_bound_of_a_file_holds_for_every_model() -> None:
    for side in (1, 31, 32, 290, 513):
        whole = file_bound(Header(1, 50, side, side))
        for unit in range(32, MAX_PADDING + 1, 32):
            assert payload_bound(Plan(side, side, unit), MAX_TOKENS, MAX_CHANNELS) < whole
    assert file_bound(Header(1, 50, 8192, 8192)) == MAX_FILE_BYTES


def test_a_payload_above_the_bound_runs_no_network(manifest: Any, tables: Tables) -> None:
    header = Header(1, 50, 1, 1)
    most = payload_bound(Plan(1, 1), TOKENS, CHANNELS)
    codec = StreamCodec(manifest, tables, None)  # type: ignore[arg-type]
    stream = container.seal(header, b"\1" * (most + 1), manifest.numerics)
    with pytest.raises(FormatError, match="more than the model has"):
        codec.receive(stream)


def test_a_file_is_read_to_its_bound_only() -> None:
    header = Header(1, 50, 1, 1)
    endless = Endless(header.pack())
    with pytest.raises(LimitExceeded, match="1x1 has more than"):
        read_file(endless, MAX_PIXELS)  # type: ignore[arg-type]
    assert endless.taken == file_bound(header) + 1 < 10_000_000

    endless = Endless(Header(1, 50, 8192, 8192).pack())
    with pytest.raises(LimitExceeded, match="above the limit of 1,000 pixels"):
        read_file(endless, 1000)  # type: ignore[arg-type]
    assert endless.taken < 100
    with pytest.raises(LimitExceeded, match="1x1 has more than"):
        container.load(header.pack() + bytes(file_bound(header)))


@pytest.mark.usefixtures("installed")
def test_every_way_to_a_file_has_the_bound(tmp_path: Path) -> None:
    data = Header(1, 50, 1, 1).pack()
    (tmp_path / "a.dlf").write_bytes(data)
    os.truncate(tmp_path / "a.dlf", 2**40)  # more than any memory
    for use in (dlf.decode, dlf.info):
        with pytest.raises(LimitExceeded):
            use(tmp_path / "a.dlf")
        with (tmp_path / "a.dlf").open("rb") as file, pytest.raises(LimitExceeded):
            use(file)
        with pytest.raises(LimitExceeded):
            use(Endless(data))  # type: ignore[arg-type]


def test_padding_of_a_model_has_a_limit(arrays: dict[str, Any], to_npz: Callable[..., bytes]) -> None:
    assert Tables.load(to_npz(arrays | {"padding": np.array(512)})).padding == 512
    with pytest.raises(BundleError, match="up to 512"):
        Tables.load(to_npz(arrays | {"padding": np.array(544)}))


# limits of the caller


@pytest.mark.usefixtures("installed")
def test_functions_take_a_limit_and_share_the_networks(
    picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = picture(20, 20)
    data = dlf.encode(rgb)
    monkeypatch.setattr(ModelBundle, "read", None)  # loaded once
    assert dlf.encode(rgb, max_pixels=400) == data
    assert dlf.decode(data, max_pixels=400).size == (20, 20)
    for use, subject in ((dlf.encode, rgb), (dlf.decode, data), (dlf.info, data)):
        with pytest.raises(LimitExceeded, match="399"):
            use(subject, max_pixels=399)  # type: ignore[operator]
        with pytest.raises(dlf.InvalidArgument):
            use(subject, max_pixels=0)  # type: ignore[operator]


@pytest.mark.usefixtures("installed")
def test_functions_take_a_limit_of_time(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = picture(300, 40)
    data = dlf.encode(rgb, max_seconds=600)
    assert data == dlf.encode(rgb)
    now = itertools.count(0, 10)  # ten seconds pass from one network to the next
    monkeypatch.setattr(deadline.time, "monotonic", lambda: next(now))
    for use, subject in ((dlf.encode, rgb), (dlf.decode, data), (partial(dlf.info, symbols=True), data)):
        with pytest.raises(LimitExceeded, match=r"longer than the limit of 5\.5 seconds"):
            use(subject, max_seconds=5.5)  # type: ignore[operator]
        use(subject, max_seconds=1000)  # type: ignore[operator]
        use(subject)  # type: ignore[operator]
        with pytest.raises(dlf.InvalidArgument, match="above 0"):
            use(subject, max_seconds=0)  # type: ignore[operator]
        with pytest.raises(TypeError, match="max_seconds"):
            use(subject, max_seconds="5")  # type: ignore[operator]


@pytest.mark.usefixtures("installed")
def test_info_runs_no_network_unless_asked(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dlf.encode(picture(20, 20))
    api._default_codec.cache_clear()
    monkeypatch.setattr(loaded, "make_codec", None)
    info = dlf.info(data)
    assert (info.checked, info.model_name, info.token_bits, info.detail_bits) == (True, "mock", None, None)
    with pytest.raises(dlf.ChecksumError):
        dlf.info(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TypeError):
        dlf.info(data, symbols=True)


@pytest.fixture
def command(dlf_beside: Callable[..., Done], tmp_path: Path, picture: Picture) -> Callable[..., Done]:
    """`dlf` in a folder with a picture a.png of 40x30."""
    from PIL import Image

    Image.fromarray(picture(30, 40)).save(tmp_path / "a.png")
    return dlf_beside


def test_commands_take_a_limit(command: Callable[..., Done]) -> None:
    assert command("encode", "a.png", "--max-pixels", "1.2k").code == 0
    for arguments in (
        ("encode", "a.png", "-o", "b.dlf"),
        ("decode", "a.dlf", "-o", "b.png"),
        ("info", "a.dlf"),
    ):
        done = command(*arguments, "--max-pixels", "1199")
        assert done.code == 1
        assert "the picture is 40x30, above the limit of 1,199 pixels" in done.err
    assert command("info", "a.dlf", "--max-pixels", "1200").code == 0
    done = command("encode", "a.png", "-o", "b.dlf", "--max-seconds", "1e-9")
    assert done.code == 1
    assert "longer than the limit of 1e-09 seconds" in done.err
    assert not os.path.exists("b.dlf")
    assert command("decode", "a.dlf", "-o", "b.png", "--max-seconds", "0").code == 2


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("64M", 64_000_000), ("64e6", 64_000_000), ("1.5m", 1_500_000), ("0.5k", 500), ("1G", 10**9)],
)
def test_numbers_of_pixels(text: str, number: int) -> None:
    assert pixels(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "M", "nan", "inf", "1e999", "64 M", "0.1", "9" * 400, "64MB"]
)
def test_what_is_no_number_of_pixels(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a number of pixels"):
        pixels(text)


def test_info_tells_the_symbols_when_asked(command: Callable[..., Done]) -> None:
    assert command("encode", "a.png").code == 0
    names = re.compile(r"^  (tokens|details) ", re.MULTILINE)
    assert names.findall(command("info", "a.dlf").text) == []
    assert names.findall(command("info", "a.dlf", "--symbols").text) == ["tokens", "details"]


# standard output without a buffer


@posix
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_result_that_does_not_fit_is_an_error(
    command: Callable[..., Done], tmp_path: Path, unbuffered: str
) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    line = [*MOCK, "encode", "a.png", "-o", "-", "--model", "model"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            line, cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, timeout=120
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"No space left" in done.stderr

    # there is space for the first 1024 bytes
    assert command("encode", "a.png").code == 0
    (tmp_path / "b.dlf").write_bytes((tmp_path / "a.dlf").read_bytes())
    for arguments in ("decode a.dlf -o - --format ppm", "info a.dlf b.dlf --json"):
        limited = f"ulimit -f 1; exec {' '.join(MOCK)} {arguments} --model model > short"
        done = subprocess.run(
            ["bash", "-c", limited], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, timeout=120
        )
        assert (tmp_path / "short").stat().st_size == 1024
        assert done.returncode == 1
        assert b"File too large" in done.stderr

    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        line, cwd=tmp_path, env=environment, stdout=write_end, stderr=subprocess.PIPE, timeout=120
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


# bundles


@posix
@pytest.mark.parametrize("name", [MANIFEST, TABLES, "prior.onnx"])
def test_special_files_of_a_bundle_never_block(name: str, tmp_path: Path, write_bundle: Write) -> None:
    model = ModelBundle.open(write_bundle(tmp_path))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(BundleError, match="not a regular file"):
        ModelBundle.open(tmp_path).read(name)
    if name != MANIFEST:
        with pytest.raises(BundleError, match="not a regular file"):
            model.check(name)


def test_files_of_a_bundle_have_limits(tmp_path: Path, write_bundle: Write) -> None:
    model = ModelBundle.open(write_bundle(tmp_path))
    for name, most in MAX_BYTES.items():
        os.truncate(tmp_path / name, most + 1)
        with pytest.raises(BundleError, match=f"more than {most:,} bytes"):
            ModelBundle.open(tmp_path) if name == MANIFEST else model.read(name)


def test_tables_that_unfold_to_gigabytes_are_refused(arrays: dict[str, NDArray[np.generic]]) -> None:
    arrays["prior"] = np.zeros((101, 2**20), np.int16)  # 200 MB
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    assert len(file.getvalue()) < 2**20
    with pytest.raises(BundleError, match="unfold to"):
        Tables.load(file.getvalue())


def test_weights_in_other_files_are_refused(tmp_path: Path, write_bundle: Write) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "secret").write_bytes(bytes(4))
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=1, data_location=1)
    tensor.external_data.add(key="location", value="secret")
    output = onnx.helper.make_tensor_value_info("w", 1, [1])
    graph = onnx.helper.make_graph([], "g", [], [output], initializer=[tensor])
    data = onnx.helper.make_model(graph).SerializeToString()
    model = ModelBundle.open(write_bundle(tmp_path / "model", {"prior.onnx": data}))
    with pytest.raises(BundleError, match="takes weights from other files"):
        model.read("prior.onnx")
