"""Opening files with Pillow: which plugin, how large, whether complete; its settings stay as they are."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageChops, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from dlf.errors import DlfError, ImageError, LimitExceeded, is_out_of_memory
from dlf.imageio import boxes, gif, mend, plugins, png, tiff
from dlf.imageio.problems import Problems
from dlf.imageio.raw import refuse_camera_raw
from dlf.imageio.sidecar import Sidecar
from dlf.limits import check_size
from dlf.records import UInt8

DLF_MAGIC = b"DLF"
HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
AVIF_BRANDS = frozenset((b"avif", b"avis"))

FOREIGN = "Pillow hands them to another program, which is no place for untrusted files"
REFUSED = {
    "DLF": ".dlf files are not encoded again: decode them first",
    "EPS": f"EPS files are not read: {FOREIGN}",
    "WMF": f"WMF files are not read: {FOREIGN}",
    "PCD": "Photo CD files are not read: Pillow gives a small version of their picture",
    "MPEG": "films are not read",
    "BUFR": "BUFR files are not read",
    "GRIB": "GRIB files are not read",
    "HDF5": "HDF5 files are not read",
    "SPIDER": "SPIDER files hold floating-point numbers without a defined range and are not read",
}
"""Formats that Pillow knows and that are not read, each with the reason."""

PSD_VERSION_INFO = 1057

END_MARKS = {"GIF": b";", "QOI": b"\0\0\0\1"}
"""Ends of files that Pillow reads without them."""

DEPTHS = {"L;2": 2, "L;4": 4, "RGB;16B": 16}
"""Bits of a sample by Pillow's name for how a PNG file stores it, where it makes 8 of them."""

_limit_lock = threading.Lock()


@dataclass(frozen=True)
class Opened:
    """A loaded picture, and what Pillow does not say of it.

    depth: bits of a sample in the file, where Pillow has made 8 of them; else 8.
    low_bytes: gives the lower half of 16-bit RGB samples, uint8 (H, W, 3); None if there is none.
    """

    image: Image.Image
    sidecar: Sidecar
    depth: int = 8
    low_bytes: Callable[[], UInt8] | None = None


@contextmanager
def pillow_limit_lifted() -> Iterator[None]:
    """Suspend Pillow's own limit of pixels, for a picture that has been held against the caller's.

    The limit is one of the whole process: one thread at a time suspends it, and it is back before this ends.
    """
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def open_file(file: BinaryIO, max_pixels: int, problems: Problems) -> Opened:
    """Open and load the first picture of a file.

    Raises:
        ImageError: it cannot be read rightly.
        LimitExceeded: it is too large.
        MissingExtra: it needs a plugin that is not installed.
    """
    file.seek(0)
    head = file.read(64)
    if not head:
        msg = "the file is empty"
        raise ImageError(msg)
    view, sidecar = _examine(file, head, max_pixels)
    for problem in sidecar.problems:
        problems.add(problem)
    image = identify(view, max_pixels)
    for kind, end in END_MARKS.items():
        if image.format == kind and not _ends_with(file, end):
            problems.add(f"the {kind} file ends without its end mark")
    try:
        opened = load(image, max_pixels, sidecar, problems)
    except (OSError, ValueError, SyntaxError):
        mended = mend.with_end(file, str(image.format), lambda part: identify(part, max_pixels))
        if mended is None:
            raise
        problems.add(f"the {image.format} file ends without its end mark")
        return Opened(mended, sidecar)
    if image.format == "TGA" and image.mode == "RGBA" and not _has_attributes(file):
        return replace(opened, image=image.convert("RGB"))
    # where Pillow would have put them
    image.info |= {name: part for name in ("exif", "xmp") if (part := getattr(sidecar, name)) is not None}
    if opened.depth != 16:
        return opened
    return replace(opened, low_bytes=lambda: _low_bytes(identify(view, max_pixels)))


def load(image: Image.Image, max_pixels: int, sidecar: Sidecar, problems: Problems) -> Opened:
    """Decode a picture that Pillow has opened, or take one from memory.

    Raises:
        ImageError, LimitExceeded: as `open_file`.
    """
    check(image, max_pixels)
    tile = image.tile[0] if isinstance(image, ImageFile.ImageFile) and image.tile else None
    depth = DEPTHS.get(str(tile[3]), 8) if tile and image.format == "PNG" else 8
    if isinstance(image, TiffImageFile):
        if image.tile and image.fp is not None:
            image.fp.seek(0)
            refuse_camera_raw(image.fp, image.fp.read(64))
        try:
            sidecar = replace(sidecar, exif=tiff.exif_of(image))
        except Exception as error:  # broken tags raise nearly anything, and the pixels are good
            problems.add(f"ignored broken EXIF data: {error}")
    limit = Image.MAX_IMAGE_PIXELS
    beyond = limit is not None and image.width * image.height > limit
    with pillow_limit_lifted() if beyond else nullcontext():
        image.load()  # some formats know their metadata only now
    if image.format == "XBM":  # set bits are ink, which Pillow takes for light
        image = ImageChops.invert(image)
    return Opened(image, sidecar, depth)


def check(image: Image.Image, max_pixels: int) -> None:
    """Refuse, before it is decoded, a picture that is too large or of a kind that is not read.

    Raises:
        ImageError, LimitExceeded: as `open_image`.
    """
    check_size(*image.size, max_pixels)
    if 0 in image.size:
        msg = "the picture has no pixels"
        raise ImageError(msg)
    if image.format in REFUSED:
        raise ImageError(REFUSED[image.format])
    if isinstance(image, TiffImageFile):
        tiff.prepare(image)
    if image.format == "PSD" and _lacks_composite(image):
        msg = "the PSD file was saved without the picture that its layers make"
        raise ImageError(msg)


def identify(file: BinaryIO, max_pixels: int) -> Image.Image:
    """Find the plugin that reads a file, as `Image.open` does, but without Pillow's limit of pixels.

    Raises:
        UnidentifiedImageError: none does.
        ImageError: one should, but cannot.
    """
    file.seek(0)
    head = file.read(16)
    tried: set[str] = set()
    reason = ""
    for initialise in (Image.preinit, Image.init):
        initialise()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            verdict: bool | str = False
            try:
                verdict = accept is None or accept(head)
                if verdict is True:
                    return _construct(factory, file, max_pixels)
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                if verdict and accept is not None:
                    reason = reason or f"{name}: {error}"
            if isinstance(verdict, str):
                reason = reason or f"{name}: {verdict}"
    if reason:
        msg = f"the image is damaged, or of a kind that is not read ({reason})"
        raise ImageError(msg)
    raise UnidentifiedImageError


def _construct(factory: object, file: BinaryIO, max_pixels: int) -> Image.Image:
    """Call a plugin; some compare the size with Pillow's limit at once, which the caller's may exceed."""
    limit = Image.MAX_IMAGE_PIXELS
    beyond = limit is not None and max_pixels > limit
    file.seek(0)
    try:
        return factory(file, "")  # type: ignore[operator, no-any-return]
    except Image.DecompressionBombError:
        if not beyond:
            raise
    with pillow_limit_lifted():
        file.seek(0)
        return factory(file, "")  # type: ignore[operator, no-any-return]


def _low_bytes(image: Image.Image) -> UInt8:
    """Lower halves of the 16-bit samples of a PNG file: Pillow's upper ones, if told the other order."""
    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [image.tile[0]._replace(args="RGB;16L")]
    image.load()
    return np.asarray(image)


def _examine(file: BinaryIO, head: bytes, max_pixels: int) -> tuple[BinaryIO, Sidecar]:
    """Look at a file before Pillow does; returns what Pillow is to see, and what it would not say."""
    refuse_camera_raw(file, head)
    if head.startswith(DLF_MAGIC):  # Pillow knows them only where their plugin has been imported
        raise ImageError(REFUSED["DLF"])
    if head.startswith(png.MAGIC):
        return png.examine(file)
    if head.startswith((boxes.JXL_CODESTREAM, boxes.JXL_CONTAINER)):
        plugins.need_jxl()
        if (size := boxes.jxl_size(file)) is not None:
            check_size(*size, max_pixels)
        return file, boxes.jxl_sidecar(file)
    if head.startswith(boxes.JP2_CONTAINER):
        return file, boxes.jp2_sidecar(file)
    if head.startswith(gif.MAGIC):
        return file, gif.sidecar(file)
    if head[4:8] == b"ftyp":
        length = int.from_bytes(head[:4], "big")
        brands = {head[at : at + 4] for at in (8, *range(16, min(length, len(head)), 4))}
        if brands & HEIC_BRANDS:
            plugins.need_heic()
        elif brands & AVIF_BRANDS:
            plugins.need_avif()
            return file, boxes.avif_sidecar(file)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        plugins.need_webp()
        if (mended := mend.webp_with_end(file)) is not None:
            return mended, Sidecar(problems=("the WebP file is cut off behind its picture",))
    return file, Sidecar()


def _ends_with(file: BinaryIO, end: bytes) -> bool:
    """Whether a file ends in `end`, but for zeros."""
    size = file.seek(0, 2)
    file.seek(max(size - 512, 0))
    return file.read().rstrip(b"\0").endswith(end)


def _has_attributes(file: BinaryIO) -> bool:
    """Whether a TGA file says that its fourth channel is transparency, and not nothing at all."""
    file.seek(17)
    return bool(file.read(1)[0] & 0x0F)


def _lacks_composite(image: Image.Image) -> bool:
    """Whether a PSD file says that what stands in for the composite is not one."""
    resources = getattr(image, "resources", ())
    return any(number == PSD_VERSION_INFO and data[4:5] == b"\0" for number, _, data in resources)


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Turn whatever Pillow raises on bad files (nearly anything) into our errors."""
    try:
        yield
    except (DlfError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        msg = "the picture is far above the limit of pixels"
        raise LimitExceeded(msg) from error
    except UnidentifiedImageError as error:
        msg = "this is not an image of a known format"
        raise ImageError(msg) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        reason = str(error).partition("\n")[0].partition(". ")[0]  # some give advice to programmers as well
        msg = "the image is damaged or cut off" + (f" ({reason})" if reason else "")
        raise ImageError(msg) from error
