"""The command line, run as a person runs it; with a stand-in for the networks, so that it needs no model."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli_run import MOCK, Done
from dlf.bitstream import container, varint
from dlf.bitstream.header import Header
from dlf.errors import NO_MEMORY
from shipped_models import needs_models

REAL = [sys.executable, "-m", "dlf"]
ROOT = Path(__file__).parents[2]


def call(command: list[str], folder: Path, *args: object, stdin: bytes = b"") -> Done:
    env = os.environ | {"DLF_MODELS": str(folder / "no-models")}
    done = subprocess.run(
        [*command, *map(str, args)], cwd=folder, input=stdin, capture_output=True, env=env, timeout=120
    )
    err = done.stderr.decode()
    assert "Traceback" not in err
    return Done(done.returncode, done.stdout, err)


@pytest.fixture
def dlf(dlf_beside: Callable[..., Done]) -> Callable[..., Done]:
    """The command with a stand-in model, run in tmp_path."""
    return dlf_beside


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (41, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"model"}


def refused(done: Done, code: int, *words: str) -> None:
    """One sentence on standard error, nothing on standard output."""
    assert done.code == code
    assert done.err.count("\n") == 1
    assert done.err.startswith("dlf")
    assert done.out == b""
    for word in words:
        assert word in done.err


def test_encode_info_decode(dlf: Callable[..., Done], photo: Path, tmp_path: Path) -> None:
    done = dlf("encode", "photo.png")
    assert (done.code, done.err) == (0, "")
    size = (tmp_path / "photo.dlf").stat().st_size
    assert "photo.png -> photo.dlf: 70x41, quality 50" in done.text
    assert f"{size:,} bytes" in done.text

    done = dlf("info", "photo.dlf", "--symbols")
    assert (done.code, done.err) == (0, "")
    rows = {line.split()[0]: line.split() for line in done.text.splitlines()[1:]}
    assert list(rows) == [
        *("part", "magic", "version_flags", "model", "quality", "width", "height"),
        *("payload", "tokens", "details", "checksum", "file", "cut:"),
    ]
    parts = ("magic", "version_flags", "model", "quality", "width", "height", "payload", "checksum")
    assert sum(int(rows[name][-2].replace(",", "")) for name in parts) == size
    assert rows["file"][-1] == f"{8 * size / (70 * 41):.5f}"

    assert dlf("decode", "photo.dlf", "--format", "jpeg").code == 0
    with Image.open(tmp_path / "photo.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (70, 41))
    assert names(tmp_path) == {"photo.png", "photo.dlf", "photo.jpg"}


def test_output_name_decides_the_format(dlf: Callable[..., Done], photo: Path, tmp_path: Path) -> None:
    assert dlf("encode", photo, "-o", "a.dlf", "-q", "0").code == 0
    assert container.load((tmp_path / "a.dlf").read_bytes()).header == Header(1, 0, 70, 41)
    for name, kind in (("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP")):
        assert dlf("decode", "a.dlf", "-o", name).code == 0
        with Image.open(tmp_path / name) as image:
            assert image.format == kind


def test_pipes(dlf: Callable[..., Done], photo: Path, tmp_path: Path) -> None:
    done = dlf("encode", "-", stdin=photo.read_bytes())
    assert (done.code, done.err) == (0, "")
    assert container.load(done.out).header.width == 70
    assert dlf("info", "-", stdin=done.out).text.startswith("-\n")
    picture = dlf("decode", "-", "-o", "-", "--format", "webp", stdin=done.out)
    with Image.open(io.BytesIO(picture.out)) as image:
        assert (image.format, image.size) == ("WEBP", (70, 41))
    assert names(tmp_path) == {"photo.png"}


def test_several_inputs_into_a_new_folder(dlf: Callable[..., Done], photo: Path, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(photo.read_bytes())
    (tmp_path / "bad.png").write_bytes(b"nothing")
    done = dlf("encode", "photo.png", "bad.png", "none.png", "b.png", "-o", "new/folder")
    assert done.code == 1
    assert names(tmp_path / "new" / "folder") == {"photo.dlf", "b.dlf"}
    bad, none, summary = done.err.splitlines()
    assert bad.startswith("dlf: bad.png: ")
    assert none == "dlf: none.png: cannot be read: No such file or directory"
    assert summary == "dlf: 2 of 4 inputs failed: bad.png, none.png"


def test_json(dlf: Callable[..., Done], photo: Path) -> None:
    done = dlf("encode", "photo.png", "none.png", "--json")
    good, bad = map(json.loads, done.text.splitlines())
    assert (good["input"], good["output"], good["width"], good["height"]) == (
        "photo.png",
        "photo.dlf",
        70,
        41,
    )
    assert good["bpp"] == 8 * good["bytes"] / (70 * 41)
    assert bad == {"input": "none.png", "error": "cannot be read: No such file or directory"}

    found = json.loads(dlf("info", "photo.dlf", "--symbols", "--json").text)
    assert found["file_bytes"] == good["bytes"]
    assert found["model_name"] == "mock"
    parts = found["parts"]
    shared = parts.pop("tokens")["bytes"] + parts.pop("details")["bytes"]
    assert shared == pytest.approx(parts["payload"]["bytes"], abs=1.1)
    assert sum(part["bytes"] for part in parts.values()) == good["bytes"]

    painted = json.loads(dlf("decode", "photo.dlf", "-o", "x.webp", "--json").text)
    assert (painted["output"], painted["format"], painted["width"]) == ("x.webp", "webp", 70)


def test_quiet(dlf: Callable[..., Done], photo: Path) -> None:
    done = dlf("encode", "photo.png", "--quiet")
    assert (done.code, done.out, done.err) == (0, b"", "")


def test_metadata_is_kept_on_request(dlf: Callable[..., Done], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "camera"
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", exif=exif)
    assert dlf("encode", "x.jpg", "-o", "plain.dlf").code == 0
    assert dlf("encode", "x.jpg", "-o", "kept.dlf", "--keep-metadata").code == 0
    assert (tmp_path / "plain.dlf").stat().st_size < (tmp_path / "kept.dlf").stat().st_size
    assert "metadata" in dlf("info", "kept.dlf").text
    assert dlf("decode", "kept.dlf", "-o", "kept.png").code == 0
    with Image.open(tmp_path / "kept.png") as image:
        assert image.getexif()[0x0110] == "camera"


def test_existing_output(dlf: Callable[..., Done], photo: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.dlf").write_bytes(b"mine")
    refused(dlf("encode", "photo.png"), 1, "photo.dlf exists", "--overwrite")
    assert (tmp_path / "photo.dlf").read_bytes() == b"mine"
    assert dlf("encode", "photo.png", "--overwrite").code == 0
    assert dlf("decode", "photo.dlf", "-o", "x.png").code == 0
    refused(dlf("decode", "photo.dlf", "-o", "x.png"), 1, "x.png exists", "--overwrite")


@pytest.mark.parametrize("output", ["missing/x.dlf", "photo.png/x.dlf"])
def test_unwritable_output(dlf: Callable[..., Done], photo: Path, tmp_path: Path, output: str) -> None:
    before = photo.read_bytes()
    refused(dlf("encode", "photo.png", "-o", output), 1, "cannot write", output)
    assert names(tmp_path) == {"photo.png"}
    assert photo.read_bytes() == before


def test_the_folder_that_is_missing_is_named(dlf: Callable[..., Done], photo: Path) -> None:
    refused(dlf("encode", "photo.png", "-o", "no/such/x.dlf"), 1, "there is no folder no/such")
    refused(dlf("encode", "no/such.png"), 1, "no/such.png: cannot be read: No such file or directory")
    refused(dlf("decode", "photo.dlf", "-o", "image"), 2, "whose name has no ending", "say --format")


def test_empty_names(dlf: Callable[..., Done], photo: Path) -> None:
    for arguments in (("encode", ""), ("encode", "photo.png", "-o", ""), ("decode", "x.dlf", "-o", "")):
        refused(dlf(*arguments), 2, "the name of a file is empty")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")
def test_an_open_file_by_its_number_has_no_name_for_the_result(dlf: Callable[..., Done], photo: Path) -> None:
    with photo.open("rb") as file:
        name = f"/dev/fd/{file.fileno()}"
        refused(dlf("encode", name), 2, f"the result of {name} needs a file name: give -o a file")
        assert dlf("encode", name, "-o", "x.dlf").code == 0


GOOD = container.dump(container.seal(Header(1, 50, 70, 41), b"payload", "00" * 32))


def sealed(body: bytes) -> bytes:
    return body + bytes(4)  # what comes before is refused earlier, or by nobody without the model


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a .dlf file"),
        (b"\x89PNG\r\n\x1a\n", "not a .dlf file"),
        (GOOD[:9], "ends"),
        (GOOD[:-1], "damaged"),
        (GOOD + b"\0", "damaged"),
        (GOOD[:12] + b"\xff" + GOOD[13:], "damaged"),
        (sealed(b"\x44LF\x20" + GOOD[4:-4]), "version 2"),
        (sealed(b"DLF\x10\x01\x32" + 2 * varint.pack(100_000)), "100000x100000"),
        (sealed(b"DLF\x10\x63\x32\x01\x01"), "model number 99 is not installed"),
        (GOOD, "written with another model of the number 1 than 'mock'"),
    ],
)
def test_bad_streams(dlf: Callable[..., Done], tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.dlf").write_bytes(data)
    refused(dlf("decode", "x.dlf"), 1, "x.dlf", words)
    if "installed" not in words:
        refused(dlf("info", "x.dlf"), 1, "x.dlf", words)
    assert names(tmp_path) == {"x.dlf"}


def test_info_without_the_model_of_the_file(dlf: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "x.dlf").write_bytes(sealed(b"DLF\x10\x63\x32\x01\x01"))
    done = dlf("info", "x.dlf")
    assert done.code == 0
    assert "99 (not installed)" in done.text
    assert "00000000 (not checked)" in done.text


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"DLF\x10"])
def test_not_an_image(dlf: Callable[..., Done], tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    refused(dlf("encode", "x.png"), 1, "x.png")
    refused(dlf("encode", "-", "-o", "x.dlf", stdin=data), 1, "-: ")
    assert names(tmp_path) == {"x.png"}


def test_damaged_image(dlf: Callable[..., Done], photo: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:3000])
    refused(dlf("encode", "cut.png"), 1, "cut.png", "damaged or cut off")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "Missing command"),
        (("paint",), "paint"),
        (("encode",), "IN"),
        (("encode", "photo.png", "-q", "101"), "101 is not in the range 0<=x<=100"),
        (("encode", "photo.png", "-q", "best"), "'best' is not a valid integer"),
        (("encode", "photo.png", "--threads", "0"), "0 is not in the range"),
        (("encode", "photo.png", "--quiet", "--verbose"), "not allowed with"),
        (("encode", "photo.png", "--overwrite", "--skip-existing"), "not allowed with"),
        (("encode", "photo.png", "--jobs", "0"), "0 is not in the range"),
        (("encode", "photo.png", "-o", "photo.png"), "both an input and an output"),
        (("encode", "photo.png", "photo.jpg"), "both be written to photo.dlf"),
        (("encode", "-", "-", "-o", "x/"), "only once"),
        (("encode", "a.png", "b.png", "-o", "-"), "several results"),
        (("encode", "a.png", "b.png", "-o", "photo.png"), "not a folder"),
        (("encode", "-", "-o", "."), "needs a file name"),
        (("encode", "photo.png", "--json", "-o", "-"), "--json"),
        (("decode", "a.dlf", "-o", "a.gif"), "must end in"),
        (("decode", "a.dlf", "--format", "gif"), "gif"),
    ],
)
def test_usage_errors(photo: Path, tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    refused(call(REAL, tmp_path, *args), 2, words)
    assert names(tmp_path) == {"photo.png"}


def test_missing_model(photo: Path, tmp_path: Path) -> None:
    refused(call(REAL, tmp_path, "encode", "photo.png", "--model", "nowhere"), 1, "nowhere", "not installed")
    assert names(tmp_path) == {"photo.png"}


def test_version_and_help(tmp_path: Path) -> None:
    assert call(REAL, tmp_path, "--version").text.startswith("dlf ")
    for args in (["--help"], ["encode", "--help"], ["decode", "--help"], ["info", "--help"]):
        done = call(REAL, tmp_path, *args)
        assert (done.code, done.err) == (0, "")
        assert "Usage: dlf" in done.text


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    text = "import sys; from dlf.cli.main import main; main(['--help']); print(*sys.modules)"
    loaded = set(call(script(text), tmp_path).text.split())
    assert not loaded & {"PIL", "numpy", "rich", "onnxruntime", "constriction"}


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        ("KeyboardInterrupt", 130, "dlf: interrupted\n"),
        ("MemoryError", 1, f"dlf: -: {NO_MEMORY}\n"),
        (
            "ZeroDivisionError('x\\ny')",
            1,
            "dlf: -: unexpected error, please report it: ZeroDivisionError: x y\n",
        ),
    ],
)
def test_whatever_happens(
    tmp_path: Path, write_bundle: Callable[[Path], Path], error: str, code: int, sentence: str
) -> None:
    model = write_bundle(tmp_path / "model")
    text = f"""
import sys
from dlf.cli import streams
from dlf.cli.main import main
def read(*_):
    raise {error}
streams.read_dlf = read
sys.exit(main(["info", "-", "--model", {str(model)!r}]))
"""
    assert call(script(text), tmp_path) == Done(code, b"", sentence)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes")
def test_reader_that_went_away(dlf: Callable[..., Done], photo: Path, tmp_path: Path) -> None:
    assert dlf("encode", "photo.png").code == 0
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*MOCK, "info", "photo.dlf", "--model", "model"],
        cwd=tmp_path,
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("args", [("info", "photo.dlf"), ("decode", "photo.dlf", "-o", "-")])
def test_full_disk(dlf: Callable[..., Done], photo: Path, tmp_path: Path, args: tuple[str, ...]) -> None:
    assert dlf("encode", "photo.png").code == 0
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*MOCK, *args, "--model", "model"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr.endswith(b"cannot write to standard output: No space left on device\n")
    assert done.stderr.count(b"\n") == 1


@needs_models
def test_shipped_model(tmp_path: Path) -> None:
    photo = ROOT / "tests" / "data" / "astronaut.jpg"
    assert call(REAL, tmp_path, "encode", photo, "-o", "x.dlf").code == 0
    assert (tmp_path / "x.dlf").stat().st_size < 4000
    assert call(REAL, tmp_path, "decode", "x.dlf").code == 0
    with Image.open(photo) as before, Image.open(tmp_path / "x.png") as after:
        assert before.size == after.size
        difference = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    assert np.abs(difference.mean(axis=(0, 1))).max() < 12  # no colour shift
    assert np.sqrt((difference**2).mean()) < 50


def test_default_quality_is_the_models(
    dlf: Callable[..., Done], photo: Path, tmp_path: Path, write_bundle: Callable[..., Path]
) -> None:
    write_bundle(tmp_path / "model", default_quality=80)
    assert dlf("encode", "photo.png").code == 0
    assert container.load((tmp_path / "photo.dlf").read_bytes()).header.quality == 80
