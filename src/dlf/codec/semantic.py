"""Semantic tokens of all windows, in both directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlf.entropy.coder import Exchanged, SymbolCoder, information
from dlf.entropy.tables import Tables
from dlf.records import Int32

NOT_SENT = -1


def exchange_tokens(
    coder: SymbolCoder, tokens: Int32, counts: NDArray[np.int64], tables: Tables
) -> Exchanged:
    """Write or read the first `counts` tokens of every window.

    tokens: int32 (windows, tokens), each in [0, codes); a reader uses only the shape.
    counts: int64 (windows,), how many each window sends, at most tokens.
    Returns (windows, tokens): the tokens, -1 where not sent, and their bits.

    All first tokens go first, then all second ones, and so on: the place of a token decides its table.
    """
    exchanged, bits = np.full_like(tokens, NOT_SENT), np.zeros(tokens.shape)
    for place in range(int(counts.max(initial=0))):
        sending = counts > place
        frequency = tables.token_frequency[place]
        exchanged[sending, place] = coder.exchange(tokens[sending, place], frequency)
        bits[sending, place] = information(exchanged[sending, place], frequency)
    return Exchanged(exchanged, bits)
