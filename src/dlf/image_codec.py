"""`Codec`: images <-> bytes of a ``.dlf`` file, with a model that is loaded once."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from dlf.bitstream import container
from dlf.bitstream.metadata import pack as pack_metadata
from dlf.bitstream.spec import MAX_QUALITY
from dlf.codec import bundle
from dlf.codec.engine import TO_DECODE, TO_ENCODE, EngineOptions
from dlf.codec.loaded import LoadedModels
from dlf.content import Data, content_of, damaged_bytes, file_bytes
from dlf.errors import FormatError, InvalidArgument, LimitExceeded, TimeExceeded, UnknownModel
from dlf.limits import MAX_PIXELS, check_seconds, whole_number
from dlf.many_images import ManyImages, check_several
from dlf.records import Salvaged, StreamInfo, UInt8, Verdict

# What only some calls need is imported by them: a first image waits for the networks, and these are built
# beside whatever else is imported.
if TYPE_CHECKING:
    from PIL import Image

    from dlf.codec.budget import Load
    from dlf.codec.spent import Spent
    from dlf.imageio import Source
    from dlf.roi.mask import Region

log = logging.getLogger(__name__)


class Codec(ManyImages):
    """A codec whose model is loaded once, when first needed.

    Several threads may use one codec.  It can be copied, pickled and carried through a fork; the copy loads
    for itself.

    Args:
        model: folder, role ("base", "fast"), name or id of the model that encodes; None is the package's
            default.  Decoding takes the model that the file names, if it is this one or installed.
        threads: processor threads within one operation; None is what `engine` says, which is all unless told.
        max_pixels: limit of width * height, both ways.
        max_seconds: limit of the time that the networks of one image take; it is looked at between them and
            between tiles, so it may be passed by the seconds that one of them takes.  None is no limit.
        engine: what runs the networks, on which device and how precisely; None leaves it to the package.

    Raises:
        UnknownModel: the model is not installed.
        BundleError: it cannot be used.
        TypeError, ValueError: arguments that are none.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | int | None = None,
        threads: int | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        max_seconds: float | None = None,
        engine: EngineOptions | None = None,
    ) -> None:
        given: object = engine  # whatever the caller gave
        if not isinstance(given, EngineOptions | None):
            msg = f"engine must be EngineOptions, not {type(given).__name__}"
            raise TypeError(msg)
        if whole_number(max_pixels, "max_pixels") < 1:
            msg = f"max_pixels is {max_pixels}, but must be at least 1"
            raise InvalidArgument(msg)
        check_seconds(max_seconds)
        options = engine or EngineOptions()
        options = options if threads is None else replace(options, threads=threads)
        self._models = LoadedModels(bundle.find(model), options, max_seconds)
        self._max_pixels = max_pixels
        self._single: Codec | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the codec of `encode_many`, whose networks can be neither copied nor sent."""
        return vars(self) | {"_single": None}

    def within(self, max_pixels: int, max_seconds: float | None) -> Codec:
        """Return a codec of other limits, see `Codec`, that shares the networks that are loaded."""
        other = Codec(self._models.first.folder, max_pixels=max_pixels, max_seconds=max_seconds)
        other._models = self._models.within(max_seconds)
        return other

    def encode(
        self,
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
    ) -> bytes:
        """Compress an image, at a quality or to a size.

        Args:
            image: a PIL image, a uint8 array (H, W), (H, W, 3) or (H, W, 4), the path of a file, its bytes,
                or the file opened in binary mode, which is read from its start.
            quality: 0 (smallest) to 100 (best); None is the model's default.
            max_bytes: size of the file, metadata included, instead of a quality: it has at most that many
                bytes, and where the image allows it at least 97 % of them.
            bpp: the same in bits of the file for each pixel of the image.
            best: where the image's files are all larger than that or all smaller, return the nearest.
            metadata: store ICC profile, EXIF and XMP of the image as well.
            strict: refuse a file with a flaw that can be passed over, such as a JPEG without its end marker;
                otherwise it is read, with a line in the log.
            roi: region of interest, which has more of the bytes: a mask of the image's size (upright) in any
                form that an image may have, or an array of truth values; white is important, black is not.
                "faces" and "text" find the region themselves; where there is none, all counts the same.
            packet_bytes: make a file of packets, which can be read without each other, of at most so many
                bytes but for those of a single window of 256x256 pixels; it has a quality and no metadata.

        Returns:
            The bytes of the ``.dlf`` file.

        Raises:
            ImageError, LimitExceeded: the image cannot be read, is too large or takes too long.
            UnreachableSize: the image has no file of that size, and `best` is not set.
            OSError: there is no such file, or it cannot be opened.
            MissingExtra: finding the region needs a library that is not installed.
            TypeError, ValueError: an argument is of a wrong type or out of range, two say the size, or the
                mask has another size than the image, or is black.
        """
        from dlf.codec import rate_search, resilient

        target = rate_search.make_target(quality, max_bytes, bpp)
        if packet_bytes is not None:
            resilient.check_packets(
                packet_bytes, has_target=target is not None, metadata=metadata, has_region=roi is not None
            )
        quality = self._quality(quality)
        rgb, blob = self._read(_rereadable(image), metadata=metadata, strict=strict)
        important = None if roi is None else self._importance(roi, rgb)
        codec = self._models.ready(soon=TO_ENCODE)
        if packet_bytes is not None:
            return resilient.encode(codec, rgb, quality, packet_bytes)
        if target is None:
            return container.dump(codec.encode_rgb(rgb, quality, blob, important))
        searched = rate_search.encode_to_size(codec, rgb, target, blob, best=best, importance=important)
        return container.dump(searched)

    def encode_set(
        self,
        images: Sequence[Source],
        total_bytes: int,
        *,
        best: bool = False,
        metadata: bool = False,
        strict: bool = False,
    ) -> list[bytes]:
        """Compress images to one number of bytes for all: one quality, or two next to each other.

        A limit of seconds is that of all together.

        Args:
            images: as for `encode`; each is read two or three times, and few are in memory at a time.
            total_bytes: of all files together: they have at most that many, and where the images allow it at
                least 97 % of them.
            best: where the images' files are all larger than that or all smaller, return the nearest.
            metadata: as for `encode`.
            strict: as for `encode`.

        Raises:
            UnreachableSize: the images have no files of that total, and `best` is not set.
            ImageError, LimitExceeded, OSError, TypeError, ValueError: as `encode`.
        """
        from dlf.codec.budget import check_total, encode_set

        def loader(source: Source) -> Load:
            return lambda: self._read(source, metadata=metadata, strict=strict)

        check_several(images)
        again = [loader(_rereadable(image)) for image in images]
        check_total(total_bytes, len(again))
        return encode_set(self._models.ready(), again, total_bytes, best=best)

    def decode(self, data: Data, *, allow_partial: bool = False, best_effort: bool = False) -> Image.Image:
        """Paint the image of a ``.dlf`` file, in RGB.

        Args:
            data: the file's bytes, its path, or the file opened in binary mode.
            allow_partial: paint a file whose end is missing from what there is, with a line in the log.
            best_effort: paint a damaged file as well, though nothing of it is sure; see `salvage`.

        Raises:
            FormatError, LimitExceeded: the data is damaged, not of this format, too large, or takes too long.
            UnknownModel: it needs a model that is not installed.
            OSError: there is no such file, or it cannot be opened.
            TypeError: `data` is nothing of the above.
        """
        if allow_partial or best_effort:
            salvaged = self.salvage(data, best_effort=best_effort)
            if salvaged.damage is not None:
                log.warning("%s", salvaged.damage.summary)
            return salvaged.image
        return self._paint(file_bytes(data, self._max_pixels))

    def salvage(self, data: Data, *, best_effort: bool = False) -> Salvaged:
        """Paint the image of a file that may be cut, and say what came through.

        What is missing of a cut file takes its likeliest values.  Its model is the first that has its number.

        Args:
            data: as for `decode`.
            best_effort: paint a damaged file as well.  What follows its first wrong bit is invented, and
                nothing tells where that is; metadata that are malformed are left out.

        Raises:
            FormatError: not of this format, cut before the first symbol, or damaged in another way without
                `best_effort`.
            UnknownModel, LimitExceeded, OSError, TypeError: as `decode`.
        """
        content = damaged_bytes(data)
        try:
            return Salvaged(self._paint(content), None)
        except TimeExceeded:
            raise
        except (FormatError, LimitExceeded, UnknownModel) as error:
            reason = error
        from dlf.codec.salvage import read_remains
        from dlf.imageio import to_image

        models = chain([self._models.first], bundle.installed())
        remains = read_remains(
            content, reason, models, self._models.ready, self._max_pixels,
            best_effort=best_effort,
        )  # fmt: skip
        return Salvaged(to_image(remains.rgb, remains.metadata), remains.damage)

    def _paint(self, content: bytes) -> Image.Image:
        """Decode a file that must be whole; raises as `decode`."""
        from dlf.codec.file_forms import load as load_file

        file = load_file(content, self._max_pixels)
        codec = self._models.ready(self._models.writer(file), TO_DECODE)
        from dlf.imageio import to_image  # now that the networks are being built

        return to_image(codec.paint(file.receive(codec), file.header), file.metadata)

    def verify(self, data: Data, *, paint: bool = False) -> Verdict:
        """Check a whole ``.dlf`` file: header, metadata, checksum, and every symbol of the payload.

        It runs the networks that decide symbols, for seconds where the image is large.

        Args:
            data: as for `decode`.
            paint: run the network that paints as well.

        Raises:
            OSError, TypeError: as `decode`; what is wrong with the file itself is in the verdict.
        """
        from dlf.codec.verify import check_file

        read = partial(file_bytes, data, self._max_pixels)
        return check_file(read, self._max_pixels, self._models, paint=paint)

    def _for_many(self) -> tuple[ManyImages, int]:
        """Return a codec whose networks run in one thread each, and how many may run at a time."""
        from dlf.codec.machine import processors

        workers = self._models.engine.threads or processors()
        if workers == 1 or self._models.first.manifest.engine != "onnx":
            return self, 1
        if self._single is None:
            options = replace(self._models.engine, threads=1)
            self._single = Codec(
                self._models.first.folder,
                max_pixels=self._max_pixels,
                max_seconds=self._models.max_seconds,
                engine=options,
            )
        return self._single, workers

    def preload(
        self,
        *,
        encode: bool = False,
        decode: bool = False,
        model: str | os.PathLike[str] | int | None = None,
    ) -> None:
        """Begin to load a model in the background, for the directions that are said.

        It returns before the networks are built, and whatever needs one waits for it.  So the first image
        comes sooner where there is something else to do before it, such as reading it.

        Args:
            encode: with what encoding needs.
            decode: with what decoding needs.
            model: another model than this codec's, such as the one that a file names; see `Codec`.

        Raises:
            UnknownModel, BundleError, EngineError: the model is not installed, or cannot be used; what is
                wrong with a network is said when it is run.
        """
        graphs = dict.fromkeys((*(TO_ENCODE if encode else ()), *(TO_DECODE if decode else ())))
        self._models.ready(None if model is None else bundle.find(model), tuple(graphs))

    def info(self, data: Data, *, symbols: bool = False) -> StreamInfo:
        """Describe a ``.dlf`` file; its checksum is compared if the model is installed.

        Args:
            data: as for `decode`.
            symbols: read the symbols too, and tell the bits of tokens and details apart.  It runs two of the
                networks, for seconds where the image is large, and paints nothing.

        Raises:
            FormatError, LimitExceeded, OSError, TypeError: as `decode`.
        """
        from dlf.codec.file_forms import describe
        from dlf.codec.file_forms import load as load_file

        content = file_bytes(data, self._max_pixels)
        file = load_file(content, self._max_pixels)
        try:
            model = self._models.writer(file)
        except UnknownModel:
            return describe(file, len(content))  # the sizes are worth telling all the same
        received = file.receive(self._models.ready(model)) if symbols else None
        return describe(file, len(content), model.manifest.name, received)

    def spent(self, data: Data) -> Spent:
        """Say where the bits of a ``.dlf`` file went; like `info` with its symbols, this paints nothing.

        Raises:
            FormatError, LimitExceeded, UnknownModel, OSError, TypeError: as `decode`.
        """
        from dlf.codec.file_forms import load as load_file
        from dlf.codec.spent import spent_on

        file = load_file(file_bytes(data, self._max_pixels), self._max_pixels)
        return spent_on(file.receive(self._models.ready(self._models.writer(file))))

    def _read(self, source: Source, *, metadata: bool, strict: bool) -> tuple[UInt8, bytes]:
        """Return pixels, uint8 (H, W, 3), and packed metadata."""
        from dlf.imageio import load_rgb

        rgb, attached = load_rgb(source, max_pixels=self._max_pixels, strict=strict)
        return rgb, pack_metadata(attached) if metadata and attached is not None else b""

    def _importance(self, roi: Region, rgb: UInt8) -> UInt8 | None:
        from dlf.roi.mask import importance

        return importance(roi, rgb, max_pixels=self._max_pixels)

    def _quality(self, quality: int | None) -> int:
        if quality is None:
            return self._models.first.manifest.default_quality
        number = whole_number(quality, "the quality")
        if not 0 <= number <= MAX_QUALITY:
            msg = f"the quality is {number}, but must be 0 to {MAX_QUALITY}"
            raise InvalidArgument(msg)
        return number


def _rereadable(image: Source) -> Source:
    """Return an image that can be read as often as one likes: an open file becomes its bytes."""
    from PIL import Image

    return image if isinstance(image, Image.Image | np.ndarray | str | os.PathLike) else content_of(image)
