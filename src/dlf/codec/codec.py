"""The codec core: RGB pixels <-> Stream, in the order of the paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlf.bitstream.container import Stream
from dlf.bitstream.header import Header
from dlf.codec import tiling
from dlf.codec.backend import Backend
from dlf.codec.detail import Receiver, Sender, Side, walk
from dlf.codec.semantic import exchange_tokens
from dlf.codec.symbol_sum import Summed, exchange_sum
from dlf.entropy.coder import SymbolCoder, SymbolReader, SymbolWriter
from dlf.entropy.tables import Tables
from dlf.geometry import Plan
from dlf.records import Float32, Int32, UInt8


@dataclass(frozen=True, eq=False)
class Received:
    """What a payload holds.

    tokens: int32 (windows, tokens a window), -1 where not sent.
    y_hat: float32 (channels, rows, cols), dequantised detail latent.
    token_bits, detail_bits: information content of each part, in bits.
    """

    tokens: Int32
    y_hat: Float32
    token_bits: float
    detail_bits: float


class StreamCodec:
    """One model, ready to encode and decode.

    model: its id, written into streams.
    """

    def __init__(self, model: int, tables: Tables, backend: Backend) -> None:
        self._model, self._tables, self._backend = model, tables, backend

    def encode_rgb(self, rgb: UInt8, quality: int) -> Stream:
        """Compress uint8 (height, width, 3); quality: 0 (smallest) to 100 (best)."""
        header = Header(self._model, quality, width=rgb.shape[1], height=rgb.shape[0])
        plan = self._plan(header)
        latents = tiling.analyse(self._backend, plan, plan.pad(rgb), quality)
        writer = SymbolWriter()
        tokens = exchange_tokens(writer, latents.tokens, self._token_counts(plan, quality), self._tables)
        self._walk(writer, Sender(latents.y, writer, self._tables), tokens, plan, quality)
        return Stream(header, writer.finish())

    def decode_stream(self, stream: Stream) -> UInt8:
        """Decompress to uint8 (height, width, 3); raises FormatError on a damaged payload."""
        plan = self._plan(stream.header)
        found = self.receive(stream)
        return plan.crop(
            tiling.synthesise(self._backend, plan, found.tokens, found.y_hat, stream.header.quality)
        )

    def receive(self, stream: Stream) -> Received:
        """Decode the symbols only, without painting; raises FormatError on a damaged payload."""
        plan, quality = self._plan(stream.header), stream.header.quality
        counts = self._token_counts(plan, quality)
        reader = SymbolReader(stream.payload)
        unknown = np.zeros((len(counts), self._tables.tokens), np.int32)
        tokens = exchange_tokens(reader, unknown, counts, self._tables)
        token_bits = reader.bits
        y_hat = self._walk(reader, Receiver(reader, self._tables), tokens, plan, quality)
        reader.finish()
        return Received(tokens, y_hat, token_bits, reader.bits - token_bits)

    def _walk(self, coder: SymbolCoder, side: Side, tokens: Int32, plan: Plan, quality: int) -> Float32:
        """Exchange the details and what follows them; returns y_hat."""
        summed = Summed(side, tokens)
        prior = tiling.prior(self._backend, self._tables, plan, tokens, quality)
        y_hat = walk(self._backend, self._tables, prior, summed)
        if self._tables.symbol_sum:
            exchange_sum(coder, summed.crc)
        return y_hat

    def _plan(self, header: Header) -> Plan:
        return Plan(header.height, header.width, self._tables.padding)

    def _token_counts(self, plan: Plan, quality: int) -> NDArray[np.int64]:
        """Tokens that each window sends, int64 (windows,)."""
        return plan.token_counts(int(self._tables.token_count[quality]))
