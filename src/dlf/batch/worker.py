"""One picture's bytes to one result; a worker has one codec, loaded once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dlf.api import Codec, EngineOptions
from dlf.batch.records import Made, Row
from dlf.bitstream.header import Header
from dlf.errors import explain
from dlf.imageio import to_bytes
from dlf.imageio.formats import OUTPUTS
from dlf.limits import MAX_PIXELS

DLF = ".dlf"

Work = Callable[[str, bytes], Made]
"""Takes the key and the bytes of an input.  It returns whatever happens, short of the end of its process."""

MakeWork = Callable[[], Work]
"""Loads the model; is sent to each worker, so that it has to be picklable.  Raises DlfError."""


@dataclass(frozen=True)
class Task:
    """What to do with every picture.

    direction: "encode" or "decode".  model, max_pixels, max_seconds: as for `dlf.Codec`.
    quality, max_bytes, bpp, best, metadata: as for `dlf.Codec.encode`.
    format: of decoded pictures, a name of `dlf.imageio`.  output_quality: of lossy ones, 1..100.
    engine, precision, threads: see `dlf.EngineOptions`.
    """

    direction: str
    model: str | None = None
    max_pixels: int = MAX_PIXELS
    max_seconds: float | None = None
    quality: int | None = None
    max_bytes: int | None = None
    bpp: float | None = None
    best: bool = False
    metadata: bool = False
    format: str = "png"
    output_quality: int | None = None
    engine: str = "auto"
    precision: str | None = None
    threads: int = 1

    def __call__(self) -> Work:
        """Load the model; raises as `dlf.Codec` does."""
        options = EngineOptions(self.threads, engine=self.engine, precision=self.precision)
        codec = Codec(self.model, max_pixels=self.max_pixels, max_seconds=self.max_seconds, engine=options)
        return Worker(self, codec)

    def output_name(self, key: str) -> str:
        """Return the name of a result: "a.jpg" gives "a.jpg.dlf", and that "a.jpg.png"."""
        if self.direction == "encode":
            return key + DLF
        stem = key[: -len(DLF)] if key.lower().endswith(DLF) else key
        return stem + OUTPUTS[self.format].suffixes[0]


@dataclass(frozen=True)
class Worker:
    """A codec at work on a task."""

    task: Task
    codec: Codec

    def __call__(self, key: str, data: bytes) -> Made:
        """Make the result of an input; what goes wrong is in the row."""
        start = time.perf_counter()
        try:
            coded, result = self._make(data)
            header, _ = Header.unpack(coded)
        except Exception as error:
            return Made(Row(key, seconds=_since(start), error=explain(error)))
        row = Row(
            path=key,
            output=self.task.output_name(key),
            bytes=len(coded),
            bpp=round(8 * len(coded) / (header.width * header.height), 6),
            width=header.width,
            height=header.height,
            quality=header.quality,
            seconds=_since(start),
        )
        return Made(row, result)

    def _make(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the .dlf file, and the result."""
        task = self.task
        if task.direction == "decode":
            image = self.codec.decode(data)
            return data, to_bytes(image, task.format, task.output_quality)
        coded = self.codec.encode(
            data, task.quality, max_bytes=task.max_bytes, bpp=task.bpp, best=task.best, metadata=task.metadata
        )
        return coded, coded


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)
