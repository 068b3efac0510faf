"""Where the bits of one of our files went: detail bits of each cell, tokens and their bits of each window."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlf.bitstream import container
from dlf.codec import bundle, tiling
from dlf.codec.detail import Receiver, walk
from dlf.codec.semantic import NOT_SENT, exchange_tokens
from dlf.entropy.coder import FREQUENCY_BITS, SymbolReader
from dlf.entropy.tables import Tables
from dlf.geometry import Plan
from dlf.records import Int32

Map = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spent:
    """Information content of a file's parts, in bits.

    cells: of the detail symbols of each 32x32 cell, float64 (rows, cols).
    windows: of the tokens of each 256x256 window, float64 (rows, cols).
    tokens: how many tokens each window sends, int64 (rows, cols).
    """

    cells: Map
    windows: Map
    tokens: NDArray[np.int64]


class _Meter:
    """A receiver that adds up what every place cost."""

    def __init__(self, reader: SymbolReader, tables: Tables) -> None:
        self._receiver, self._tables = Receiver(reader, tables), tables
        self.cells: Map = np.zeros(())

    def exchange(self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32) -> Int32:
        """Read the symbols of one step."""
        symbols = self._receiver.exchange(mask, index, mean, step)
        limit = self._tables.limit
        excess = np.abs(symbols) - limit
        places = np.where(excess > 0, 2 * limit + 1, symbols + limit)
        bits = FREQUENCY_BITS - np.log2(self._tables.gaussian_frequency[index, places])
        # sign and Elias gamma code of what goes beyond the table
        bits += np.where(excess > 0, 2 + 2 * np.floor(np.log2(np.maximum(excess, 1))), 0)
        bits[index < self._tables.skip_below] = 0
        total = np.zeros(mask.shape)
        total[mask] = bits
        self.cells = self.cells + total.sum(0)
        return symbols


def spent(model: str | os.PathLike[str] | None, data: bytes, threads: int | None = None) -> Spent:
    """Read a ``.dlf`` file and say where its bits went; model: that made it, None is the package's.

    Raises:
        FormatError: the data is damaged.
        UnknownModel, BundleError: the model cannot be used.
    """
    from dlf.codec.onnx_backend import OnnxBackend

    stream = container.load(data)
    found = bundle.find(model)
    tables = found.tables()
    backend = OnnxBackend(found, tables, threads)
    quality = stream.header.quality
    plan = Plan(stream.header.height, stream.header.width)
    counts = plan.token_counts(int(tables.token_count[quality]))
    reader = SymbolReader(stream.payload)
    tokens = exchange_tokens(reader, np.zeros((len(counts), tables.tokens), np.int32), counts, tables)
    meter = _Meter(reader, tables)
    walk(backend, tables, tiling.prior(backend, tables, plan, tokens, quality), meter)
    reader.finish()
    frequency = tables.token_frequency[np.arange(tables.tokens), np.maximum(tokens, 0)]
    token_bits = np.where(tokens == NOT_SENT, 0, FREQUENCY_BITS - np.log2(frequency))
    return Spent(meter.cells, token_bits.sum(1).reshape(plan.windows), counts.reshape(plan.windows))
