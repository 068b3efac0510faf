"""Many small images at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dlf.codec.many import in_order
from dlf.content import Data

if TYPE_CHECKING:
    from PIL import Image

    from dlf.imageio import Source

IMAGES_NDIM = 4
"""Axes of an array of several images: (images, height, width, colours)."""


class ManyImages(ABC):
    """What a codec of one image at a time does with many."""

    encode: Any  # of one image, as of `dlf.Codec`
    decode: Any

    @abstractmethod
    def _for_many(self) -> tuple[ManyImages, int]:
        """Return a codec whose networks run in one thread each, and how many may run at a time."""

    def encode_many(
        self,
        images: Iterable[Source],
        quality: int | None = None,
        *,
        max_bytes: int | None = None,
        bpp: float | None = None,
        best: bool = False,
        metadata: bool = False,
        strict: bool = False,
    ) -> Iterator[bytes]:
        """Compress many images, each to the same bytes as by `encode`; yields the files in their order.

        Several are worked on at a time, by one thread each, which is meant for images too small to keep all
        threads busy.  Each takes the memory of its own.  Images are taken as results are, a few ahead; what
        `encode` raises is raised in the turn of its image, and ends all.  For the rest see `encode`.

        Raises:
            TypeError: `images` is a single one.
        """
        check_several(images)
        codec, workers = self._for_many()

        def encode_one(image: Source) -> bytes:
            data: bytes = codec.encode(
                image, quality, max_bytes=max_bytes, bpp=bpp, best=best, metadata=metadata, strict=strict
            )
            return data

        return in_order(encode_one, images, workers)

    def decode_many(self, files: Iterable[Data]) -> Iterator[Image.Image]:
        """Paint the images of many ``.dlf`` files, best of small ones; see `encode_many` and `decode`."""
        check_several(files)
        codec, workers = self._for_many()
        return in_order(codec.decode, files, workers)


def check_several(items: object) -> None:
    """Refuse one image or file where many are expected, though it may have parts to go through.

    Raises:
        TypeError: a text, bytes, an open file, or an array of one image.
    """
    is_array = isinstance(items, np.ndarray)
    if is_array and np.ndim(items) == IMAGES_NDIM:  # type: ignore[arg-type]
        return
    if is_array or isinstance(items, str | bytes | bytearray | memoryview) or hasattr(items, "read"):
        msg = f"expected several images or files, such as a list of them, not one {type(items).__name__}"
        raise TypeError(msg)
