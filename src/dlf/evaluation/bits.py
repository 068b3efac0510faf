"""Where the bits of one of our files went: detail bits of each cell, tokens and their bits of each window."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlf.bitstream import container
from dlf.codec import bundle
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import EngineOptions, make_backend
from dlf.codec.semantic import NOT_SENT
from dlf.geometry import WINDOW_CELLS, ceil_div

Map = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spent:
    """Information content of a file's parts, in bits.

    cells: of the detail symbols of each 32x32 cell of the padded image, float64 (rows, cols).
    windows: of the tokens of each 256x256 window, float64 (rows, cols).
    tokens: how many tokens each window sends, int64 (rows, cols).
    """

    cells: Map
    windows: Map
    tokens: NDArray[np.int64]


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
    received = StreamCodec(opened.manifest, tables, backend).receive(container.load(data))
    cells = received.detail_cost.sum(0)
    windows = tuple(ceil_div(side, WINDOW_CELLS) for side in cells.shape)
    tokens = (received.tokens != NOT_SENT).sum(1).reshape(windows)
    return Spent(cells, received.token_cost.sum(1).reshape(windows), tokens)
