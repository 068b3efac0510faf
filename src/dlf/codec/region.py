"""A region of interest without a word in the stream: outside of it symbols are rounded to cheaper ones.

One quality holds for a whole file.  So the file gets the quality that the region is to have, and what lies
outside gives up bytes::

    mask       . . # # . .         0 to 255 a pixel
    cells      . # # # # .         a cell counts as the most important of its pixels
    weights    5 0 0 0 0 5         rate weight of its symbols, see `dlf.codec.rounding`
"""

from __future__ import annotations

import numpy as np

from dlf.geometry import CELL, Plan
from dlf.records import Float32, UInt8

BACKGROUND_WEIGHT = 0.5
"""Rate weight where nothing is important; see docs/rate.md for what others give."""


def background_weights(importance: UInt8, plan: Plan) -> Float32:
    """Return the rate weight of each cell, float32 (rows, cols).

    importance: uint8 (height, width) of the plan; 255 is weight 0, 0 is `BACKGROUND_WEIGHT`.
    """
    rows, cols = plan.cells
    padded = plan.pad(importance[..., None])[..., 0]
    cells = padded.reshape(rows, CELL, cols, CELL).max((1, 3))
    weights: Float32 = np.float32(BACKGROUND_WEIGHT) * (1 - cells.astype(np.float32) / 255)
    return weights
