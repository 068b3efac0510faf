"""Probability tables of a model: integers only, so that every machine codes the same."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dlf.entropy.coder import FREQUENCY_BITS, UInt32
from dlf.errors import BundleError
from dlf.geometry import CELL
from dlf.limits import MAX_PADDING
from dlf.records import Float64, Int32, UInt8

QUALITIES = 101  # 0..100
TOTAL = 1 << FREQUENCY_BITS

MAX_UNFOLDED_BYTES = 2**27
"""Limit of all arrays together: 255 tokens of 2**16 codes take half of it."""

# symbols of the first table are always 0 and not sent
UNSENT = 1

# what tables.npz may leave out, and the value that then holds
OPTIONS = {"mean_unit": 16, "step_unit": 64, "padding": CELL, "symbol_sum": 0, "token_prior": 0}


@dataclass(frozen=True, eq=False)
class Tables:
    """Everything the entropy coder of one model needs besides its networks.

    gaussian_frequency: uint32 (scales, 2 * limit + 2), frequencies of the symbols -limit..limit and of
        the escape; every row sums to 2**16 and has no zero.  Symbols of the first row are 0 and not sent.
    scale_bounds: int32 (scales - 1,), ascending; the table of a scale is the number of bounds <= scale.
    token_frequency: uint32 (tokens, codes), frequencies of the codes at each place of a window.
    token_count: uint8 (101,), tokens that a full window sends at each quality, not decreasing.
    prior: int16 (101, inputs), input of the prior network at each quality.
    mean_unit, step_unit: fractions of 1 in which means and quantisation steps are counted.
    padding: pixels; pictures are padded right and bottom to multiples of it, itself one of 32.
    symbol_sum: 1 where a checksum of the symbols follows them (see `dlf.codec.symbol_sum`).
    token_prior: 1 where the prior network also reads the tokens.
    """

    gaussian_frequency: UInt32
    scale_bounds: Int32
    token_frequency: UInt32
    token_count: UInt8
    prior: NDArray[np.int16]
    mean_unit: int = OPTIONS["mean_unit"]
    step_unit: int = OPTIONS["step_unit"]
    padding: int = OPTIONS["padding"]
    symbol_sum: int = OPTIONS["symbol_sum"]
    token_prior: int = OPTIONS["token_prior"]

    def __post_init__(self) -> None:
        """Raise BundleError unless all promises of the class hold."""
        scales, columns = _shape(self.gaussian_frequency, np.uint32, "gaussian_frequency", 2)
        _check(columns >= 4 and columns % 2 == 0, "gaussian_frequency has an odd number of columns")
        _check_frequencies(self.gaussian_frequency, "gaussian_frequency")
        (bounds,) = _shape(self.scale_bounds, np.int32, "scale_bounds", 1)
        _check(bounds == scales - 1, "scale_bounds does not fit gaussian_frequency")
        _check(bool((self.scale_bounds[1:] > self.scale_bounds[:-1]).all()), "scale_bounds does not ascend")
        tokens, codes = _shape(self.token_frequency, np.uint32, "token_frequency", 2)
        _check(tokens >= 1 and codes >= 2, "token_frequency is empty")
        _check_frequencies(self.token_frequency, "token_frequency")
        _check(
            _shape(self.token_count, np.uint8, "token_count", 1) == (QUALITIES,),
            "token_count has a wrong length",
        )
        count = self.token_count.astype(np.int64)
        _check(
            count[0] >= 1 and count[-1] <= tokens and bool((np.diff(count) >= 0).all()),
            "token_count does not ascend from 1 to the number of tokens",
        )
        _check(_shape(self.prior, np.int16, "prior", 2)[0] == QUALITIES, "prior has a wrong length")
        # symbols of 2**15 in units of 2**-14 still fit an int32
        _check(1 <= self.mean_unit <= 2**14, "mean_unit is out of range")
        _check(1 <= self.step_unit <= 2**20, "step_unit is out of range")
        units = range(CELL, MAX_PADDING + 1, CELL)
        _check(self.padding in units, f"padding is not a multiple of {CELL} up to {MAX_PADDING}")
        _check(self.symbol_sum in (0, 1), "symbol_sum is neither 0 nor 1")
        _check(self.token_prior in (0, 1), "token_prior is neither 0 nor 1")

    @property
    def limit(self) -> int:
        """Largest magnitude of a detail symbol that needs no escape."""
        return int(self.gaussian_frequency.shape[1]) // 2 - 1

    @cached_property
    def gaussian_bits(self) -> Float64:
        """Information content of each symbol of `gaussian_frequency`, in bits; float64 of its shape."""
        bits: Float64 = FREQUENCY_BITS - np.log2(self.gaussian_frequency)
        return bits

    @property
    def tokens(self) -> int:
        """Tokens of a window at most."""
        return int(self.token_frequency.shape[0])

    @property
    def codes(self) -> int:
        """Size of the token codebook."""
        return int(self.token_frequency.shape[1])

    @classmethod
    def load(cls, data: bytes) -> Tables:
        """Read the arrays from the bytes of an ``.npz`` file; raises BundleError."""
        names = ("gaussian_frequency", "scale_bounds", "token_frequency", "token_count", "prior")
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                unfolded = sum(part.file_size for part in file.zip.infolist())
                arrays = dict(file) if unfolded <= MAX_UNFOLDED_BYTES else None
        except MemoryError:
            raise
        except Exception as error:  # a damaged zip file raises nearly anything
            msg = "the model's probability tables cannot be read"
            raise BundleError(msg) from error
        if arrays is None:
            msg = f"the model's probability tables unfold to {unfolded:,} bytes, above {MAX_UNFOLDED_BYTES:,}"
            raise BundleError(msg)
        complete = set(names) <= set(arrays) <= {*names, *OPTIONS}
        _check(complete, f"the arrays must be {', '.join(names)}")
        for array in arrays.values():
            array.flags.writeable = False
        options: dict[str, Any] = {}
        for name in OPTIONS.keys() & arrays:
            value = arrays.pop(name)
            _shape(value, np.int64, name, 0)
            options[name] = int(value)
        return cls(**arrays, **options)


def gaussian_frequencies(scales: NDArray[np.float64], limit: int) -> UInt32:
    """Return integer frequencies of a rounded zero-mean Gaussian for each standard deviation.

    scales: float64 (n,), each above 0.  limit: largest symbol with a place of its own, at least 1.
    Returns uint32 (n, 2 * limit + 2): symbols -limit..limit, then the escape, which has both tails.
    Every row is symmetric, has no zero and sums to 2**16.
    """
    spare = TOTAL - (2 * limit + 2)
    rows = np.empty((len(scales), 2 * limit + 2), np.uint32)
    for row, scale in zip(rows, scales.tolist(), strict=True):
        # mass beyond k - 1/2, on one side
        tails = [math.erfc((k - 0.5) / scale / math.sqrt(2)) / 2 for k in range(1, limit + 2)]
        side = [1 + round((a - b) * spare) for a, b in pairwise(tails)]
        escape = 1 + round(2 * tails[-1] * spare)
        # the centre is the likeliest symbol: what rounding leaves over changes it least
        row[:] = [*side[::-1], TOTAL - 2 * sum(side) - escape, *side, escape]
    return rows


def _shape(array: NDArray[np.generic], dtype: DTypeLike, name: str, axes: int) -> tuple[int, ...]:
    _check(array.dtype == np.dtype(dtype) and array.ndim == axes, f"{name} has a wrong type or shape")
    return array.shape


def _check_frequencies(rows: UInt32, name: str) -> None:
    good = rows.size > 0 and rows.min() >= 1 and (rows.sum(axis=1, dtype=np.int64) == TOTAL).all()
    _check(bool(good), f"a row of {name} has a zero or does not sum to {TOTAL}")


def _check(condition: bool, what: str) -> None:
    if not condition:
        msg = f"the model's probability tables are wrong: {what}"
        raise BundleError(msg)
