"""The four-step schedule of the detail symbols (DLF / DCVC "four-part" context).

In step s each quarter of the channels (group g) codes one position of every 2x2 cell, so that after
four steps all positions of all groups are known and each step sees all earlier ones::

              group 0   group 1   group 2   group 3
    step 0     0 .       . 0       . .       . .
               . .       . .       0 .       . 0
    step 1     . .       . .       . 1       1 .
               . 1       1 .       . .       . .
    step 2     . .       . .       2 .       . 2
               2 .       . 2       . .       . .
    step 3     . 3       3 .       . .       . .
               . .       . .       . 3       3 .
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

STEPS = 4
GROUPS = 4

# POSITION[step][group] = (row, column) inside the 2x2 cell
POSITION = (
    ((0, 0), (0, 1), (1, 0), (1, 1)),
    ((1, 1), (1, 0), (0, 1), (0, 0)),
    ((1, 0), (1, 1), (0, 0), (0, 1)),
    ((0, 1), (0, 0), (1, 1), (1, 0)),
)


@lru_cache(maxsize=4)  # the masks of a very large image take tens of megabytes
def step_masks(channels: int, rows: int, cols: int) -> NDArray[np.bool_]:
    """Which symbols each step codes: bool (4, channels, rows, cols), a partition of all places.

    channels must be a multiple of 4; rows and cols may be odd (the last cell is then cut).
    """
    masks = np.zeros((STEPS, channels, rows, cols), bool)
    size = channels // GROUPS
    for step, groups in enumerate(POSITION):
        for group, (row, col) in enumerate(groups):
            masks[step, group * size : (group + 1) * size, row::2, col::2] = True
    masks.flags.writeable = False
    return masks
