"""Formats of files by name and by ending: which can be written, and what is read and written here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dlf.errors import ImageError, InvalidArgument, MissingExtra
from dlf.imageio import plugins


@dataclass(frozen=True)
class OutputFormat:
    """A format that pictures are written in.

    pillow: Pillow's name of it.  suffixes: endings of file names, the usual one first.
    quality: default of lossy formats, 1..100; None is lossless.
    need: raises MissingExtra if it cannot be written here.
    """

    name: str
    pillow: str
    suffixes: tuple[str, ...]
    quality: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    need: Callable[[], None] = lambda: None

    def check_quality(self, quality: int | None) -> None:
        """Raise InvalidArgument for a quality that is out of range, or of a lossless format."""
        if quality is None:
            return
        if self.quality is None:
            msg = f"{self.name} is lossless, so a quality does not apply to it"
            raise InvalidArgument(msg)
        if not 1 <= quality <= 100:
            msg = f"a quality of {self.name} is 1 to 100, not {quality}"
            raise InvalidArgument(msg)


@dataclass(frozen=True)
class FormatSupport:
    """What can be done with a format here.

    suffixes: endings of file names, the usual one first; may be empty.
    missing: what keeps it from being read or written, with the line to type; None if nothing does.
    """

    name: str
    suffixes: tuple[str, ...]
    readable: bool
    writable: bool
    missing: str | None = None


# Z_RLE of zlib: painted photographs come within 1 % of what a search for longer matches gives, in a fifth
# of the time
_RUN_LENGTHS = 3

OUTPUTS = {
    output.name: output
    for output in (
        OutputFormat("png", "PNG", (".png",), options={"compress_type": _RUN_LENGTHS}),
        OutputFormat("jpeg", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 95, {"subsampling": 0}),
        OutputFormat("webp", "WEBP", (".webp",), 90, need=plugins.need_webp),
        OutputFormat("tiff", "TIFF", (".tif", ".tiff")),
        OutputFormat("avif", "AVIF", (".avif",), 90, {"subsampling": "4:4:4"}, need=plugins.need_avif),
        OutputFormat("ppm", "PPM", (".ppm",)),
        OutputFormat("heic", "HEIF", (".heic", ".heif", ".hif"), 90, {"chroma": 444}, need=plugins.need_heic),
        OutputFormat("jxl", "JXL", (".jxl",), 90, need=plugins.need_jxl),
    )
}
"""Formats that pictures are written in, by name."""

SUFFIXES = {suffix: output.name for output in OUTPUTS.values() for suffix in output.suffixes}
"""Name of the format by the ending of a file name, in small letters."""


def format_named(name: str) -> str:
    """Return the name of an output format by its name or one of its endings, in any case: "JPG" is "jpeg".

    Raises:
        ImageError: no such format.
    """
    small = name.lower().removeprefix(".")
    known = small if small in OUTPUTS else SUFFIXES.get(f".{small}")
    if known is None:
        msg = f"there is no output format '{name}': it must be one of {', '.join(OUTPUTS)}"
        raise ImageError(msg)
    return known


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the name of an output format by the ending of a file name.

    Raises:
        ImageError: any other ending.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in SUFFIXES:
        what = f"as '{suffix}'" if suffix else f"to '{path}', whose name has no ending"
        msg = f"cannot write a picture {what}: the name must end in {', '.join(SUFFIXES)}"
        raise ImageError(msg)
    return SUFFIXES[suffix.lower()]


def formats() -> tuple[FormatSupport, ...]:
    """List the formats that are read or written, those that are written first; imports what is installed."""
    from PIL import Image

    from dlf.imageio.opening import REFUSED

    written = tuple(_support(output) for output in OUTPUTS.values())
    Image.init()
    suffixes: dict[str, list[str]] = {}
    for suffix, kind in Image.EXTENSION.items():
        suffixes.setdefault(kind, []).append(suffix)
    own = {output.pillow for output in OUTPUTS.values()}
    others = sorted(name for name in Image.OPEN if name not in own and name not in REFUSED)
    return written + tuple(
        FormatSupport(name.lower(), tuple(suffixes.get(name, ())), readable=True, writable=False)
        for name in others
    )


def _support(output: OutputFormat) -> FormatSupport:
    from PIL import Image

    try:
        output.need()
    except MissingExtra as error:
        return FormatSupport(output.name, output.suffixes, readable=False, writable=False, missing=str(error))
    Image.init()
    writable = output.pillow in Image.SAVE
    missing = None if writable else "the plugin that is installed was built without an encoder"
    return FormatSupport(output.name, output.suffixes, output.pillow in Image.OPEN, writable, missing)
