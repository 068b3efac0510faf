"""Files of packets: whole they are like any other, and what is lost of them is what is said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from cli_run import Done, runner
from dlf.bitstream import packets, varint
from dlf.bitstream.bounds import file_bound
from dlf.bitstream.header import Header
from dlf.bitstream.packets import START, Found, Packet
from dlf.codec import resilient
from dlf.codec.codec import StreamCodec
from dlf.codec.resilient import Part
from dlf.codec.salvage import find_packets
from dlf.errors import ChecksumError, DlfError, FormatError, InvalidArgument, LimitExceeded
from dlf.geometry import WINDOW_CELLS, Plan
from dlf.records import UInt8
from shipped_models import needs_models

Picture = Callable[[int, int], UInt8]
WIDE = (600, 1100)  # 3 x 5 windows


@pytest.fixture
def file(codec: StreamCodec, picture: Picture) -> bytes:
    return resilient.encode(codec, picture(*WIDE), 40)


@pytest.mark.parametrize("most", [32, 256, 700, 2**20])
@pytest.mark.parametrize("size", [(1, 1), (40, 700), (700, 40), WIDE])
def test_round_trip(size: tuple[int, int], most: int, codec: StreamCodec, picture: Picture) -> None:
    data = resilient.encode(codec, picture(*size), 60, most)
    found = packets.load(data)
    held = resilient.check(codec, found)
    plan = Plan(*size)
    total = plan.windows[0] * plan.windows[1]
    assert sum(packet.count for packet in held) == total
    for each in found:
        assert len(each.data) <= most or each.packet.count == 1
    assert (len(found) == 1) >= (most == 2**20 or total == 1)
    # the same latents as in a file of one payload, but for the means that do not see across a border
    assembled = resilient.receive(codec, held)
    assert assembled.lost == ()
    plain = codec.receive(codec.encode_rgb(picture(*size), 60))
    np.testing.assert_array_equal(assembled.received.tokens, plain.tokens)
    step = 2  # at quality 60, more than any of the mock's
    assert np.abs(assembled.received.y_hat - plain.y_hat)[:7].max() <= step
    if len(found) == 1:
        assert found[0].packet.payload == codec.encode_rgb(picture(*size), 60).payload


def test_without_a_packet_the_others_stay_as_they_are(file: bytes, codec: StreamCodec) -> None:
    found = packets.load(file)
    assert len(found) > 4
    plan = Plan(*WIDE)
    whole = resilient.receive(codec, resilient.check(codec, found)).received
    for index, missing in enumerate(found):
        rest = b"".join(each.data for each in found if each is not missing)
        with pytest.raises(FormatError, match="missing"):
            resilient.check(codec, packets.load(rest))
        left = find_packets(rest, codec.numerics, 2**26)
        assert len(left) == len(found) - 1
        assembled = resilient.receive(codec, left)
        first, count = missing.packet.first, missing.packet.count
        assert assembled.lost == tuple(range(first, first + count))
        kept = np.delete(np.arange(len(whole.tokens)), assembled.lost)
        np.testing.assert_array_equal(assembled.received.tokens[kept], whole.tokens[kept])
        assert (assembled.received.tokens[list(assembled.lost)] == -1).all()
        same = np.ones(whole.y_hat.shape[1:], bool)
        same[Part.of(plan, first, count).cut(WINDOW_CELLS)] = False
        np.testing.assert_array_equal(assembled.received.y_hat[:, same], whole.y_hat[:, same])
        assert codec.paint(assembled.received, left[0].header).shape == (*WIDE, 3), index


def test_a_lost_block_anywhere_costs_the_packets_that_it_touches(file: bytes, codec: StreamCodec) -> None:
    found = packets.load(file)
    for start in range(0, len(file), 61):
        damaged = file[:start] + bytes(len(file[start : start + 256])) + file[start + 256 :]
        left = {packet.first for packet in find_packets(damaged, codec.numerics, 2**26)}
        ends = {each.packet.first: each.end for each in found}
        expected = {
            each.packet.first
            for each in found
            if ends[each.packet.first] <= start or each.end - len(each.data) >= start + 256
        }
        assert left >= expected
        assert left - expected <= {p.packet.first for p in found if not any(p.data[-9:])}


def test_packets_in_another_order_or_twice(file: bytes, codec: StreamCodec) -> None:
    datas = [each.data for each in packets.load(file)]
    for wrong in (datas[::-1], [*datas, datas[2]], [datas[0], b"\0", *datas[1:]]):
        with pytest.raises(FormatError):
            resilient.check(codec, packets.load(b"".join(wrong)))
        left = find_packets(b"noise" + b"".join(wrong), codec.numerics, 2**26)
        assert resilient.receive(codec, left).lost == ()


def test_of_two_pictures_that_of_most_packets_counts(
    file: bytes, codec: StreamCodec, picture: Picture
) -> None:
    other = resilient.encode(codec, picture(100, 100), 40)
    left = find_packets(other + file, codec.numerics, 2**26)
    assert {packet.header for packet in left} == {packets.load(file)[0].packet.header}
    with pytest.raises(FormatError, match="one picture"):
        packets.load(file + other)


@pytest.mark.parametrize(
    ("first", "count", "good"),
    [(0, 1, True), (0, 5, True), (5, 10, True), (0, 15, True), (3, 2, True), (14, 1, True),
     (0, 0, False), (0, 6, False), (3, 3, False), (15, 1, False), (10, 10, False), (1, 5, False),
     (2**35 - 1, 2**35 - 1, False), (5, 2**35 - 5, False)],
)  # fmt: skip
def test_windows_of_a_packet(first: int, count: int, good: bool) -> None:
    plan = Plan(*WIDE)
    if not good:
        with pytest.raises(FormatError, match="no part of the picture"):
            Part.of(plan, first, count)
        return
    rows, cols = Part.of(plan, first, count).cut(1)
    places = np.arange(15).reshape(3, 5)[rows, cols]
    assert places.reshape(-1).tolist() == list(range(first, first + count))


def test_good_checksums_of_nonsense_do_no_harm(file: bytes, codec: StreamCodec) -> None:
    header = packets.load(file)[0].packet.header
    for first, count, payload in (
        (0, 15, b""), (0, 15, b"\xff" * 900), (0, 0, b""), (14, 2, b"\x12"), (0, 1, b"\x80" * 5000),
    ):  # fmt: skip
        data = Packet(header, first, count, payload).pack(codec.numerics)
        try:
            resilient.receive(codec, find_packets(data, codec.numerics, 2**26))
        except FormatError:
            continue
        assert payload == b""


def test_flipped_bits_and_cuts(codec: StreamCodec, picture: Picture) -> None:
    data = resilient.encode(codec, picture(300, 300), 20, 64)
    count = len(packets.load(data))
    for bit in range(0, 8 * len(data), 5):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DlfError):
            resilient.check(codec, packets.load(bytes(damaged)))
        assert len(find_packets(bytes(damaged), codec.numerics, 2**26)) == count - 1
    for length in range(0, len(data), 3):
        with pytest.raises(DlfError):
            resilient.check(codec, packets.load(data[:length]))
        assert len(find_packets(data[:length], codec.numerics, 2**26)) < count


def test_a_search_in_hostile_data_ends_soon(codec: StreamCodec) -> None:
    """Heads of packets everywhere, each of which says that it is as long as all that follows."""
    size = 2**21
    head = START + b"\x01\x32\x10\x10\x00\x01"
    lengths = (max(size - 20 * i - 40, 0) for i in range(size // 20))
    data = b"".join((head + varint.pack(length)).ljust(20, b"\0") for length in lengths)
    start = time.process_time()
    assert find_packets(data, codec.numerics, 2**26) == ()
    assert time.process_time() - start < 2


def test_starts_that_lead_to_nothing_are_tried_as_often_as_there_may_be_packets(
    codec: StreamCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    parse = packets.parse

    def counted(data: bytes, at: int, most: int) -> Found:
        nonlocal tried
        tried += 1
        return parse(data, at, most)

    monkeypatch.setattr(packets, "parse", counted)
    size = 2**20
    assert find_packets(START * (size // 4), codec.numerics, 2**26) == ()
    assert tried < size / 12 + 3000
    head = packets.load(resilient.encode(codec, np.zeros((32, 32, 3), np.uint8), 0, 32))[0].packet.header
    good = Packet(head, 0, 1, b"").pack(codec.numerics)  # no packet is shorter
    bad = good[:-1] + bytes([good[-1] ^ 1])
    for broken in (bad, good[:-1] + START[:1]):
        assert find_packets(broken * 100_000 + good, codec.numerics, 2**26) == (Packet(head, 0, 1, b""),)


def test_limits(file: bytes) -> None:
    header = packets.load(file)[0].packet.header
    with pytest.raises(LimitExceeded, match="above the limit"):
        packets.load(file, 1000)
    small = Packet(replace(header, width=1, height=1), 0, 1, b"\x01" * file_bound(Header(1, 40, 1, 1)))
    with pytest.raises(LimitExceeded, match="no file"):
        packets.load(small.pack("00" * 32) * 30)
    for wrong in (b"DLF\x13" + file[4:], b"DLF\x16" + file[4:]):
        with pytest.raises(FormatError, match="features"):
            packets.load(wrong)


def test_lost_details_are_spread_from_what_is_beside_them() -> None:
    y = np.zeros((2, 9, 16), np.float32)
    y[0], y[1, :, 8:] = 5, 10
    known = np.ones((9, 16), bool)
    known[:, 4:12] = False
    filled = resilient.spread(np.where(known, y, -99).astype(np.float32), known)
    np.testing.assert_array_equal(filled[:, known], y[:, known])
    np.testing.assert_allclose(filled[0], 5, rtol=1e-6)
    line = filled[1, 4]
    assert (np.diff(line) >= -1e-5).all()
    assert 0 < line[4] < 4 < 6 < line[11] < 10


# the front doors


@pytest.fixture
def image(mock_models: None, picture: Picture) -> Image.Image:
    return Image.fromarray(picture(*WIDE))


def test_the_interface(image: Image.Image) -> None:
    data = dlf.encode(image, 40, packet_bytes=256)
    plain = dlf.encode(image, 40)
    assert dlf.decode(data).size == image.size
    info = dlf.info(data, symbols=True)
    assert (info.packets, info.settled, info.checked) == (len(packets.load(data)), None, True)
    assert (dlf.info(plain).packets, info.width, info.quality) == (0, 1100, 40)
    assert info.header_bytes + info.payload_bytes + info.checksum_bytes == info.file_bytes == len(data)
    assert dlf.verify(data, paint=True).good
    found = packets.load(data)
    at = found[1].end
    lost = data[:at] + bytes(len(found[2].data)) + data[found[2].end :]
    with pytest.raises(FormatError, match="something that is none"):
        dlf.decode(lost)
    wrong = data[: at - 1] + bytes([data[at - 1] ^ 1]) + data[at:]
    with pytest.raises(ChecksumError, match="packet 2 of"):
        dlf.decode(wrong)
    assert dlf.verify(wrong).symbols is False
    for part in (lost, lost[found[0].end :], data[100:], data[:-100], b"DLF\x22" + wrong[4:], wrong):
        for best_effort in (False, True):
            salvaged = dlf.salvage(part, best_effort=best_effort)
            assert salvaged.image.size == image.size
            assert salvaged.damage is not None
            assert (salvaged.damage.kind, salvaged.damage.windows) == ("lost", 15)
            assert 1 <= len(salvaged.damage.windows_lost) < 15
            assert "windows of 256x256 pixels are missing" in salvaged.damage.summary


def test_arguments_that_do_not_go_together(image: Image.Image) -> None:
    with pytest.raises(InvalidArgument, match="not a size"):
        dlf.encode(image, bpp=0.1, packet_bytes=256)
    with pytest.raises(InvalidArgument, match="no metadata"):
        dlf.encode(image, metadata=True, packet_bytes=256)
    for wrong in (0, 31, 2**20 + 1):
        with pytest.raises(InvalidArgument, match="packet_bytes"):
            dlf.encode(image, packet_bytes=wrong)


def test_the_commands(
    tmp_path: Path,
    write_bundle: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    picture: Picture,
) -> None:
    run: Callable[..., Done] = runner(monkeypatch, capsysbinary, tmp_path, write_bundle(tmp_path / "model"))
    Image.fromarray(picture(300, 600)).save("photo.png")
    assert run("encode", "photo.png", "--resilient", "--packet-bytes", "300").code == 0
    data = Path("photo.dlf").read_bytes()
    assert data.startswith(START)
    done = run("info", "photo.dlf", "--symbols")
    assert (done.code, done.err) == (0, "")
    assert f"{len(packets.load(data))} packets, model 1 (mock), quality 50" in done.text
    assert run("verify", "photo.dlf").code == 0
    assert run("decode", "photo.dlf", "-o", "whole.png").code == 0
    Path("lost.dlf").write_bytes(bytes(50) + data[50:])
    assert run("decode", "lost.dlf").code == 1
    done = run("decode", "lost.dlf", "--best-effort", "--json")
    assert done.code == 0
    assert json.loads(done.text)["damage"]["windows_lost"] == [0]
    assert "1 of 6 windows" in done.err
    for options, word in (
        (["--packet-bytes", "300"], "--resilient"),
        (["--resilient", "--bpp", "0.1"], "--bpp"),
        (["--resilient", "--keep-metadata"], "--keep-metadata"),
    ):
        done = run("encode", "photo.png", *options)
        assert done.code == 2
        assert word in done.err


@needs_models
def test_a_photo_in_packets() -> None:
    """It looks as it does in one piece, and losing a packet changes nothing far from its windows."""
    with Image.open(Path(__file__).parents[1] / "data" / "astronaut.jpg") as file:
        photo = file.convert("RGB").resize((640, 400))
    codec = dlf.Codec(threads=1)
    data = codec.encode(photo, 30, packet_bytes=256)
    plain = codec.encode(photo, 30)
    assert len(plain) < len(data) < 1.25 * len(plain)
    before, whole = (np.asarray(image, float) for image in (photo, codec.decode(data)))
    error, usual = (np.abs(before - np.asarray(each, float)).mean() for each in (whole, codec.decode(plain)))
    assert error < 1.05 * usual
    last = packets.load(data)[-1]
    damage = codec.salvage(data[: -len(last.data)]).damage
    assert damage is not None
    assert damage.windows_lost == tuple(range(last.packet.first, 6))
    painted = np.asarray(codec.salvage(data[: -len(last.data)]).image, float)
    assert np.abs(painted - whole)[:128, :128].mean() < 3
