"""Regions of interest: weights of cells, masks in every form, detectors, then the front doors."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import dlf
import dlf.pillow_plugin
from cli_run import Done
from conftest import picture
from dlf.bitstream import container
from dlf.codec import codec as codec_module
from dlf.codec.codec import StreamCodec
from dlf.codec.detail import Details, walk
from dlf.codec.rate_search import Target, encode_to_size
from dlf.codec.region import BACKGROUND_WEIGHT, background_weights
from dlf.codec.rounding import round_symbols
from dlf.entropy.tables import Tables
from dlf.errors import ImageError, InvalidArgument
from dlf.geometry import Plan
from dlf.records import UInt8
from dlf.roi.mask import Region, importance, load_mask
from shipped_models import needs_models

ASTRONAUT = Path(__file__).parents[1] / "data" / "astronaut.jpg"
FACE = (166, 42, 286, 187)  # left, top, right, bottom


def corner(height: int, width: int) -> UInt8:
    """A mask of which the top left quarter counts."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2, : width // 2] = 255
    return mask


def face_mask() -> UInt8:
    image = Image.new("L", (512, 512))
    ImageDraw.Draw(image).ellipse(FACE, fill=255)
    return np.asarray(image)


def test_a_cell_counts_as_the_most_important_of_its_pixels() -> None:
    mask = np.zeros((70, 100), np.uint8)
    mask[5, 31], mask[33, 40], mask[69, 99] = 255, 51, 255
    weights = background_weights(mask, Plan(70, 100))
    assert weights.dtype == np.float32
    expected = np.ones((3, 4))
    expected[0, 0] = expected[2, 3] = 0
    expected[1, 1] = 0.8
    assert np.allclose(weights, BACKGROUND_WEIGHT * expected)


def test_each_symbol_has_its_own_weight(tables: Tables) -> None:
    exact = np.tile([0.55, -0.55, 1.55, -2.6], 2)
    index = np.full(len(exact), 6, np.int16)
    weights = np.repeat([0, 1e6], 4).astype(np.float32)
    assert round_symbols(exact, index, tables, weights).tolist() == [1, -1, 2, -3, 0, 0, 0, 0]


def test_what_is_written_is_what_is_read(codec: StreamCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[Details] = []

    def watched(*arguments: object) -> Details:
        walked.append(walk(*arguments))  # type: ignore[arg-type]
        return walked[-1]

    monkeypatch.setattr(codec_module, "walk", watched)
    rgb = picture(256, 320)
    plain = container.dump(codec.encode_rgb(rgb, 60))
    data = container.dump(codec.encode_rgb(rgb, 60, importance=corner(256, 320)))
    assert len(data) < len(plain)
    codec.receive(container.load(data))
    outside = np.ones((8, 10), bool)
    outside[:4, :5] = False
    first, sent, received = (each.y_hat for each in walked)
    assert np.array_equal(sent, received)
    assert not np.array_equal(first[:, outside], sent[:, outside])
    # a mask that is white everywhere changes nothing
    everywhere = np.full((256, 320), 255, np.uint8)
    assert container.dump(codec.encode_rgb(rgb, 60, importance=everywhere)) == plain


def test_a_file_with_a_region_has_the_size_and_a_higher_quality(codec: StreamCodec) -> None:
    rgb = picture(512, 768)
    low, high = (len(container.dump(codec.encode_rgb(rgb, quality))) for quality in (0, 100))
    target = Target((low + high) // 2)
    plain = encode_to_size(codec, rgb, target)
    stream = encode_to_size(codec, rgb, target, importance=corner(512, 768))
    assert 0.97 * target.bytes_of(0) <= len(container.dump(stream)) <= target.bytes_of(0)
    assert stream.header.quality > plain.header.quality


def test_masks_of_every_form(tmp_path: Path) -> None:
    mask = corner(40, 60)
    image = Image.fromarray(mask)
    image.convert("1").save(tmp_path / "mask.png")
    content = io.BytesIO()
    image.convert("RGB").save(content, "PNG")
    forms: list[Region] = [
        mask, mask > 0, np.stack([mask] * 3, 2), image, image.convert("1"), tmp_path / "mask.png",
        str(tmp_path / "mask.png"), content.getvalue(), content,
    ]  # fmt: skip
    rgb = picture(40, 60)
    for form in forms:
        assert np.array_equal(importance(form, rgb), mask)  # type: ignore[arg-type]
    grey = np.full((40, 60), 77, np.uint8)
    assert np.array_equal(load_mask(grey), grey)


def test_masks_that_cannot_be_used() -> None:
    rgb = picture(40, 60)
    with pytest.raises(InvalidArgument, match="has 40x60 pixels, but the image has 60x40"):
        importance(corner(60, 40), rgb)
    with pytest.raises(InvalidArgument, match="is black"):
        importance(np.zeros((40, 60), np.uint8), rgb)
    with pytest.raises(ImageError, match="mask of the region cannot be used"):
        importance(b"no picture", rgb)
    with pytest.raises(ImageError, match="float64"):
        importance(np.ones((40, 60)), rgb)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        importance("no such file.png", rgb)
    with pytest.raises(TypeError):
        importance(7, rgb)  # type: ignore[arg-type]


def test_a_face_is_found() -> None:
    pytest.importorskip("cv2", reason="the detectors need OpenCV")
    rgb = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    large = np.asarray(Image.fromarray(rgb).resize((1536, 1536)))
    for found in (importance("faces", rgb), importance("faces", large)):
        assert found is not None
        small = np.asarray(Image.fromarray(found).resize((512, 512), Image.Resampling.NEAREST)) > 0
        truth = face_mask() > 0
        assert (small & truth).sum() > 0.6 * (small | truth).sum()


def test_text_is_found() -> None:
    pytest.importorskip("cv2", reason="the detectors need OpenCV")
    image = Image.new("RGB", (640, 400), (200, 190, 180))
    for line in range(3):
        ImageDraw.Draw(image).text(
            (40, 40 + 40 * line), "important words in a row", (20, 20, 60), font_size=28
        )
    found = importance("text", np.asarray(image))
    assert found is not None
    assert (found[45:145, 45:350] > 0).mean() > 0.7
    assert not found[200:].any()


def test_nothing_found_is_told_and_all_counts_the_same(
    codec: StreamCodec, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("cv2", reason="the detectors need OpenCV")
    empty = np.full((128, 128, 3), 90, np.uint8)
    for name in ("faces", "text"):
        assert importance(name, empty) is None
        assert f"no {name} found" in caplog.text


Dlf = Callable[..., Done]


@pytest.fixture(name="dlf_command")
def dlf_command_fixture(dlf_beside: Dlf, tmp_path: Path) -> Dlf:
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.fromarray(picture(256, 320)).save(tmp_path / "in" / f"{name}.png")
    Image.fromarray(picture(64, 64)).save(tmp_path / "in" / "small.png")
    Image.fromarray(corner(256, 320)).save(tmp_path / "mask.png")
    Image.new("L", (320, 256)).save(tmp_path / "black.png")
    (tmp_path / "junk.png").write_text("no picture")
    return dlf_beside


def test_command_takes_one_mask_for_all_of_its_size(dlf_command: Dlf, tmp_path: Path) -> None:
    assert dlf_command("encode", "in/a.png", "-q", 60).code == 0
    done = dlf_command("encode", "in", "-o", "out", "-q", 60, "--roi", "mask.png")
    assert done.code == 1
    assert "small.png: the mask of the region has 320x256 pixels, but the image has 64x64" in done.err
    assert not (tmp_path / "out" / "small.dlf").exists()
    plain = (tmp_path / "in" / "a.dlf").stat().st_size
    assert all((tmp_path / "out" / f"{name}.dlf").stat().st_size < plain for name in "ab")


@pytest.mark.parametrize("option", [("--resilient",), ("--total-bytes", 3000)])
def test_command_refuses_beside(option: tuple[object, ...], dlf_command: Dlf, tmp_path: Path) -> None:
    done = dlf_command("encode", "in", "-o", "out", "--roi", "mask.png", *option)
    assert done.code == 2
    assert "--roi" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mask", ["no_such.png", "black.png", "junk.png", "-", "in"])
def test_command_refuses_a_mask_before_the_first_input(mask: str, dlf_command: Dlf, tmp_path: Path) -> None:
    done = dlf_command("encode", "in/a.png", "--roi", mask)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "--roi" in done.err
    assert not (tmp_path / "in" / "a.dlf").exists()


@needs_models
@pytest.mark.usefixtures("package_model")
def test_a_face_gets_better_at_equal_bytes(tmp_path: Path) -> None:
    mask = face_mask()
    original = np.asarray(Image.open(ASTRONAUT).convert("RGB")).astype(float)
    with Image.open(ASTRONAUT) as image:
        image.save(tmp_path / "roi.dlf", bytes=900, roi=mask)
    files = [dlf.encode(ASTRONAUT, max_bytes=900), (tmp_path / "roi.dlf").read_bytes()]
    assert all(873 <= len(data) <= 900 for data in files)
    errors = [np.square(np.asarray(dlf.decode(data)) - original)[mask > 0].mean() for data in files]
    assert errors[1] < 0.87 * errors[0]  # 0.6 dB
