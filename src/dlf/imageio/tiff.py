"""TIFF: the many ways in which its samples may be numbers, and its tags as an EXIF block."""

from __future__ import annotations

from PIL import ExifTags, Image, ImagePalette
from PIL.TiffImagePlugin import TiffImageFile

from dlf.errors import ImageError

BITS, PHOTOMETRIC, COLOUR_MAP, PLANAR, SAMPLE_FORMAT, INK_SET = 258, 262, 320, 284, 339, 332
YCBCR_COEFFICIENTS, YCBCR_SUBSAMPLING, REFERENCE_LEVELS = 529, 530, 532
WHITE_IS_ZERO, PALETTE, CMYK, YCBCR = 0, 3, 5, 6
UNSIGNED = 1

PLAIN_YCBCR = {
    YCBCR_SUBSAMPLING: ((1, 1), (2, 2)),
    YCBCR_COEFFICIENTS: ((0.299, 0.587, 0.114),) * 2,
    REFERENCE_LEVELS: ((0, 255, 128, 255, 128, 255),) * 2,
}
"""What Pillow takes uncompressed YCbCr to be, and what the absent tag means."""

EXIF_TAGS = frozenset(
    (
        *(270, 271, 272, 305, 306, 315, 316, 33432),  # who, when, with what
        *(18246, 18249, 40091, 40092, 40093, 40094, 40095),  # ratings and texts of Windows
    )
)
"""Tags of a TIFF page that say something of the picture and not of how this file stores it."""

RESOLUTION_TAGS = frozenset((282, 283, 296))


def white_is_zero(image: Image.Image) -> bool:
    """Whether grey levels still have to be inverted: Pillow does so for 8 bits only."""
    if not isinstance(image, TiffImageFile):
        return False
    return image.mode.startswith("I") and image.tag_v2.get(PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO


def bits(image: Image.Image) -> int:
    """Bits of a grey sample in Pillow's 16-bit or 32-bit modes: 16, unless a TIFF says otherwise."""
    if not isinstance(image, TiffImageFile):
        return 16
    return int(_tuple(image.tag_v2.get(BITS, 16))[0])


def prepare(image: TiffImageFile) -> None:
    """Refuse what Pillow would read wrongly, and set right what it can be told; before pixels are loaded.

    Raises:
        ImageError: samples without a defined range, or an arrangement that Pillow does not know.
    """
    tags = image.tag_v2
    if any(kind != UNSIGNED for kind in _tuple(tags.get(SAMPLE_FORMAT, UNSIGNED))):
        msg = "the TIFF file holds signed or floating-point samples, which have no defined black and white"
        raise ImageError(msg)
    photometric = tags.get(PHOTOMETRIC, WHITE_IS_ZERO)
    if photometric == CMYK and tags.get(INK_SET, 1) != 1:
        msg = "the TIFF file holds inks other than cyan, magenta, yellow and black"
        raise ImageError(msg)
    raw = all(tile[0] == "raw" for tile in image.tile)
    if photometric == YCBCR and raw and image.mode == "YCbCr":
        _check_ycbcr(image)
    if photometric == PALETTE and (colours := _tuple(tags.get(COLOUR_MAP, ()))) and max(colours) < 256:
        # written by programs that took the 16-bit entries for bytes
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    if raw and tags.get(PLANAR) == 2 and _tuple(tags.get(BITS, 1))[0] == 16:
        # Pillow reads planes of 16 bits as if they had 8
        suffix = ";16L" if tags.prefix == b"II" else ";16B"
        image.tile = [tile._replace(args=(str(tile.args[0]) + suffix, *tile.args[1:])) for tile in image.tile]  # type: ignore[index]


def _check_ycbcr(image: TiffImageFile) -> None:
    for tag, (plain, absent) in PLAIN_YCBCR.items():
        value = _tuple(image.tag_v2.get(tag, absent))
        if any(abs(float(one) - other) > 1e-3 for one, other in zip(value, plain, strict=False)):
            msg = "the TIFF file holds uncompressed YCbCr with subsampling or levels that are not read"
            raise ImageError(msg)


def exif_of(image: TiffImageFile) -> bytes | None:
    """Make an EXIF block of the tags of the first page; None if they say nothing."""
    tags = image.getexif()
    groups = {group: tags.get_ifd(group) for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)}
    if not (EXIF_TAGS & tags.keys() or any(groups.values())):
        return None
    exif = Image.Exif()
    exif.endian = tags.endian
    for tag in (EXIF_TAGS | RESOLUTION_TAGS) & tags.keys():
        exif[tag] = tags[tag]
    for group, entries in groups.items():
        if entries:
            exif.get_ifd(group).update(entries)
    return exif.tobytes()


def _tuple(value: object) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
