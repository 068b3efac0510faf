"""Detail symbols: the one four-step loop that encoder and decoder share.

prior ------> scale, mean of step 0      coded places ----.
  |                                          ^            v
  |                                          |   y_hat (known so far)
  '---> common --> context(step, y_hat) -> scale, mean of the next step
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlf.codec.backend import Backend
from dlf.codec.effort import bit_slopes
from dlf.codec.rounding import round_symbols
from dlf.entropy.coder import Exchanged, SymbolCoder, SymbolWriter
from dlf.entropy.gaussian import exchange_symbols, table_index
from dlf.entropy.quadtree import step_masks
from dlf.entropy.tables import UNSENT, Tables
from dlf.errors import BundleError
from dlf.records import Float32, Float64, Int32, Prior


@dataclass(frozen=True, eq=False)
class Details:
    """What a walk brought from one side to the other.

    y_hat: float32 (channels, rows, cols), what the receiver knows of y, dequantised.
    bits: float64 (channels, rows, cols), information content of each symbol, in bits.
    symbols: int32 (channels, rows, cols), 0 where not sent.
    """

    y_hat: Float32
    bits: Float64
    symbols: Int32


class Side(Protocol):
    """The sender or the receiver of detail symbols."""

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Bring the symbols of one of the four steps from one side to the other.

        mask: bool (channels, rows, cols), the n places of the step; the other arrays have its order.
        index: int16 (n,), probability table.  mean: int32 (n,), in units of the tables' `mean_unit`.
        step: int32 (n,), quantisation step, in units of the tables' `step_unit`.
        Returns the symbols and their bits, each (n,).
        """
        ...


class Sender:
    """Rounds y, float32 (channels, rows, cols), and writes it.

    rate_weight: see `round_symbols`; of all symbols, or float32 (rows, cols).
    """

    def __init__(
        self, y: Float32, writer: SymbolWriter, tables: Tables, rate_weight: float | Float32 = 0.0
    ) -> None:
        if not np.isfinite(y).all():
            msg = "the model's analysis network gave a value that is not finite"
            raise BundleError(msg)
        self._y, self._writer, self._tables = y, writer, tables
        self._rate_weight = np.asarray(rate_weight, np.float32)

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Write the symbols of one step."""
        tables = self._tables
        exact = self._y[mask] * (tables.step_unit / step) - mean / tables.mean_unit
        weight = self._rate_weight
        if weight.ndim:
            weight = np.broadcast_to(weight, mask.shape)[mask]
        symbols = round_symbols(exact, index, tables, weight)
        return exchange_symbols(self._writer, symbols, index, tables)


class Receiver:
    """Reads what a Sender wrote."""

    def __init__(self, reader: SymbolCoder, tables: Tables) -> None:
        self._reader, self._tables = reader, tables

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Read the symbols of one step."""
        return exchange_symbols(self._reader, np.zeros(len(index), np.int32), index, self._tables)


Passed = Callable[[int], object]
"""Called after a run of symbols with how many of them were to be sent."""


class Watched:
    """A side that says when a step is done; those of the table that is not sent do not count."""

    def __init__(self, side: Side, passed: Passed) -> None:
        self._side, self._passed = side, passed

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Pass the symbols of one step; see `Side`."""
        exchanged = self._side.exchange(mask, index, mean, step)
        self._passed(int((index >= UNSENT).sum()))
        return exchanged


class Traced:
    """A side that keeps, of each symbol, whether it is sent and what it would cost to make it larger.

    sent: bool, bit_slope: float32, both (channels, rows, cols); see `dlf.codec.effort.Rounded`.
    """

    def __init__(self, side: Side, tables: Tables, shape: tuple[int, ...]) -> None:
        self._side, self._tables = side, tables
        self.sent, self.bit_slope = np.zeros(shape, np.bool_), np.zeros(shape, np.float32)

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Pass the symbols of one step; see `Side`."""
        exchanged = self._side.exchange(mask, index, mean, step)
        self.sent[mask] = index >= UNSENT
        self.bit_slope[mask] = bit_slopes(exchanged.symbols, index, self._tables)
        return exchanged


def walk(backend: Backend, tables: Tables, prior: Prior, side: Side) -> Details:
    """Exchange all detail symbols of the prior's latent grid, in four steps."""
    y_hat, symbols = np.zeros(prior.step.shape, np.int32), np.zeros(prior.step.shape, np.int32)
    bits = np.zeros(prior.step.shape)
    params = prior.first
    for step, mask in enumerate(step_masks(*prior.step.shape)):
        if step > 0:
            params = backend.context(step, y_hat, prior.common)
        mean = params.mean[mask]
        exchanged = side.exchange(mask, table_index(params.scale[mask], tables), mean, prior.step[mask])
        y_hat[mask] = exchanged.symbols * tables.mean_unit + mean
        symbols[mask], bits[mask] = exchanged.symbols, exchanged.bits
    latent = y_hat * (prior.step / (tables.mean_unit * tables.step_unit))
    return Details(latent.astype(np.float32), bits, symbols)
