"""What files of few bytes cost who decodes them: `python tools/worst_streams.py --side 4096 --bytes 14 1000`.

For every number of bytes it makes a file of a square image whose payload has nearly that many: all symbols
are zeros but for so many of the largest size, at the first places that are sent at all.  A file of 14 bytes
has no payload; any other has at least what its tokens take.  Each is decoded under the package's own limits,
in one thread of a process of its own, whose processor time and peak memory count.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlf.bitstream import container
from dlf.bitstream.header import Header
from dlf.codec import bundle, tiling
from dlf.codec.bundle import ModelBundle
from dlf.codec.detail import walk
from dlf.codec.engine import EngineOptions, make_backend
from dlf.codec.semantic import exchange_tokens
from dlf.entropy.coder import Exchanged, SymbolWriter
from dlf.entropy.gaussian import MAX_SYMBOL, exchange_symbols
from dlf.entropy.tables import UNSENT, Tables
from dlf.geometry import Plan
from dlf.records import Int32

EMPTY = 14  # bytes of a file without payload
ROW = "| {:>5} | {:>10} | {:>9} | {:>4} | {:>7} | {:>5} |"
DECODE = """
import resource, sys, time
import dlf
try:
    dlf.Codec(sys.argv[2], threads=1).decode(sys.argv[1])
    end = "read"
except dlf.DlfError as error:
    end = type(error).__name__
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
print(end, f"{time.process_time():.1f}", f"{most:.0f}")
"""


class LargeThenZeros:
    """A sender of as many symbols of the largest size as fit into some bytes, and zeros behind them."""

    def __init__(self, writer: SymbolWriter, tables: Tables, size: int) -> None:
        self._writer, self._tables, self._left = writer, tables, 8 * size

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Write the symbols of one step."""
        symbols = np.zeros(len(index), np.int32)
        sent = np.flatnonzero(index >= UNSENT)
        # an escape, a sign and a gamma code of 15 and 16 digits have at most so many bits
        symbols[sent[: max(self._left // 48, 0)]] = MAX_SYMBOL
        exchanged = exchange_symbols(self._writer, symbols, index, self._tables)
        self._left -= int(exchanged.bits.sum())
        return exchanged


def make_file(model: ModelBundle, side: int, size: int) -> bytes:
    """Return a file of side x side pixels that decodes and has about `size` bytes."""
    header = Header(model.manifest.id, 0, side, side)
    if size <= EMPTY:
        return container.dump(container.seal(header, b"", model.manifest.numerics))
    tables = model.tables()
    backend = make_backend(model, tables, EngineOptions())
    plan, writer = Plan(side, side, tables.padding), SymbolWriter()
    counts = plan.token_counts(int(tables.token_count[0]))
    first = np.zeros((len(counts), tables.tokens), np.int32)
    tokens = exchange_tokens(writer, first, counts, tables).symbols
    prior = tiling.prior(backend, tables, plan, tokens, 0)
    walk(backend, tables, prior, LargeThenZeros(writer, tables, size - EMPTY - int(writer.bits) // 8))
    return container.dump(container.seal(header, writer.finish(), model.manifest.numerics))


def main() -> None:
    """Print a row for every model, side and number of bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["fast", "base"])
    parser.add_argument("--side", nargs="+", type=int, default=[1024, 2896, 5792])
    parser.add_argument("--bytes", nargs="+", type=int, default=[14, 100, 1000, 10**6])
    options = parser.parse_args()
    print(ROW.format("model", "picture", "bytes", "end", "seconds", "MB"))
    print("|---|---|---:|---|---:|---:|")
    for name in options.models:
        for side in options.side:
            for size in options.bytes:
                found = measure(make_file(bundle.find(name), side, size), name)
                print(ROW.format(name, f"{side}x{side}", *found))


def measure(data: bytes, model: str) -> tuple[str, ...]:
    """Decode a file with a model in a process; its bytes, what came of it, processor seconds, peak memory."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "worst.dlf")
        path.write_bytes(data)
        line = [sys.executable, "-c", DECODE, path, model]
        done = subprocess.run(line, env=os.environ | one_thread, capture_output=True, text=True, check=True)
    return f"{len(data):,}", *done.stdout.split()


if __name__ == "__main__":
    main()
