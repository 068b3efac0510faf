"""The decoder printed in docs/bitstream.md is a second one: it must read what the package writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlf.entropy.coder import SymbolWriter

DOC = Path(__file__).parents[2] / "docs" / "bitstream.md"


def documented_decoder() -> Any:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL):
        exec(block, names)  # our own page
    return names["RangeDecoder"]


@pytest.mark.parametrize("seed", range(8))
def test_documented_range_decoder(seed: int) -> None:
    random = np.random.default_rng(seed)
    writer, written = SymbolWriter(), []
    for _ in range(40):
        size = int(random.integers(2, 300))
        weights = random.exponential(size=size) ** 6
        frequency = 1 + np.floor(weights / weights.sum() * (2**16 - size)).astype(np.uint32)
        frequency[-1] += 2**16 - frequency.sum()
        # likely and unlikely symbols alike
        symbols = random.choice(size, 60, p=frequency / 2**16).astype(np.int32)
        symbols[::7] = random.integers(0, size, len(symbols[::7]))
        writer.exchange(symbols, frequency)
        written.append((frequency.tolist(), symbols.tolist()))
    decoder = documented_decoder()(writer.finish())
    for frequency, symbols in written:
        assert [decoder.symbol(frequency) for _ in symbols] == symbols
