"""Codecs that come from elsewhere: a folder of decoded pictures, VVC programs, learned codecs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dlf.errors import DlfError, FormatError, MissingExtra, SpecError
from dlf.evaluation.codecs import vvc
from dlf.evaluation.codecs.decoded import DecodedFolder
from dlf.evaluation.codecs.specs import open_codec, parse_codec
from dlf.evaluation.metrics.fidelity import PSNR
from dlf.records import UInt8

if TYPE_CHECKING:
    from torch import Tensor

Picture = Callable[[int, int], UInt8]


def test_names() -> None:
    spec = parse_codec("glc=decoded:/a/b=c")
    assert (spec.name, spec.kind, spec.argument, spec.scale) == ("glc", "decoded", "/a/b=c", None)
    assert parse_codec("compressai:mbt2018-mean@1/2").name == "compressai-mbt2018-mean@1_2"
    assert parse_codec("avif@0.5").scale == Fraction(1, 2)
    for bad in ("", "avif@", "avif@2", "avif@1/0", "x=y", "=avif", "decoded"):
        with pytest.raises(SpecError):
            open_codec(parse_codec(bad))


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    rgb = picture(40, 60)
    for name, shift in (("small", 60), ("large", 10)):
        Image.fromarray(np.clip(rgb.astype(int) + shift, 0, 255).astype(np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    Image.fromarray(picture(20, 20)).save(tmp_path / "other.png")
    lines = ["picture,file,bpp", "a,large.png,0.1", "a,small.png,0.02", "b.png,other.png,1", "c,absent.png,1"]
    (tmp_path / "bpp.csv").write_text("\n".join(lines))
    return tmp_path


def test_a_folder_of_decoded_pictures(folder: Path, picture: Picture) -> None:
    rgb = picture(40, 60)
    codec = DecodedFolder("glc", folder)
    search = codec.start("a.png", rgb)
    found = [search.fit(budget, PSNR, PSNR.against(rgb)) for budget in (1, 6, 29, 30)]
    assert [point.size for point in found] == [6, 6, 6, 30]  # 40 * 60 * 0.02 / 8
    assert [point.quality for point in found] == [1, 1, 1, 0]
    with Image.open(folder / "large.png") as image:
        assert np.array_equal(found[3].rgb, np.asarray(image))
    again = DecodedFolder("glc", folder)
    assert again.identity == codec.identity
    Image.fromarray(rgb).save(folder / "large.png")
    assert DecodedFolder("glc", folder).identity != codec.identity
    for name, sentence in (("b.png", "another size"), ("c.png", "cannot be read"), ("d.png", "no line for")):
        with pytest.raises(DlfError, match=sentence):
            codec.start(name, rgb).fit(9, PSNR, PSNR.against(rgb))


@pytest.mark.parametrize(
    "text", [None, "", "picture,bpp\na,1", "picture,file,bpp\na,b,0", "picture,file,bpp\na,b,x"]
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "bpp.csv").write_text(text)
    if text == "":
        assert DecodedFolder("x", tmp_path).identity
        return
    with pytest.raises(FormatError, match=r"bpp\.csv"):
        DecodedFolder("x", tmp_path)


PROGRAM = """\
import sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "--version" in sys.argv:
    print("stand-in 1")
elif "-s" in arguments:
    if arguments["--qp"] == "0":
        sys.exit("too fine")
    open(arguments["-o"], "wb").write(open(arguments["-i"], "rb").read()[:: 1])
else:
    open(arguments["-o"], "wb").write(open(arguments["-b"], "rb").read())
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs with the arguments of the real ones that only copy the planes."""
    for name in ("vvencapp", "vvdecapp"):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n{PROGRAM}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are scripts with a first line")
@pytest.mark.parametrize("size", [(32, 48), (33, 47), (1, 1)])
def test_planes_of_vvc(programs: Path, picture: Picture, size: tuple[int, int]) -> None:
    codec = vvc.open_vvc()
    assert "stand-in 1" in codec.identity
    rgb = np.full((*size, 3), (200, 80, 30), np.uint8)
    data = codec.encode(Image.fromarray(rgb), 20)
    even = [side + side % 2 for side in size]
    assert len(data) == 4 + even[0] * even[1] * 3 // 2
    decoded = np.asarray(codec.decode(data)).astype(int)
    assert decoded.shape == (*even, 3)
    assert np.abs(decoded - rgb[0, 0]).max() <= 2
    with pytest.raises(vvc.ProgramError, match="vvencapp failed: too fine"):
        codec.encode(Image.fromarray(rgb), 63)
    with pytest.raises(vvc.ProgramError, match="wrote 5 bytes"):
        codec.decode(data[:9])


def test_samples_of_ten_bits() -> None:
    planes = np.array([4 * 100] * 4 + [4 * 128] * 2, "<u2").tobytes()
    assert np.asarray(vvc._image(planes, 2, 2)).tolist() == [[[100] * 3] * 2] * 2


def test_missing_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingExtra, match="install vvenc"):
        open_codec(parse_codec("vvc"))


class Raw:
    """A learned codec that stores the pixels in two strings."""

    def compress(self, x: Tensor) -> list[bytes]:
        pixels = (x[0] * 255).round().byte().numpy()
        return [pixels[:1].tobytes(), pixels[1:].tobytes()]

    def decompress(self, strings: list[bytes], height: int, width: int) -> Tensor:
        import torch

        pixels = np.frombuffer(b"".join(strings), np.uint8).reshape(1, 3, height, width)
        return torch.tensor(pixels).float() / 255


@pytest.mark.torch
@pytest.mark.parametrize("size", [(64, 128), (65, 30)])
def test_strings_of_a_learned_codec(picture: Picture, size: tuple[int, int]) -> None:
    pytest.importorskip("torch")
    from dlf.evaluation.codecs.neural import NeuralCodec

    asked = []

    def load(quality: int) -> Raw:
        asked.append(quality)
        return Raw()

    codec, rgb = NeuralCodec("raw", load, range(1, 9)), picture(*size)
    data = codec.encode(Image.fromarray(rgb), 3)
    height, width = (-(-side // 64) * 64 for side in size)
    assert len(data) == 2 + 4 + 4 + 3 * height * width
    assert np.array_equal(np.asarray(codec.decode(data)), rgb)
    assert asked == [3, 3]
    with pytest.raises(FormatError, match="cut off"):
        codec.decode(data[:8])


@pytest.mark.torch
@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean"])
def test_compressai(picture: Picture, name: str) -> None:
    pytest.importorskip("torch")
    try:
        import compressai  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"compressai is not installed or does not work here: {error}")
    from dlf.evaluation.codecs.neural import open_compressai

    codec = open_compressai(name, pretrained=False)
    data = codec.encode(Image.fromarray(picture(70, 130)), 1)
    assert codec.decode(data).size == (130, 70)
    with pytest.raises(SpecError, match="mbt2018"):
        open_compressai("absent")


@pytest.mark.torch
@pytest.mark.parametrize("spec", ["compressai:mbt2018", "msillm"])
def test_learned_codecs_that_are_missing(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    for module in ("compressai", "compressai.zoo", "neuralcompression"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install .*compressai"):
        open_codec(parse_codec(spec))
