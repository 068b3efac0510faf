"""From a file to its symbols: docs/bitstream.md, section 3."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlf.bitstream import container
from dlf.bitstream.bounds import payload_bound
from dlf.bitstream.container import Stream
from dlf.errors import BundleError, ChecksumError, FormatError
from dlf.geometry import Plan
from dlf.records import Float32, Float64, Int32
from dlf.reference.fixed import Fixed
from dlf.reference.model import MAX_SYMBOL, TOTAL, ReferenceModel
from dlf.reference.operators import Value
from dlf.reference.range_decoder import RangeDecoder, ends_of

Int64 = NDArray[np.int64]

NOT_SENT = -1

STEPS = (  # row and column in a block of 2x2 cells, for each group of channels
    ((0, 0), (0, 1), (1, 0), (1, 1)),
    ((1, 1), (1, 0), (0, 1), (0, 0)),
    ((1, 0), (1, 1), (0, 0), (0, 1)),
    ((0, 1), (0, 0), (1, 1), (1, 0)),
)

_BIT = ends_of([TOTAL // 2] * 2)
_BYTE = ends_of([TOTAL // 256] * 256)
_MAX_DIGITS = 16  # of an excess, in binary


@dataclass(frozen=True, eq=False)
class ReferenceSymbols:
    """All that a file holds.

    tokens: int32 (windows, tokens a window), -1 where not sent.
    details: int32 (channels, rows, cols), the symbols, 0 where not sent.
    y_hat: float32 (channels, rows, cols), the latent that they stand for.
    token_cost, detail_cost: float64 of the same shapes, information content of each symbol, in bits.
    """

    tokens: Int32
    details: Int32
    y_hat: Float32
    token_cost: Float64
    detail_cost: Float64


def sha256_of(symbols: Int32) -> str:
    """Return the hex SHA-256 of symbols as little-endian int32, in the order of the array."""
    return hashlib.sha256(symbols.astype("<i4").tobytes()).hexdigest()


def decode_symbols(
    stream: Stream, model: ReferenceModel, before_network: Callable[[], None] = lambda: None
) -> ReferenceSymbols:
    """Read the symbols of a file.

    before_network: called before each of the four times that a network runs; may raise, to stop.

    Raises:
        ChecksumError: the file is damaged, or of another model.
        FormatError: the payload is not what any picture gives.
        BundleError: the model's networks cannot be run.
    """
    header, tables = stream.header, model.tables
    if header.model != model.id or not container.fits(stream, model.numerics):
        msg = "the checksum does not match: the file is damaged, or of another model of the same number"
        raise ChecksumError(msg)
    plan = Plan(header.height, header.width, tables.padding)
    if len(stream.payload) > payload_bound(plan, len(tables.token_frequency), model.channels):
        msg = "the coded data are damaged: there are more than the model has for a picture of this size"
        raise FormatError(msg)
    decoder = RangeDecoder(stream.payload)
    tokens, cost = _read_tokens(decoder, plan, header.quality, model)
    walk = _Walk(decoder, model, before_network)
    before_network()
    walk.read(*_prior(plan, header.quality, tokens, model))
    if tables.symbol_sum:
        _compare_sums(decoder, zlib.crc32(walk.spoken, zlib.crc32(tokens.astype("<i4").tobytes())))
    decoder.finish()
    # the product of two whole numbers below 2**31, and a division that rounds once
    latent = walk.y_hat * walk.step / (tables.mean_unit * tables.step_unit)
    return ReferenceSymbols(tokens, walk.details.astype(np.int32), latent.astype(np.float32), cost, walk.cost)


def _read_tokens(
    decoder: RangeDecoder, plan: Plan, quality: int, model: ReferenceModel
) -> tuple[Int32, Float64]:
    """Return tokens and their bits, (windows, tokens a window); -1 and 0 where not sent."""
    frequency = model.tables.token_frequency
    counts = plan.token_counts(int(model.tables.token_count[quality]))
    tokens = np.full((len(counts), len(frequency)), NOT_SENT, np.int32)
    cost = np.zeros(tokens.shape)
    for place in range(counts.max()):
        ends = ends_of(frequency[place].tolist())
        for window in np.flatnonzero(counts > place):
            tokens[window, place] = decoder.symbol(ends)
            cost[window, place] = information(frequency[place, tokens[window, place]])
    return tokens, cost


def information(frequency: Int64) -> Float64:
    """Return what symbols of these frequencies cost, in bits; nothing is decided by it."""
    bits: Float64 = np.log2(TOTAL / frequency)
    return bits


def _prior(
    plan: Plan, quality: int, tokens: Int32, model: ReferenceModel
) -> tuple[Int64, Int64, Int64, Fixed]:
    """Return scale and mean of step 0, quantisation step, and the features of the later steps."""
    rows, cols = plan.cells
    vector = model.tables.prior[quality].astype(np.int32)
    grid = np.broadcast_to(vector[None, :, None, None], (1, len(vector), rows, cols))
    inputs: dict[str, Value] = {
        "prior": Fixed(grid),
        "tokens": tokens.reshape(*plan.windows, -1).astype(np.int64),
    }
    shape = (1, model.channels, rows, cols)
    outputs = model.prior.run(("scale", "mean", "step", "common"), inputs)
    scale, mean, step, common = (_shaped(each, shape) for each in outputs)
    return scale, mean, step, Fixed(common.astype(np.int32)[None])


def _shaped(output: Int32, shape: tuple[int, ...]) -> Int64:
    if output.shape != shape:
        msg = f"a network of the model gave {output.shape} instead of {shape}"
        raise BundleError(msg)
    wide: Int64 = output[0].astype(np.int64)
    return wide


class _Walk:
    """The four steps; `y_hat` counts 1 / mean_unit.

    spoken: the symbols so far as bytes of little-endian int32, in the order of the steps.
    details, cost: as in `ReferenceSymbols`.
    """

    def __init__(
        self, decoder: RangeDecoder, model: ReferenceModel, before_network: Callable[[], None] = lambda: None
    ) -> None:
        self._decoder, self._model, self._before_network = decoder, model, before_network
        self._frequency = model.tables.gaussian_frequency
        self._tables = [ends_of(row) for row in self._frequency.tolist()]
        self._limit = self._frequency.shape[1] // 2 - 1
        self.spoken = b""

    def read(self, scale: Int64, mean: Int64, step: Int64, common: Fixed) -> None:
        """Read all details; arguments as `_prior` returns them."""
        self.step, self.y_hat, self.details = step, np.zeros_like(scale), np.zeros_like(scale)
        self.cost = np.zeros(scale.shape)
        for number, places in enumerate(STEPS):
            if number > 0:
                self._before_network()
                y_hat = Fixed(self.y_hat[None].astype(np.int32))
                inputs: dict[str, Value] = {
                    "y_hat": y_hat,
                    "common": common,
                    "index": np.array(number - 1, np.int64),
                }
                found = self._model.context.run(("scale", "mean"), inputs)
                scale, mean = (_shaped(each, (1, *step.shape)) for each in found)
            turn = np.zeros(step.shape, np.bool_)
            for group, (row, col) in zip(np.split(turn, 4), places, strict=True):  # views of turn
                group[:, row::2, col::2] = True
            symbols, self.cost[turn] = self._read_step(scale[turn])
            self.details[turn] = symbols
            self.y_hat[turn] = self._model.tables.mean_unit * symbols + mean[turn]
            self.spoken += symbols.astype("<i4").tobytes()

    def _read_step(self, scale: Int64) -> tuple[Int64, Float64]:
        """Return symbols and bits of one step, (n,) in the order of its places, from their scales (n,)."""
        table = np.searchsorted(self._model.tables.scale_bounds, scale, side="right")
        symbols, cost = np.zeros(len(table), np.int64), np.zeros(len(table))
        escapes = []
        symbol, limit = self._decoder.symbol, self._limit
        for number in range(1, len(self._tables)):
            ends = self._tables[number]
            places = np.flatnonzero(table == number)
            entries = np.array([symbol(ends) for _ in places], np.int64)
            symbols[places], cost[places] = entries - limit, information(self._frequency[number, entries])
            escapes += places[entries > 2 * limit].tolist()
        for place in escapes:
            symbols[place], bits = self._read_large()
            cost[place] += bits
        return symbols, cost

    def _read_large(self) -> tuple[int, int]:
        """Return a symbol beyond the tables, its sign and by how much as Elias gamma code, and its bits."""
        bit = self._decoder.symbol
        negative, digits = bit(_BIT), 1
        while not bit(_BIT):
            digits += 1
            if digits > _MAX_DIGITS:
                raise FormatError(_TOO_LARGE)
        size = 1
        for _ in range(digits - 1):
            size = 2 * size + bit(_BIT)
        size += self._limit
        if size > MAX_SYMBOL:
            raise FormatError(_TOO_LARGE)
        return -size if negative else size, 2 * digits


_TOO_LARGE = "the coded data are damaged: a detail symbol is too large"


def _compare_sums(decoder: RangeDecoder, own: int) -> None:
    sent = bytes(decoder.symbol(_BYTE) for _ in range(4))
    if sent != own.to_bytes(4, "little"):
        msg = "the symbols decoded here are not those that were encoded"
        raise ChecksumError(msg)
