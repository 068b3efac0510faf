"""From the exact latent to whole symbols: to the nearest, or to a cheaper one that is near enough."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlf.entropy.gaussian import MAX_SYMBOL
from dlf.entropy.tables import Tables
from dlf.records import Float32, Int32


def round_symbols(
    exact: NDArray[np.floating], index: NDArray[np.int16], tables: Tables, rate_weight: float | Float32 = 0.0
) -> Int32:
    """Return the symbol that is written for each value.

    exact: float (n,), in units of the quantisation step, less the mean.
    index: int16 (n,), probability table of each.
    rate_weight: at least 0, of all or of each (n,): what a bit weighs against the squared error of a symbol.
        With 0 a symbol is the nearest whole number; with more it is that, the next one towards zero, or zero:
        whichever has the least sum of squared error and weighted bits under its table.
    Returns int32 (n,), each in -2**15..2**15.
    """
    nearest: Int32 = np.clip(np.rint(exact), -MAX_SYMBOL, MAX_SYMBOL).astype(np.int32)
    if not np.any(rate_weight):
        return nearest
    # symbols beyond the limit are rare and cost more than their tables say
    places = np.flatnonzero((nearest != 0) & (np.abs(nearest) <= tables.limit))
    symbols, values, rows = nearest[places], exact[places], index[places]
    weights = np.broadcast_to(np.float64(rate_weight), exact.shape)[places]
    choices = np.stack([symbols, symbols - np.sign(symbols), np.zeros_like(symbols)])
    costs = (values - choices) ** 2 + weights * tables.gaussian_bits[rows, choices + tables.limit]
    nearest[places] = np.take_along_axis(choices, costs.argmin(0)[None], 0)[0]
    return nearest
