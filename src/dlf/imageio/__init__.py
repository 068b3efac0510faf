"""Pictures in and out: anything Pillow reads to upright 8-bit sRGB, and back to the common formats.

What happens to each kind of input, in this order:

- more than one frame: the first (of an icon: the largest);
- samples of other than 8 bits: to 8 bits by their range, not by their values; signed and floating-point
  samples have no range and are refused;
- the way the file says how its numbers are colours: an ICC profile; else, of a PNG, AVIF or HEIC file, the
  code points of its video signal (HDR signals are refused), which in a PNG file come first; else, of a PNG
  file, gAMA and cHRM; else Pillow's standard conversion of CMYK, YCbCr, LAB, HSV;
- transparency of any kind: composited on white;
- EXIF orientation: applied.

A camera's raw file, of which Pillow would see a preview, is refused.
"""

from __future__ import annotations

from dlf.imageio.formats import FormatSupport, format_named, format_of, formats

# type checkers take it for true
TYPE_CHECKING = False

if TYPE_CHECKING:
    from dlf.imageio.reading import Source, load_rgb
    from dlf.imageio.writing import info_of, save, to_bytes, to_image

__all__ = [
    "FormatSupport",
    "Source",
    "format_named",
    "format_of",
    "formats",
    "info_of",
    "load_rgb",
    "save",
    "to_bytes",
    "to_image",
]

_HOMES = {
    "Source": "reading",
    "load_rgb": "reading",
    "info_of": "writing",
    "save": "writing",
    "to_bytes": "writing",
    "to_image": "writing",
}
"""Modules of what is loaded when it is first used: who writes needs no reader of files, nor the reverse."""


def __getattr__(name: str) -> object:
    """Import what is not loaded yet."""
    if name not in _HOMES:
        msg = f"module 'dlf.imageio' has no attribute '{name}'"
        raise AttributeError(msg)
    from importlib import import_module

    value = getattr(import_module(f"dlf.imageio.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
