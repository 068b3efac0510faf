"""The work itself, in a worker process: bytes and numbers in, an `Answer` out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from PIL import Image

import dlf
from dlf.bitstream.header import MAX_HEADER_BYTES, Header
from dlf.bitstream.spec import MAGIC
from dlf.codec.bundle import find
from dlf.errors import (
    DlfError,
    FormatError,
    ImageError,
    InvalidArgument,
    LimitExceeded,
    MissingExtra,
    TimeExceeded,
    UnknownModel,
    UnreachableSize,
)
from dlf.geometry import CELL, WINDOW_PIXELS
from dlf.imageio import load_rgb, to_bytes
from dlf.records import UInt8
from dlf.service.media import MEDIA_TYPES
from dlf.service.tasks import (
    DLF,
    JSON,
    Answer,
    Decode,
    Describe,
    Encode,
    Rival,
    Spending,
    Task,
    refusal,
    to_json,
)

log = logging.getLogger(__name__)

RIVAL_PIXELS = 2**21
"""Pixels at most at which the rival is tried: at the sizes in question it is best far below."""

COMPARED_PIXELS = 2**20
"""Pixels at most at which the rival's scales are compared."""


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is told when it starts; as in `Settings`."""

    model: str | None
    threads: int
    max_pixels: int
    max_seconds: float
    engine: str


@dataclass
class Work:
    """Codecs by what names their models, each made when it is first needed."""

    options: WorkerOptions
    _codecs: dict[str | int | None, dlf.Codec] = field(default_factory=dict)

    def warm_up(self) -> None:
        """Load the networks of the package's models, both ways; raises DlfError where one cannot be used."""
        shipped = [str(model.folder) for model in dlf.models() if model.roles and model.engine == "onnx"]
        grey = np.full((64, 64, 3), 128, np.uint8)
        # each once: the service's own model is mostly one of the shipped
        for limited in dict.fromkeys(map(self._codec, (None, *shipped))):
            # the limit is one for pictures: a slow start would end it before all networks were looked at
            codec = limited.within(self.options.max_pixels, None)
            codec.decode(codec.encode(grey))

    def answer(self, task: Task, body: bytes) -> Answer:
        """Do a task; whatever is wrong with it is an answer as well."""
        try:
            return _DO[type(task)](self, task, body)
        except DlfError as error:
            return refusal(status_of(error), str(error))
        except MemoryError:
            return refusal(503, "there is not enough memory for this picture", **{"Retry-After": "10"})
        except Exception:
            log.exception("unexpected error in %s of %d bytes", type(task).__name__, len(body))
            return refusal(500, "unexpected error; the log of the service says more")

    def _codec(self, model: str | int | None) -> dlf.Codec:
        """Return the codec of a model's folder or number; None is the service's own model."""
        if model not in self._codecs:
            options = self.options
            own = find(options.model)
            chosen = own if model is None else find(model, own)
            folder = str(chosen.folder)
            if folder not in self._codecs:
                engine = dlf.EngineOptions(threads=options.threads, engine=options.engine)
                self._codecs[folder] = dlf.Codec(
                    folder, max_pixels=options.max_pixels, max_seconds=options.max_seconds, engine=engine
                )
            self._codecs[model] = self._codecs[folder]
        return self._codecs[model]

    def _reader(self, data: bytes) -> dlf.Codec:
        """Return the codec that has the networks of a file, so that no other loads them again."""
        if not data.startswith(MAGIC):
            msg = "this is not a .dlf file"
            raise NotOurs(msg)
        try:
            return self._codec(Header.unpack(data[:MAX_HEADER_BYTES])[0].model)
        except UnknownModel:
            return self._codec(None)

    def encode(self, task: Encode, body: bytes) -> Answer:
        """Compress a picture."""
        data = self._codec(task.model).encode(
            body,
            task.quality,
            max_bytes=task.max_bytes,
            bpp=task.bpp,
            best=task.best,
            metadata=task.metadata,
        )
        header = Header.unpack(data)[0]
        headers = {
            "Dlf-Quality": str(header.quality),
            "Dlf-Width": str(header.width),
            "Dlf-Height": str(header.height),
            "Dlf-Bpp": f"{8 * len(data) / (header.width * header.height):.5f}",
            "Content-Disposition": 'attachment; filename="photo.dlf"',
        }
        return Answer(data, DLF, headers=headers)

    def decode(self, task: Decode, body: bytes) -> Answer:
        """Paint a file."""
        image = self._reader(body).decode(body)
        try:
            return Answer(to_bytes(image, task.format, task.quality), MEDIA_TYPES[task.format])
        except ImageError as error:  # of the picture that is asked for: nothing is wrong with the file
            return refusal(422, str(error))

    def describe(self, task: Describe, body: bytes) -> Answer:
        """Say what is in a file."""
        info = self._reader(body).info(body, symbols=task.symbols)
        return Answer(to_json({**asdict(info), "bpp": info.bpp}), JSON)

    def spending(self, task: Spending, body: bytes) -> Answer:
        """Say where the bits of a file went."""
        spent = self._reader(body).spent(body)
        fields = {
            "cell": CELL,
            "cells": spent.cells.round(2).tolist(),
            "window": WINDOW_PIXELS,
            "windows": spent.windows.round(2).tolist(),
            "tokens": spent.tokens.tolist(),
        }
        return Answer(to_json(fields), JSON)

    def rival(self, task: Rival, body: bytes) -> Answer:
        """Compress a picture as AVIF, at the scale that MS-SSIM finds best."""
        # brings the whole evaluation, which nothing else here needs
        from dlf.evaluation.codecs.fitting import SCALES, ScaleSearch
        from dlf.evaluation.codecs.formats import open_format
        from dlf.evaluation.metrics.fidelity import MS_SSIM

        codec = open_format("avif")
        rgb, _ = load_rgb(body, max_pixels=self.options.max_pixels)
        pixels = rgb.shape[0] * rgb.shape[1]
        scales = [scale for scale in SCALES if pixels * scale**2 <= RIVAL_PIXELS] or [SCALES[-1]]
        search = ScaleSearch("avif", codec, rgb, scales)
        score = MS_SSIM.against(_reduced(rgb))
        point = search.fit(task.max_bytes, MS_SSIM, lambda image: score(_reduced(image)))
        if point.data is None or (point.size > task.max_bytes and not task.best):
            msg = f"no AVIF file of this picture has {task.max_bytes:,} bytes or less; {point.size:,} is one"
            raise UnreachableSize(msg)
        headers = {"Dlf-Scale": str(point.scale), "Dlf-Quality": str(point.quality)}
        return Answer(point.data, MEDIA_TYPES["avif"], headers=headers)


def _reduced(rgb: UInt8) -> UInt8:
    """Return an image as it is compared: of large ones the mean of squares of pixels, for MS-SSIM is slow."""
    factor = math.ceil(math.sqrt(rgb.shape[0] * rgb.shape[1] / COMPARED_PIXELS))
    return np.asarray(Image.fromarray(rgb).reduce(factor)) if factor > 1 else rgb


class NotOurs(FormatError):
    """The body is of another kind altogether."""


_DO: dict[type[Task], Callable[[Work, Any, bytes], Answer]] = {
    Encode: Work.encode,
    Decode: Work.decode,
    Describe: Work.describe,
    Spending: Work.spending,
    Rival: Work.rival,
}

_STATUS: tuple[tuple[type[DlfError], int], ...] = (
    (TimeExceeded, 504),
    (LimitExceeded, 413),
    (NotOurs, 415),
    (ImageError, 415),
    (MissingExtra, 415),
    (FormatError, 422),
    (UnknownModel, 422),
    (UnreachableSize, 422),
    (InvalidArgument, 422),
)


def status_of(error: DlfError) -> int:
    """Return the status of HTTP for an error of the package."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
