"""Contact sheets of originals and reconstructions, to look at while a run goes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor


def rows_of_pairs(pairs: Sequence[tuple[Tensor, Tensor]], side: int = 384) -> Image.Image:
    """Originals above, reconstructions below; each (1, 3, H, W) in [-1, 1], cut to `side` pixels."""
    sheet = Image.new("RGB", (side * len(pairs), 2 * side))
    for column, pair in enumerate(pairs):
        for row, tensor in enumerate(pair):
            pixels = ((tensor[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
            sheet.paste(
                Image.fromarray(np.ascontiguousarray(pixels[:side, :side])), (column * side, row * side)
            )
    return sheet
