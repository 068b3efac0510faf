"""Front door: pictures <-> bytes of a ``.dlf`` file."""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image

from dlf.bitstream import container
from dlf.bitstream.container import Stream
from dlf.bitstream.metadata import pack as pack_metadata
from dlf.bitstream.spec import VERSION
from dlf.codec import bundle
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import EngineOptions, make_backend
from dlf.errors import UnknownModel
from dlf.imageio import Source, load_rgb, to_image
from dlf.limits import MAX_PIXELS
from dlf.records import StreamInfo

DEFAULT_QUALITY = 50


@dataclass(frozen=True)
class _Loaded:
    bundle: ModelBundle
    codec: StreamCodec


class Codec:
    """A codec whose model is loaded once.

    Args:
        model: folder, role ("base", "fast"), name or id of the model that encodes; None is the package's
            default.  Decoding takes the model that the file names, if it is this one or installed.
        threads: processor threads within one operation; None uses all.
        max_pixels: limit of width * height, both ways.
        engine: device and precision, for models that torch runs; None is the processor.

    Raises:
        UnknownModel: the model is not installed.
        BundleError: it cannot be used.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | int | None = None,
        threads: int | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        engine: EngineOptions | None = None,
    ) -> None:
        self._bundle = bundle.find(model)
        self._engine = replace(engine or EngineOptions(), threads=threads)
        self._max_pixels = max_pixels
        self._loaded: dict[tuple[int, int], _Loaded] = {}

    def encode(self, image: Source, quality: int = DEFAULT_QUALITY, *, metadata: bool = False) -> bytes:
        """Compress a picture.

        Args:
            image: a PIL image, a uint8 array (H, W) or (H, W, 3), a path, or the bytes of a file.
            quality: 0 (smallest) to 100 (best).
            metadata: store ICC profile, EXIF and XMP of the picture as well.

        Returns:
            The bytes of the ``.dlf`` file.

        Raises:
            ImageError, LimitExceeded: the picture cannot be read or is too large.
        """
        rgb, found = load_rgb(image, max_pixels=self._max_pixels)
        codec = self._load(self._bundle.manifest.id).codec
        stream = codec.encode_rgb(rgb, operator.index(quality))
        if metadata and found is not None:
            header = replace(stream.header, has_metadata=True)
            stream = Stream(header, stream.payload, pack_metadata(found))
        return container.dump(stream)

    def decode(self, data: bytes) -> Image.Image:
        """Paint the picture of a ``.dlf`` file, in RGB.

        Raises:
            FormatError, LimitExceeded: the data is damaged, not of this format, or too large.
            UnknownModel: it needs a model that is not installed.
        """
        stream = container.load(data, self._max_pixels)
        rgb = self._load(stream.header.model).codec.decode_stream(stream)
        return to_image(rgb, stream.metadata)

    def info(self, data: bytes) -> StreamInfo:
        """Describe a ``.dlf`` file; reads its symbols if the model is installed, but paints nothing.

        Raises:
            FormatError, LimitExceeded: as `decode`.
        """
        stream = container.load(data, self._max_pixels)
        header = stream.header
        sizes = {name: len(part) for name, part in container.parts(stream)}
        name, token_bits, detail_bits = None, None, None
        try:
            loaded = self._load(header.model)
        except UnknownModel:
            pass  # the sizes are worth telling all the same
        else:
            received = loaded.codec.receive(stream)
            name = loaded.bundle.manifest.name
            token_bits, detail_bits = received.token_bits, received.detail_bits
        return StreamInfo(
            version=VERSION,
            model=header.model,
            model_name=name,
            quality=header.quality,
            width=header.width,
            height=header.height,
            header_bytes=len(header.pack()),
            metadata_bytes=sizes.get("metadata", 0),
            payload_bytes=sizes["payload"],
            checksum_bytes=sizes["checksum"],
            file_bytes=len(data),
            token_bits=token_bits,
            detail_bits=detail_bits,
        )

    def _load(self, model: int) -> _Loaded:
        """Return the model of an id, which is loaded when this process first asks for it.

        A forked child has none of the threads that its parent's networks run on: it would compute on one
        thread at best, and wait for ever where the parent was computing at the fork.
        """
        key = os.getpid(), model
        if key not in self._loaded:
            found = self._bundle if model == self._bundle.manifest.id else bundle.find(model)
            tables = found.tables()
            backend = make_backend(found, tables, self._engine)
            self._loaded[key] = _Loaded(found, StreamCodec(model, tables, backend))
        return self._loaded[key]


@lru_cache(maxsize=1)
def _default_codec() -> Codec:
    return Codec()


def encode(image: Source, quality: int = DEFAULT_QUALITY, *, metadata: bool = False) -> bytes:
    """Compress a picture with the model of the package; see `Codec.encode`."""
    return _default_codec().encode(image, quality, metadata=metadata)


def decode(data: bytes) -> Image.Image:
    """Paint the picture of a ``.dlf`` file; see `Codec.decode`."""
    return _default_codec().decode(data)


def info(data: bytes) -> StreamInfo:
    """Describe a ``.dlf`` file; see `Codec.info`."""
    return _default_codec().info(data)
