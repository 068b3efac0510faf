"""EXIF, XMP, ICC profile and resolution: collected from any container, made to fit upright pixels."""

from __future__ import annotations

import math
import re
from typing import Literal

from PIL import Image

from dlf.imageio.problems import Problems
from dlf.imageio.sidecar import Sidecar
from dlf.records import Metadata

EXIF_MARK = b"Exif\0\0"
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
INCHES, CENTIMETRES = 2, 3
PSD_RESOURCES = {1058: "exif", 1060: "xmp"}


def collect(image: Image.Image, sidecar: Sidecar, problems: Problems) -> Metadata | None:
    """Gather what came along with a loaded picture, made to say that it is upright; None if nothing did."""
    info = image.info
    icc = sidecar.icc or _as_bytes(info.get("icc_profile"))
    exif = bare(sidecar.exif or _as_bytes(info.get("exif")))
    xmp = _as_bytes(info.get("xmp")) or _as_bytes(info.get("XML:com.adobe.xmp"))
    for number, _, data in getattr(image, "resources", ()):  # of a PSD file
        if PSD_RESOURCES.get(number) == "exif":
            exif = exif or bare(data)
        elif PSD_RESOURCES.get(number) == "xmp":
            xmp = xmp or data
    dpi = _resolution(info.get("dpi"))
    if exif:
        exif = _upright(exif)
        if dpi is not None and _agree(dpi, exif_resolution(exif, problems)):
            dpi = None
    if xmp:
        xmp = re.sub(rb"(tiff:Orientation(?:\s*=\s*[\"']|>))[2-8]", rb"\g<1>1", xmp)
    return Metadata(icc, exif, xmp, dpi) if icc or exif or xmp or dpi else None


def bare(exif: bytes | None) -> bytes | None:
    """EXIF without the mark that some containers put before it; None instead of nothing."""
    while exif and exif.startswith(EXIF_MARK):
        exif = exif[len(EXIF_MARK) :]
    return exif or None


def exif_resolution(exif: bytes, problems: Problems) -> tuple[float, float] | None:
    """Dots per inch by the tags of an EXIF block; None if it does not say."""
    try:
        tags = Image.Exif()
        tags.load(exif)
        unit = tags.get(RESOLUTION_UNIT, INCHES)
        scale = {INCHES: 1.0, CENTIMETRES: 2.54}[unit]
        return _resolution((scale * tags[X_RESOLUTION], scale * tags[Y_RESOLUTION]))
    except KeyError:
        return None
    except Exception as error:  # a broken EXIF block raises nearly anything
        problems.add(f"ignored broken EXIF data: {error}")
        return None


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """Return an EXIF block that says the resolution, for containers that have no other place for it."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    tags[X_RESOLUTION], tags[Y_RESOLUTION] = dpi
    tags[RESOLUTION_UNIT] = INCHES
    return bare(tags.tobytes()) or b""


def orientation(image: Image.Image, problems: Problems) -> int:
    """EXIF orientation 1..8; 1 where absent or unreadable."""
    try:
        value = image.getexif().get(ORIENTATION)
    except Exception as error:  # a broken EXIF block raises nearly anything, and the pixels are good
        problems.add(f"ignored broken EXIF data: {error}")
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _resolution(dpi: object) -> tuple[float, float] | None:
    """Two numbers of dots per inch that one can write; what Pillow gives may be anything."""
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    try:
        x, y = float(dpi[0]), float(dpi[1])
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # Pillow says 1 for a TIFF file that says nothing
    return (x, y) if all(math.isfinite(value) and 1 < value <= 1e6 for value in (x, y)) else None


def _agree(one: tuple[float, float], other: tuple[float, float] | None) -> bool:
    return other is not None and all(abs(a - b) < 0.01 * a for a, b in zip(one, other, strict=True))


def _as_bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        value = value.encode()
    return value if isinstance(value, bytes) and value else None


def _upright(exif: bytes) -> bytes:
    """Set the orientation in the first directory of an EXIF block to 1; all other bytes stay."""
    mark = exif[:2]
    if mark not in (b"II", b"MM"):
        return exif
    order: Literal["little", "big"] = "little" if mark == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], order)

    directory = number(4, 4)
    entries = range(directory + 2, directory + 2 + 12 * number(directory, 2), 12)
    for entry in entries:
        if entry + 12 <= len(exif) and number(entry, 2) == ORIENTATION:
            return exif[: entry + 8] + (1).to_bytes(2, order) + exif[entry + 10 :]
    return exif
