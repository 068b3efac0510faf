"""Where the bits of a stream went: detail bits of each cell, tokens and their bits of each window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlf.codec.codec import Received
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


def spent_on(received: Received) -> Spent:
    """Say where the bits of received symbols went."""
    cells = received.detail_cost.sum(0)
    windows = tuple(ceil_div(side, WINDOW_CELLS) for side in cells.shape)
    tokens = (received.tokens != NOT_SENT).sum(1).reshape(windows)
    return Spent(cells, received.token_cost.sum(1).reshape(windows), tokens)
