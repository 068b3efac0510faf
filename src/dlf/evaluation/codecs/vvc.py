"""VVC (H.266) still pictures through the programs of Fraunhofer HHI, vvencapp and vvdecapp."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from dlf.errors import DlfError, MissingExtra

PRESET = "medium"
INSTALL = "install vvenc and vvdec (github.com/fraunhoferhhi) and put both into PATH"


class ProgramError(DlfError):
    """A program of another codec failed."""


@dataclass(frozen=True)
class Vvc:
    """A `Codec` of one intra picture, 8 bits, 4:2:0, BT.601; odd sides are scaled to the next even ones.

    qualities are 63 - QP.  encoder, decoder: paths of the programs.  identity: their versions.
    """

    encoder: str
    decoder: str
    identity: str
    qualities: range = range(64)

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """Return the bit stream; raises ProgramError."""
        even = image.resize((image.width + image.width % 2, image.height + image.height % 2))
        with TemporaryDirectory(prefix="dlf-") as folder:
            source, target = Path(folder, "in.yuv"), Path(folder, "out.266")
            source.write_bytes(_header_free(even))
            arguments = ["-s", f"{even.width}x{even.height}", "-c", "yuv420", "-r", "1", "--frames", "1"]
            choices = ["--preset", PRESET, "--qp", str(63 - quality), "--intraperiod", "1", "--threads", "1"]
            _run([self.encoder, "-i", str(source), *arguments, *choices, "-o", str(target)])
            return _size(even) + target.read_bytes()

    def decode(self, data: bytes) -> Image.Image:
        """Return the image; raises ProgramError."""
        width, height = (int.from_bytes(data[i : i + 2], "little") for i in (0, 2))
        with TemporaryDirectory(prefix="dlf-") as folder:
            source, target = Path(folder, "in.266"), Path(folder, "out.yuv")
            source.write_bytes(data[4:])
            _run([self.decoder, "-b", str(source), "-o", str(target)])
            return _image(target.read_bytes(), width, height)


def open_vvc() -> Vvc:
    """Find the programs; raises MissingExtra."""
    encoder, decoder = shutil.which("vvencapp"), shutil.which("vvdecapp")
    if encoder is None or decoder is None:
        msg = f"the codec vvc needs the programs vvencapp and vvdecapp: {INSTALL}"
        raise MissingExtra(msg)
    versions = [_run([program, "--version"]).strip() for program in (encoder, decoder)]
    return Vvc(encoder, decoder, f"vvc {PRESET} {' '.join(versions)}")


def _run(command: list[str]) -> str:
    process = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if process.returncode:
        last = (process.stderr or process.stdout).strip().splitlines()[-1:] or ["no message"]
        msg = f"{Path(command[0]).name} failed: {last[0]}"
        raise ProgramError(msg)
    return process.stdout


def _size(image: Image.Image) -> bytes:
    """Return the size of the image; kept beside the stream, 4 bytes that every format needs."""
    return image.width.to_bytes(2, "little") + image.height.to_bytes(2, "little")


def _header_free(image: Image.Image) -> bytes:
    """Return the planes Y, Cb, Cr (halved), one after the other."""
    y, cb, cr = image.convert("YCbCr").split()
    half = image.width // 2, image.height // 2
    return b"".join(p.tobytes() for p in (y, *(c.resize(half, Image.Resampling.BOX) for c in (cb, cr))))


def _image(planes: bytes, width: int, height: int) -> Image.Image:
    """Return the RGB image of three planes of 8 bits, or of 16 with 10 used."""
    count = width * height * 3 // 2
    samples = np.frombuffer(planes, np.uint8)
    if len(planes) == 2 * count:
        samples = (np.frombuffer(planes, "<u2").astype(np.float32) / 4).round().clip(0, 255).astype(np.uint8)
    if len(samples) != count:
        msg = f"the VVC decoder wrote {len(planes)} bytes for {width}x{height} pixels"
        raise ProgramError(msg)
    y, cb, cr = np.split(samples, [width * height, width * height * 5 // 4])
    chroma = [
        Image.fromarray(c.reshape(height // 2, width // 2)).resize((width, height), Image.Resampling.BICUBIC)
        for c in (cb, cr)
    ]
    return Image.merge("YCbCr", (Image.fromarray(y.reshape(height, width)), *chroma)).convert("RGB")
