"""Where the bits of one of our files went, read with a model of one's choice."""

from __future__ import annotations

import os

from dlf.bitstream import container
from dlf.codec import bundle
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import EngineOptions, make_backend
from dlf.codec.spent import Map, Spent, spent_on

__all__ = ["Map", "Spent", "spent"]


def spent(model: str | os.PathLike[str] | None, data: bytes, threads: int | None = None) -> Spent:
    """Read a ``.dlf`` file and say where its bits went; model: that made it, None is the package's.

    Raises:
        FormatError: the data is damaged, or another model's.
        UnknownModel, BundleError: the model cannot be used.
        MissingExtra: what runs the model is not installed.
    """
    opened = bundle.find(model)
    tables = opened.tables()
    backend = make_backend(opened, tables, EngineOptions(threads=threads))
    return spent_on(StreamCodec(opened.manifest, tables, backend).receive(container.load(data)))
