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

from dlf.imageio.formats import FormatSupport, format_named, format_of, formats
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
