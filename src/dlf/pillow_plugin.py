"""Pillow reads and writes ``.dlf`` files once this module is imported.

>>> import dlf.pillow_plugin
>>> Image.open("photo.jpg").save("photo.dlf", quality=30)
>>> Image.open("photo.dlf").size

Opening reads the header and the metadata only; the model is needed when pixels are.
"""

from __future__ import annotations

from io import SEEK_END
from typing import IO

from PIL import Image, ImageFile, ImageOps

import dlf
from dlf.bitstream import metadata, varint
from dlf.bitstream.header import MAX_HEADER_BYTES, Header
from dlf.bitstream.spec import MAGIC, MAX_VARINT_BYTES
from dlf.errors import (
    DlfError,
    FormatError,
    InvalidArgument,
    LimitExceeded,
    UnreachableSize,
    UnsupportedVersion,
)
from dlf.imageio import info_of, load_rgb
from dlf.limits import check_size

FORMAT = "DLF"
EXTENSION = ".dlf"
MIME = "image/x-dlf"

OPTIONS = {"bytes": "max_bytes"} | {name: name for name in ("quality", "bpp", "best", "roi", "effort")}
"""Keywords of `Image.save` that `dlf.encode` takes, and what it calls them."""


class DlfImageFile(ImageFile.ImageFile):
    """An opened ``.dlf`` file: mode RGB, one frame.

    `info` holds what the header says as "quality" (0..100) and "model" (its id), and "exif", "xmp", "dpi" and
    "icc_profile" where the file has them.  The profile is one of sRGB, as the pixels are.

    Loading raises OSError if the file is damaged or cut off, or its model is not installed.  It heeds no
    `ImageFile.LOAD_TRUNCATED_IMAGES`: in a range-coded stream nothing after a fault has a meaning.
    """

    format = FORMAT
    format_description = "Dual-generative latent fusion"

    def _open(self) -> None:
        """Read header and metadata.

        Raises:
            SyntaxError: not a ``.dlf`` file, or damaged so far (Pillow then tries other formats).
            Image.DecompressionBombError: the image is above the limits of the codec.
        """
        assert self.fp is not None
        data = self.fp.read(MAX_HEADER_BYTES)
        try:
            header, start = Header.unpack(data)
            check_size(header.width, header.height)
            self.info |= {"quality": header.quality, "model": header.model}
            if header.has_metadata:
                self.fp.seek(start)
                self._read_metadata(self.fp)
        except LimitExceeded as error:
            raise Image.DecompressionBombError(str(error)) from error
        except FormatError as error:
            raise SyntaxError(str(error)) from error
        self._mode = "RGB"
        self._size = header.width, header.height
        self.tile = [ImageFile._Tile("dlf", (0, 0, *self.size))]

    def _read_metadata(self, file: IO[bytes]) -> None:
        """Take the metadata at the place of `file`; raises FormatError, LimitExceeded."""
        start = file.tell()
        size, used = varint.unpack(file.read(MAX_VARINT_BYTES), 0)
        if size > file.seek(0, SEEK_END) - start - used:  # or a false number would reserve any memory
            msg = "the metadata reaches beyond the end of the file"
            raise FormatError(msg)
        file.seek(start + used)
        self.info |= info_of(metadata.unpack(file.read(size)))

    def verify(self) -> None:
        """Check the file without painting it, and close it; raises OSError if it is damaged.

        The checksum is compared where the model is installed; symbols are not read.
        """
        assert self.fp is not None
        try:
            dlf.info(self.fp)
        except DlfError as error:
            raise OSError(str(error)) from error
        finally:
            super().verify()

    def load_seek(self, pos: int) -> None:
        """Go to `pos`; that this exists tells `ImageFile.Parser` to wait for the whole file."""
        assert self.fp is not None
        self.fp.seek(pos)


class DlfDecoder(ImageFile.PyDecoder):
    """Paints the image of a whole file, as `ImageFile.ImageFile.load` asks for it."""

    _pulls_fd = True

    def decode(self, buffer: Image.DecoderInput) -> tuple[int, int]:
        """Read the file and set the pixels; raises OSError."""
        assert self.fd is not None
        try:
            image = dlf.decode(self.fd)
        except DlfError as error:
            raise OSError(str(error)) from error
        self.set_as_raw(image.tobytes())
        return -1, 0


def _accept(prefix: bytes) -> bool | str:
    """Tell whether a file of these first 16 bytes may be ours, or why it is but cannot be read."""
    if not prefix.startswith(MAGIC):
        return False
    try:
        Header.unpack(prefix)
    except UnsupportedVersion as error:
        return f"image file could not be identified because {error}"
    except FormatError:
        pass  # perhaps only because 16 bytes are not all; `_open` sees more
    return True


def _save(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Write the ``.dlf`` file of an image; see `register` for the options.

    Raises:
        ValueError: the quality is not one of 0 to 100, no file of the image has the size that is asked for,
            or the image is empty or above the limits.
        OSError: the image's mode cannot be written, or the model cannot be used.
    """
    if 0 in im.size:
        msg = f"cannot write empty image as {FORMAT}"
        raise ValueError(msg)
    options = im.encoderinfo
    try:
        data = dlf.encode(
            _meant(im), metadata=True, **{OPTIONS[key]: options[key] for key in OPTIONS if key in options}
        )
    except (LimitExceeded, InvalidArgument, UnreachableSize) as error:
        raise ValueError(str(error)) from error
    except DlfError as error:
        raise OSError(str(error)) from error
    fp.write(data)


def _meant(im: Image.Image) -> Image.Image:
    """Return what is to be encoded: upright sRGB, and the metadata that was asked for; raises DlfError."""
    options = im.encoderinfo
    source = im.copy()
    source.info = {key: im.info[key] for key in ("icc_profile", "transparency") if key in im.info}
    source.info |= {key: options[key] for key in ("icc_profile", "exif", "xmp") if key in options}
    if isinstance(exif := source.info.get("exif"), Image.Exif):
        source.info["exif"] = exif.tobytes()
    if isinstance(xmp := source.info.get("xmp"), str):
        source.info["xmp"] = xmp.encode()
    ImageOps.exif_transpose(source, in_place=True)
    rgb, _ = load_rgb(source)
    upright = Image.fromarray(rgb)
    upright.info = {key: source.info[key] for key in ("exif", "xmp") if source.info.get(key)}
    return upright


def register() -> None:
    """Tell Pillow of the format; importing this module has done it already.

    `Image.save` takes, besides what it ignores as it does for every format:

    - quality: 0 (smallest) to 100 (best), as `dlf.encode`;
    - bytes, bpp, best: the size of the file instead, as max_bytes, bpp and best of `dlf.encode`;
    - roi: region of interest, as `dlf.encode`; a mask is of the size that the upright image has;
    - effort: how long to search, as `dlf.encode`;
    - exif: bytes or `Image.Exif`, stored; the pixels are turned as its orientation says, which goes then;
    - xmp: bytes or str, stored;
    - icc_profile: profile to convert the pixels to sRGB from, instead of the image's own; None for none.
    """
    Image.register_open(FORMAT, DlfImageFile, _accept)
    Image.register_decoder("dlf", DlfDecoder)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, EXTENSION)
    Image.register_mime(FORMAT, MIME)


register()
