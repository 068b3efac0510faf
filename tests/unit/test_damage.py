"""Files that arrive cut or damaged: what is painted of them, what is said, and that nothing worse happens."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from cli_run import Done
from conftest import GOLDEN
from dlf.bitstream import container
from dlf.codec import bundle
from dlf.codec.bundle import Manifest
from dlf.codec.codec import StreamCodec
from dlf.codec.salvage import Remains, read_cut, read_damaged
from dlf.entropy.quadtree import step_masks
from dlf.errors import DlfError, FormatError, UnknownModel, UnsupportedVersion
from dlf.records import UInt8
from shipped_models import needs_models

REASON = FormatError("a reason")
MOCK_FILES = [path.name for path in sorted(GOLDEN.glob("mock-*.dlf"))]


@pytest.fixture
def small(codec: StreamCodec, picture: Callable[[int, int], UInt8]) -> bytes:
    return container.dump(codec.encode_rgb(picture(60, 90), 80))


@pytest.fixture
def cut(codec: StreamCodec) -> Callable[[bytes], Remains]:
    def reading(data: bytes) -> Remains:
        return read_cut(codec, container.open_parts(data), data, REASON)

    return reading


def test_what_comes_through_of_a_cut_file_is_what_was_sent(
    small: bytes, codec: StreamCodec, cut: Callable[[bytes], Remains]
) -> None:
    whole = codec.receive(container.load(small))
    start = len(container.load(small).header.pack())
    masks = step_masks(*whole.y_hat.shape)
    seen = set()
    for length in range(start + 6, len(small)):  # the first token is a case at the border of two
        remains = cut(small[:length])
        damage, found = remains.damage, remains.received
        assert (damage.kind, damage.reason) == ("cut", "a reason")
        read = found.tokens >= 0
        assert read.sum() == damage.tokens_read
        np.testing.assert_array_equal(found.tokens[read], whole.tokens[read])
        for mask in masks[: damage.steps_read]:
            np.testing.assert_array_equal(found.y_hat[mask], whole.y_hat[mask])
        assert damage.symbols_read <= damage.symbols_sent
        seen.add(damage.steps_read)
        needed = whole.settled[damage.steps_read]
        assert needed is not None
        assert needed + start <= length or damage.tokens_read < damage.tokens_sent
    assert seen >= {0, 1, 2, 3}
    assert damage.steps_read == 4 or damage.symbols_read >= damage.symbols_sent - 9  # cut in the checksum


def test_the_error_falls_with_the_length(
    small: bytes, codec: StreamCodec, cut: Callable[[bytes], Remains]
) -> None:
    whole = codec.receive(container.load(small)).y_hat
    errors = [
        np.abs(cut(small[: len(small) * share // 100]).received.y_hat - whole).mean()
        for share in (30, 60, 85, 98)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_a_cut_before_the_first_symbol_is_an_error(small: bytes, cut: Callable[[bytes], Remains]) -> None:
    start = len(container.load(small).header.pack())
    for length in range(start):
        with pytest.raises(FormatError):
            cut(small[:length])
    with pytest.raises(FormatError, match="before the first symbol"):
        cut(small[:start])


def test_a_whole_file_with_a_wrong_checksum_is_not_cut(small: bytes, cut: Callable[[bytes], Remains]) -> None:
    with pytest.raises(FormatError, match="a reason"):
        cut(small + b"\x12\x34")


def test_a_wrong_checksum_alone_costs_nothing(small: bytes, codec: StreamCodec) -> None:
    damaged = small[:-1] + bytes([small[-1] ^ 1])
    remains = read_damaged(codec, container.open_parts(damaged), REASON)
    whole = codec.receive(container.load(small))
    np.testing.assert_array_equal(remains.received.y_hat, whole.y_hat)
    assert (remains.damage.kind, remains.damage.steps_read) == ("damaged", 4)


def harmless(codec: StreamCodec, manifest: Manifest, data: bytes, *, is_cut: bool) -> bool:
    """Whether data give a picture; any other end than a DlfError fails the test."""
    try:
        opened = container.open_parts(data, 1 << 18)
        if opened.header.model != manifest.id:
            raise UnknownModel
        remains = read_cut(codec, opened, data, REASON) if is_cut else read_damaged(codec, opened, REASON)
    except DlfError:
        return False
    assert remains.damage.summary
    rgb = codec.paint(remains.received, opened.header)
    assert rgb.shape == (opened.header.height, opened.header.width, 3)
    return True


@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.slow), 13], ids=["every byte", "some bytes"]
)
@pytest.mark.parametrize("name", MOCK_FILES)
def test_golden_files_cut(name: str, every: int, codec: StreamCodec, manifest: Manifest) -> None:
    data = (GOLDEN / name).read_bytes()
    lengths = range(0, len(data), every)
    for is_cut in (True, False):
        painted = [harmless(codec, manifest, data[:length], is_cut=is_cut) for length in lengths]
        first = painted.index(True)
        assert lengths[first] <= 26
        assert all(painted[first:])


@pytest.mark.parametrize(
    "every", [pytest.param(7, marks=pytest.mark.slow), 101], ids=["many bits", "some bits"]
)
@pytest.mark.parametrize("name", MOCK_FILES)
def test_golden_files_with_a_flipped_bit(
    name: str, every: int, codec: StreamCodec, manifest: Manifest
) -> None:
    data = (GOLDEN / name).read_bytes()
    start = len(container.load(data).header.pack())
    for bit in (*range(0, 8 * start, every // 7), *range(8 * start, 8 * len(data), every)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        painted = harmless(codec, manifest, bytes(damaged), is_cut=False)
        harmless(codec, manifest, bytes(damaged[: len(data) * (bit % 7 + 3) // 10]), is_cut=True)
        assert painted or bit < 8 * start


@pytest.mark.parametrize("seed", range(3))
def test_noise_behind_a_header(seed: int, small: bytes, codec: StreamCodec, manifest: Manifest) -> None:
    random, header = np.random.default_rng(seed), container.load(small).header.pack()
    for length in (0, 1, 3, 4, 9, 100, 5000):
        for noise in (random.bytes(length), b"\xff" * length, bytes(length)):
            for is_cut in (True, False):
                harmless(codec, manifest, header + noise, is_cut=is_cut)


# the front doors


@pytest.fixture
def file(mock_models: None, picture: Callable[[int, int], UInt8]) -> bytes:
    image = Image.fromarray(picture(60, 90))
    image.info["dpi"] = (72.0, 72.0)
    return dlf.encode(image, 80, metadata=True)


def test_decode_says_in_the_log_what_came_through(file: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FormatError):
        dlf.decode(file[:-30])
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "dlf"):
        image = dlf.decode(file[:-30], allow_partial=True)
    assert image.size == (90, 60)
    (record,) = caplog.records
    assert "the file is cut: " in record.getMessage()
    assert "steps of details" in record.getMessage()


def test_a_whole_file_is_salvaged_without_a_word(file: bytes) -> None:
    salvaged = dlf.salvage(file, best_effort=True)
    assert salvaged.damage is None
    assert salvaged.image == dlf.decode(file)


def test_malformed_metadata_are_left_out_on_request_only(file: bytes) -> None:
    at = len(container.load(file).header.pack()) + 3
    damaged = file[:at] + bytes([file[at] ^ 0x55]) + file[at + 1 :]
    for data in (damaged, damaged[:-20]):
        with pytest.raises(FormatError):
            dlf.salvage(data)
    salvaged = dlf.salvage(damaged, best_effort=True)
    assert salvaged.damage is not None
    assert "metadata" in salvaged.damage.summary
    assert "dpi" not in salvaged.image.info
    assert dlf.salvage(file[:-20]).image.info["dpi"] == (72, 72)


def test_errors_that_stay(file: bytes) -> None:
    for data, error in (
        (file[:6], FormatError),
        (b"DLF\x20" + file[4:], UnsupportedVersion),
        (b"DLF\x18" + file[4:], UnsupportedVersion),
        (file[:4] + b"\x22" + file[5:], UnknownModel),
        (b"GIF89a", FormatError),
    ):
        with pytest.raises(error):
            dlf.salvage(data, best_effort=True)


def test_info_tells_the_points_of_a_cut(file: bytes) -> None:
    settled = dlf.info(file, symbols=True).settled
    assert settled is not None
    assert dlf.info(file).settled is None
    assert list(settled) == sorted(settled)
    assert settled[-1] <= len(file)
    for stage, length in enumerate(settled[:-1]):
        damage = dlf.salvage(file[:length]).damage
        assert damage is not None
        assert (damage.tokens_read, damage.steps_read) == (damage.tokens_sent, stage)


def test_verify_names_the_part_that_is_wrong(file: bytes, tmp_path: Path) -> None:
    good = dlf.verify(file, paint=True)
    assert (good.good, good.problem, good.model_name, good.file_bytes) == (True, None, "mock", len(file))
    assert [good.header, good.metadata, good.checksum, good.symbols, good.painted] == [True] * 5
    assert dlf.verify(file).painted is None
    stream = container.load(file)
    numerics = bundle.find(None).manifest.numerics
    longer = container.seal(stream.header, stream.payload + b"\x01\x01\x01", numerics, stream.blob)
    at = len(stream.header.pack()) + 3
    for data, part in (
        (file[:5], "header"),
        (b"\x00" * 99, "header"),
        (file[:at] + bytes([file[at] ^ 0x55]) + file[at + 1 :], "metadata"),
        (file[:-9] + bytes([file[-9] ^ 1]) + file[-8:], "checksum"),
        (file[:-1], "checksum"),
        (container.dump(longer), "symbols"),
    ):
        verdict = dlf.verify(data)
        assert verdict.problem
        assert not verdict.good
        order = ("header", "metadata", "checksum", "symbols")
        place = order.index(part)
        states = [getattr(verdict, name) for name in order]
        assert states == [True] * place + [False] + [None] * (3 - place)
    unknown = dlf.verify(file[:4] + b"\x22" + file[5:])
    assert (unknown.good, unknown.metadata, unknown.checksum) == (False, True, None)
    with pytest.raises(dlf.TimeExceeded):
        dlf.salvage(file, best_effort=True, max_seconds=1e-9)
    late = dlf.verify(file, max_seconds=1e-9)
    assert (late.good, late.checksum, late.symbols) == (False, True, None)
    with pytest.raises(FileNotFoundError):
        dlf.verify(tmp_path / "none.dlf")


@pytest.fixture
def run(dlf_beside: Callable[..., Done], picture: Callable[[int, int], UInt8]) -> Callable[..., Done]:
    """The command, in a folder with good.dlf, cut.dlf and flipped.dlf."""
    Image.fromarray(picture(60, 90)).save("photo.png")
    assert dlf_beside("encode", "photo.png", "-o", "good.dlf", "-q", "80", "--quiet").code == 0
    data = Path("good.dlf").read_bytes()
    Path("cut.dlf").write_bytes(data[:-40])
    middle = len(data) // 2
    Path("flipped.dlf").write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
    return dlf_beside


def test_commands_on_a_cut_file(run: Callable[..., Done]) -> None:
    done = run("decode", "cut.dlf")
    assert (done.code, done.out) == (1, b"")
    assert "--allow-partial" in done.err
    assert not Path("cut.png").exists()
    done = run("decode", "cut.dlf", "--allow-partial", "--quiet")
    assert (done.code, done.out) == (0, b"")
    assert done.err.startswith("dlf: cut.dlf: the file is cut: ")
    assert done.err.count("\n") == 1
    with Image.open("cut.png") as image:
        assert image.size == (90, 60)


def test_commands_on_a_damaged_file(run: Callable[..., Done]) -> None:
    done = run("decode", "flipped.dlf", "good.dlf", "-o", "there/", "--best-effort", "--json")
    assert done.code == 3
    flipped, good = map(json.loads, done.text.splitlines())
    assert flipped["damage"]["kind"] == "damaged"
    assert "damage" not in good
    assert "invented" in done.err
    assert {path.name for path in Path("there").iterdir()} == {"flipped.png", "good.png"}
    Path("none.dlf").write_bytes(b"DLF\x10")
    done = run("decode", "flipped.dlf", "none.dlf", "good.dlf", "-o", "more/", "--best-effort")
    assert done.code == 1
    assert "good.dlf -> " in done.text


def test_the_command_verify(run: Callable[..., Done]) -> None:
    done = run("verify", "good.dlf", "--paint")
    assert (done.code, done.err) == (0, "")
    assert done.text.startswith("good.dlf: good, painted, ")
    done = run("verify", "good.dlf", "cut.dlf", "flipped.dlf", "none.dlf")
    assert done.code == 1
    assert done.text.count("\n") == 1
    assert "dlf: cut.dlf: the checksum does not match" in done.err
    assert "3 of 4 inputs failed: cut.dlf, flipped.dlf, none.dlf" in done.err
    done = run("verify", "good.dlf", "cut.dlf", "--json")
    good, cut = map(json.loads, done.text.splitlines())
    assert (good["good"], good["symbols"], good["painted"]) == (True, True, None)
    assert (cut["good"], cut["header"], cut["checksum"]) == (False, True, False)
    with open("good.dlf", "rb") as file:
        done = run("verify", "-", stdin=file.read())
    assert (done.code, done.text[:8]) == (0, "-: good,")


@needs_models
def test_a_cut_photo_still_looks_like_itself() -> None:
    """Of three quarters of a real file more is left than of a third, and of that more than a grey."""
    with Image.open(Path(__file__).parents[1] / "data" / "astronaut.jpg") as image:
        before = image.convert("RGB").resize((256, 256))
    codec = dlf.Codec(threads=1)
    data = codec.encode(before, max_bytes=500)
    blurred = np.asarray(before.resize((16, 16), Image.Resampling.BOX), float)
    errors = []
    for share in (33, 75, 100):
        salvaged = codec.salvage(data[: len(data) * share // 100])
        assert (salvaged.damage is None) == (share == 100)
        after = np.asarray(salvaged.image.resize((16, 16), Image.Resampling.BOX), float)
        errors.append(np.abs(after - blurred).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.8 * np.abs(blurred - blurred.mean((0, 1))).mean()


@needs_models
@pytest.mark.slow
@pytest.mark.parametrize("name", ["base-v1.dlf", "small-v1.dlf"])
def test_real_files_cut_and_flipped(name: str) -> None:
    data, codec = (GOLDEN / name).read_bytes(), dlf.Codec(threads=1, max_pixels=1 << 18)
    for length in range(12, len(data), 41):
        damage = codec.salvage(data[:length]).damage
        assert damage is not None
        assert damage.kind == "cut"
    for bit in range(0, 8 * len(data), 8 * 53 + 1):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert codec.salvage(bytes(damaged), best_effort=True).damage is not None
        except DlfError:
            assert bit < 8 * 12
