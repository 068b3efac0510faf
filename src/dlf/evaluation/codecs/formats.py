"""The common formats, as Pillow and its plugins read and write them, and our own codec."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol

import numpy as np
from PIL import Image, features

from dlf.errors import MissingExtra
from dlf.evaluation.codecs.protocols import Codec
from dlf.imageio import plugins
from dlf.records import UInt8

AVIF_SPEED = 6
"""Speed 4 takes five times as long and hardly pays; see docs/evaluation.md."""


@dataclass(frozen=True)
class PillowCodec:
    """A `Codec` that Pillow or one of its plugins reads and writes."""

    format: str
    identity: str
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    qualities: range = range(101)

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """Return the file of an RGB image."""
        file = io.BytesIO()
        image.save(file, self.format, quality=quality, **self.options)
        return file.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        """Return the RGB image of a file."""
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")


class ArrayCodec(Protocol):
    """What `DlfCodec` needs of a codec; `dlf.Codec` has it."""

    def encode(self, image: UInt8, quality: int) -> bytes:
        """Compress uint8 (H, W, 3)."""
        ...

    def decode(self, data: bytes) -> Image.Image:
        """Return the image."""
        ...


@dataclass(frozen=True)
class DlfCodec:
    """A `Codec` over `dlf.Codec`; identity: of the model, model: its folder or name, None the package's."""

    codec: ArrayCodec
    identity: str
    model: str | None = None
    qualities: range = range(101)

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """Return the file of an RGB image."""
        return self.codec.encode(np.asarray(image), quality)

    def decode(self, data: bytes) -> Image.Image:
        """Return the RGB image of a file."""
        return self.codec.decode(data).convert("RGB")


def _jpeg() -> PillowCodec:
    options: dict[str, str | int | bool] = {"subsampling": "4:2:0", "progressive": True, "optimize": True}
    return _built_in("JPEG", "jpg", options, range(1, 96))  # Pillow advises against more than 95


def _webp() -> PillowCodec:
    plugins.need_webp()
    return _built_in("WEBP", "webp", {"method": 6})


def _avif() -> PillowCodec:
    plugins.need_avif()
    return _built_in("AVIF", "avif", {"speed": AVIF_SPEED, "subsampling": "4:2:0"})


def _jxl() -> PillowCodec:
    plugins.need_jxl()
    return PillowCodec("JXL", f"jxl {version('pillow-jxl-plugin')}", {"effort": 7})


def _heic() -> PillowCodec:
    plugins.need_heic()
    from pillow_heif import libheif_version

    return PillowCodec("HEIF", f"heic {libheif_version()}")


def _built_in(
    kind: str, feature: str, options: Mapping[str, str | int | bool], qualities: range = range(101)
) -> PillowCodec:
    return PillowCodec(kind, f"{kind} {features.version(feature)} {dict(options)}", options, qualities)


OPENERS: dict[str, Callable[[], Codec]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "avif": _avif,
    "jxl": _jxl,
    "heic": _heic,
}
"""Every common format by name; each opener raises MissingExtra if what it needs is not installed."""


def open_format(name: str) -> Codec:
    """Return a common format by its key in OPENERS.

    Raises:
        MissingExtra: what it needs is not installed.
    """
    try:
        return OPENERS[name]()
    except MissingExtra as error:
        msg = f"the codec {name}: {error}"
        raise MissingExtra(msg) from error
