"""Front door: functions that turn images into bytes of a ``.dlf`` file and back with the package's model."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from dlf.codec import bundle
from dlf.codec.engine import EngineOptions
from dlf.codec.spent import Spent
from dlf.content import Data
from dlf.image_codec import Codec
from dlf.limits import MAX_PIXELS
from dlf.records import Damage, InstalledModel, Salvaged, StreamInfo, Verdict

if TYPE_CHECKING:
    from PIL import Image

    from dlf.imageio import Source
    from dlf.roi.mask import Region

__all__ = [
    "Codec",
    "Damage",
    "Data",
    "EngineOptions",
    "InstalledModel",
    "Salvaged",
    "Spent",
    "StreamInfo",
    "Verdict",
    "decode",
    "encode",
    "info",
    "models",
    "salvage",
    "verify",
]


@lru_cache(maxsize=1)
def _default_codec() -> Codec:
    return Codec()


def _limited_codec(max_pixels: int, max_seconds: float | None) -> Codec:
    """Return the default codec, or one of other limits that has its networks."""
    default = _default_codec()
    if max_pixels == MAX_PIXELS and max_seconds is None:
        return default
    return default.within(max_pixels, max_seconds)


def encode(
    image: Source,
    quality: int | None = None,
    *,
    max_bytes: int | None = None,
    bpp: float | None = None,
    best: bool = False,
    metadata: bool = False,
    strict: bool = False,
    roi: Region | None = None,
    packet_bytes: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float | None = None,
) -> bytes:
    """Compress an image with the model of the package; limits as of `Codec`, the rest of `Codec.encode`."""
    return _limited_codec(max_pixels, max_seconds).encode(
        image, quality, max_bytes=max_bytes, bpp=bpp, best=best, metadata=metadata, strict=strict,
        roi=roi, packet_bytes=packet_bytes,
    )  # fmt: skip


def decode(
    data: Data,
    *,
    allow_partial: bool = False,
    best_effort: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float | None = None,
) -> Image.Image:
    """Paint the image of a ``.dlf`` file; limits as of `Codec`, the rest of `Codec.decode`."""
    codec = _limited_codec(max_pixels, max_seconds)
    return codec.decode(data, allow_partial=allow_partial, best_effort=best_effort)


def salvage(
    data: Data, *, best_effort: bool = False, max_pixels: int = MAX_PIXELS, max_seconds: float | None = None
) -> Salvaged:
    """Paint what there is of a ``.dlf`` file; limits as of `Codec`, the rest of `Codec.salvage`."""
    return _limited_codec(max_pixels, max_seconds).salvage(data, best_effort=best_effort)


def verify(
    data: Data, *, paint: bool = False, max_pixels: int = MAX_PIXELS, max_seconds: float | None = None
) -> Verdict:
    """Check a whole ``.dlf`` file; limits as of `Codec`, the rest of `Codec.verify`."""
    return _limited_codec(max_pixels, max_seconds).verify(data, paint=paint)


def info(
    data: Data,
    *,
    symbols: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float | None = None,
) -> StreamInfo:
    """Describe a ``.dlf`` file; limits as of `Codec`, the rest of `Codec.info`."""
    return _limited_codec(max_pixels, max_seconds).info(data, symbols=symbols)


def models() -> tuple[InstalledModel, ...]:
    """Return the models that are installed: the package's, then the user's (``$DLF_MODELS``).

    A folder that holds no usable model is left out, with a line in the log.
    """
    return tuple(model.describe() for model in bundle.installed())
