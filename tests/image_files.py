"""Small image files made byte by byte, for what no library writes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

TAG_KINDS = {"H": 3, "I": 4, "B": 1}


def file_of(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The file that Pillow makes of an image."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(
    data: bytes,
    *,
    size: tuple[int, int] = (8, 8),
    bits: int | Sequence[int] = 8,
    photometric: int = 1,
    order: str = "<",
    extra: Mapping[int, tuple[str, Sequence[int]]] | None = None,
    planes: int = 1,
) -> bytes:
    """A TIFF file of one directory; `data` holds all planes, one strip each.

    extra: tag -> (struct code of its numbers, the numbers), in front of the usual ones.
    """
    depth = [bits] if isinstance(bits, int) else list(bits)
    step = len(data) // planes
    tags: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [size[0]]),
        257: ("I", [size[1]]),
        258: ("H", depth),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [8 + step * plane for plane in range(planes)]),
        277: ("H", [len(depth)]),
        278: ("I", [size[1]]),
        279: ("I", [step] * planes),
    } | dict(extra or {})
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    at = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries, beyond = b"", b""
    for tag, (code, numbers) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        entries += struct.pack(order + "HHI", tag, TAG_KINDS[code], len(numbers))
        if len(value) > 4:
            entries += struct.pack(order + "I", at + len(beyond))
            beyond += value
        else:
            entries += value.ljust(4, b"\0")
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4) + beyond


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    samples: NDArray[np.uint8] | NDArray[np.uint16], colour_type: int, *chunks: bytes, bits: int | None = None
) -> bytes:
    """A PNG file of samples (H, W) or (H, W, channels); fewer than 8 bits are packed.

    colour_type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
    """
    height, width = samples.shape[:2]
    depth = bits or 8 * samples.dtype.itemsize
    if depth < 8:
        unpacked = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = [np.packbits(row.reshape(-1)).tobytes() for row in unpacked]
    else:
        rows = [row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples]
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + b"".join(chunks)
        + chunk(b"IDAT", packed)
        + chunk(b"IEND", b"")
    )


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    places = {data[at : at + 4].decode(): at for at in range(132, 132 + 12 * count, 12)}
    red, blue = places["rXYZ"], places["bXYZ"]
    data[red : red + 4], data[blue : blue + 4] = data[blue : blue + 4], data[red : red + 4]
    return bytes(data)
