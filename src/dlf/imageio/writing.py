"""From decoded pixels to the files of other formats, with the metadata that belongs to them."""

from __future__ import annotations

import io
import logging
import os
import struct
from typing import Any

from PIL import Image, PngImagePlugin

from dlf.errors import ImageError, is_out_of_memory
from dlf.files import write_bytes
from dlf.imageio import metadata as meta
from dlf.imageio.colour import means_srgb, srgb_profile
from dlf.imageio.formats import OUTPUTS, OutputFormat, format_named, format_of
from dlf.imageio.problems import Problems
from dlf.records import Metadata, UInt8

log = logging.getLogger(__name__.rpartition(".")[0])

MAX_JPEG_SEGMENT = 65533
XMP_MARK_BYTES = len("http://ns.adobe.com/xap/1.0/") + 1
TIFF_XMP = 700
OWN_RESOLUTION = frozenset(("png", "jpeg", "tiff"))
"""Formats with a place of their own for the resolution; the others have it in EXIF."""

TIFF_STRUCTURE = frozenset(
    (*range(254, 267), 273, 277, 278, 279, 284, 317, *range(320, 326), 330, 338, 339, 347)
)
TIFF_STRUCTURE |= frozenset((301, 318, 319, *range(512, 522), 529, 530, 531, 532, TIFF_XMP, 34675))
"""Tags of an EXIF block that would say something else in a TIFF file: how it is stored, and its colours."""


def to_image(rgb: UInt8, metadata: Metadata | None = None) -> Image.Image:
    """Turn uint8 (H, W, 3) in sRGB into a picture; metadata goes into its `info`, where `to_bytes` looks.

    The pixels are sRGB whatever the source was.  If the source had an ICC profile, the picture gets one that
    says so: the source's own if that is sRGB, else a profile of sRGB.
    """
    image = Image.fromarray(rgb)
    if metadata is not None:
        image.info |= info_of(metadata)
    return image


def info_of(metadata: Metadata) -> dict[str | tuple[int, int], Any]:
    """Return what a picture's `info` holds of its metadata, in the form that Pillow's own formats give."""
    exif = meta.bare(metadata.exif)
    dpi = metadata.dpi or (meta.exif_resolution(exif, Problems()) if exif else None)
    icc = metadata.icc
    if icc is not None and not means_srgb(icc):
        icc = srgb_profile()
    parts = {
        "exif": meta.EXIF_MARK + exif if exif else None,
        "xmp": metadata.xmp,
        "icc_profile": icc,
        "dpi": dpi,
    }
    return {key: part for key, part in parts.items() if part is not None}


def to_bytes(image: Image.Image, format: str, quality: int | None = None) -> bytes:
    """Return the file of a picture, with what its `info` holds of "exif", "xmp", "icc_profile" and "dpi".

    Args:
        image: any mode that the format takes.
        format: name of an output format, or an ending.
        quality: 1 (smallest) to 100 (best) of the lossy formats; None is the format's default.

    Raises:
        ImageError: the format cannot hold the picture (WebP ends at 16383 pixels a side), or is not known.
        MissingExtra: the format needs a plugin that is not installed.
        InvalidArgument: a quality out of range, or of a lossless format.
    """
    output = OUTPUTS[format_named(format)]
    options = dict(output.options) | _quality(output, quality)
    output.need()
    options |= _metadata_options(output, image)
    file = io.BytesIO()
    try:
        _plain(image).save(file, output.pillow, **options)
    except (OSError, ValueError, KeyError, RuntimeError, OverflowError, struct.error) as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        msg = f"a picture of {image.width}x{image.height} cannot be written as {output.name} ({error})"
        raise ImageError(msg) from error
    return file.getvalue()


def save(
    image: Image.Image, path: str | os.PathLike[str], format: str | None = None, quality: int | None = None
) -> None:
    """Write a picture, whole or not at all; `format` counts more than the ending of the name.

    Raises:
        ImageError: unknown ending, or the format cannot hold the picture.
        MissingExtra, InvalidArgument: as `to_bytes`.
        OSError: the file cannot be written.
    """
    write_bytes(path, to_bytes(image, format_of(path) if format is None else format, quality))


def _plain(image: Image.Image) -> Image.Image:
    """The picture without its `info`, of which each format of Pillow would take what it likes."""
    if not image.info and not image.getexif():
        return image  # large ones are not held twice
    copy = image.copy()
    copy.info = {key: value for key, value in image.info.items() if key == "transparency"}
    copy.getexif().clear()
    return copy


def _quality(output: OutputFormat, quality: int | None) -> dict[str, object]:
    """Option of Pillow for a quality."""
    output.check_quality(quality)
    if quality is None:
        return {} if output.quality is None else {"quality": output.quality}
    if output.name == "jxl" and quality == 100:
        return {"lossless": True}  # which its plugin does not take 100 for
    return {"quality": quality}


def _metadata_options(output: OutputFormat, image: Image.Image) -> dict[str, object]:
    """Options of Pillow for what a picture's `info` holds, as the format wants it."""
    exif, xmp = meta.bare(image.info.get("exif")), image.info.get("xmp")
    icc, dpi = image.info.get("icc_profile"), image.info.get("dpi")
    if output.name == "ppm":
        return {}
    options: dict[str, object] = {}
    if icc and output.name != "jxl":
        options["icc_profile"] = icc
    elif icc and not means_srgb(icc):  # the plugin takes none: the file says sRGB by itself
        msg = "JPEG XL files are written in sRGB alone: convert the picture first"
        raise ImageError(msg)
    if dpi and output.name in OWN_RESOLUTION:
        options["dpi"] = dpi
    elif dpi and not (exif and meta.exif_resolution(exif, Problems())):
        exif = meta.with_resolution(exif, dpi)
    if output.name == "tiff":
        return options | _tiff_options(exif, xmp)
    if output.name == "jpeg":
        exif = _fitting("EXIF", exif, MAX_JPEG_SEGMENT - len(meta.EXIF_MARK))
        xmp = _fitting("XMP", xmp, MAX_JPEG_SEGMENT - XMP_MARK_BYTES)
    if exif:
        options["exif"] = meta.EXIF_MARK + exif
    if xmp and output.name == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options["pnginfo"] = text
    elif xmp:
        options["xmp"] = xmp
    return options


def _fitting(name: str, part: bytes | None, limit: int) -> bytes | None:
    """Leave out, and say so, what is larger than a segment of a JPEG file."""
    if part is None or len(part) <= limit:
        return part
    log.warning("left out %s of %d bytes: a JPEG file holds at most %d", name, len(part), limit)
    return None


def _tiff_options(exif: bytes | None, xmp: bytes | None) -> dict[str, object]:
    """Tags of a TIFF page.  Pillow cannot write EXIF directories into compressed files."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
        for tag in TIFF_STRUCTURE & tags.keys():
            del tags[tag]
    if xmp:
        tags[TIFF_XMP] = xmp
    return {"exif": tags} if tags else {"compression": "tiff_adobe_deflate"}
