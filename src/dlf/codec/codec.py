"""The codec core: RGB pixels <-> Stream, in the order of the paper."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dlf.bitstream import container
from dlf.bitstream.bounds import payload_bound
from dlf.bitstream.container import Stream
from dlf.bitstream.header import Header
from dlf.codec import tiling
from dlf.codec.backend import Backend, Preparing
from dlf.codec.bundle import Manifest
from dlf.codec.deadline import TimedBackend
from dlf.codec.detail import Details, Passed, Receiver, Sender, Side, Traced, Watched, walk
from dlf.codec.effort import Effort, Round, Rounded
from dlf.codec.region import background_weights
from dlf.codec.semantic import NOT_SENT, exchange_tokens
from dlf.codec.symbol_sum import Summed, exchange_sum
from dlf.entropy.coder import SymbolCoder, SymbolReader, SymbolWriter
from dlf.entropy.tables import Tables
from dlf.errors import ChecksumError, FormatError
from dlf.geometry import Plan
from dlf.records import Float32, Float64, Int32, Latents, UInt8

MISFIT = "the checksum does not match: the file is damaged, or written with another model of the same number"
TOO_LONG = "the coded data are damaged: there are more than the model has for a picture of this size"


@dataclass(frozen=True, eq=False)
class Received:
    """What a payload holds.

    tokens: int32 (windows, tokens a window), -1 where not sent.
    y_hat: float32 (channels, rows, cols), dequantised detail latent.
    token_cost, detail_cost: float64 of the same shapes, information content of each symbol, in bits.
    settled: bytes of the payload that settle the tokens, then each of the four steps of details, whatever
        follows them; None where only the end of the payload does.
    details: int32 (channels, rows, cols), the detail symbols, 0 where not sent; None of a file of packets.
    """

    tokens: Int32
    y_hat: Float32
    token_cost: Float64
    detail_cost: Float64
    settled: tuple[int | None, ...] = ()
    details: Int32 | None = None

    @property
    def token_bits(self) -> float:
        """Information content of all tokens, in bits."""
        return float(self.token_cost.sum())

    @property
    def detail_bits(self) -> float:
        """Information content of all detail symbols, in bits."""
        return float(self.detail_cost.sum())


class StreamCodec:
    """One model, ready to encode and decode.

    manifest: its id goes into streams, its numerics into their checksums.
    effort: how the encoder searches; None where it rounds plainly.
    """

    def __init__(self, manifest: Manifest, tables: Tables, backend: Backend) -> None:
        self._model, self.numerics, self.channels = manifest.id, manifest.numerics, manifest.channels
        self.tokens = tables.tokens
        self._tables, self._backend = tables, backend
        self.effort: Effort | None = None

    def prepare(self, graphs: Iterable[str]) -> None:
        """Begin to build graphs that are not built yet, where the backend can."""
        if isinstance(self._backend, Preparing):
            self._backend.prepare(graphs)

    def within(self, seconds: float) -> StreamCodec:
        """Return this codec with a limit of time from now on: LimitExceeded once it is over."""
        limited = copy(self)
        limited._backend = TimedBackend(self._backend, seconds)
        return limited

    def encode_rgb(
        self, rgb: UInt8, quality: int, blob: bytes = b"", importance: UInt8 | None = None
    ) -> Stream:
        """Compress uint8 (height, width, 3).

        quality: 0 (smallest) to 100 (best).  blob: packed metadata to go with the picture.
        importance: see `background`.
        """
        header = self.header(rgb, quality, blob)
        weight = self.background(importance, header)
        latents = self.searched(self.analyse(rgb, quality), rgb, header, weight)
        return self.write(latents, header, blob, weight)

    def searching(self, effort: Effort) -> StreamCodec:
        """Return this codec as one that searches."""
        other = copy(self)
        other.effort = effort
        return other

    def searched(
        self, latents: Latents, rgb: UInt8, header: Header, rate_weight: float | Float32 = 0.0
    ) -> Latents:
        """Return latents of an image that are worth more, where this codec searches; else the same."""
        if self.effort is None:
            return latents
        sent = self.sent_tokens(latents.tokens, header)
        check = self._backend.check if isinstance(self._backend, TimedBackend) else None
        judge = self.effort.judges.of(self.plan(header), rgb, sent, header.quality, check)
        y = self.effort.search(latents.y, self.rounding(sent, header, rate_weight), judge)
        return Latents(latents.tokens, y)

    def background(self, importance: UInt8 | None, header: Header) -> float | Float32:
        """Return the rate weights, for `write`, that spare the bytes outside of a region of interest.

        importance: uint8 (height, width) of the header, 255 where nothing is spared; None is everywhere.
        """
        return 0.0 if importance is None else background_weights(importance, self.plan(header))

    def header(self, rgb: UInt8, quality: int, blob: bytes = b"") -> Header:
        """Return the header of an image's file; arguments as for `encode_rgb`."""
        return Header(self._model, quality, rgb.shape[1], rgb.shape[0], has_metadata=bool(blob))

    def analyse(self, rgb: UInt8, quality: int) -> Latents:
        """Return what the analysis network says of uint8 (height, width, 3), for `write`."""
        plan = self.plan(self.header(rgb, quality))
        return tiling.analyse(self._backend, plan, rgb, quality)

    def write(
        self, latents: Latents, header: Header, blob: bytes = b"", rate_weight: float | Float32 = 0.0
    ) -> Stream:
        """Code latents at the header's quality, which may differ a little from that of their analysis.

        blob: as the header was made with.  rate_weight: see `dlf.codec.detail.Sender`.
        """
        plan, quality = self.plan(header), header.quality
        writer = SymbolWriter()
        counts = self._token_counts(plan, quality)
        tokens = exchange_tokens(writer, latents.tokens, counts, self._tables).symbols
        self._walk(writer, Sender(latents.y, writer, self._tables, rate_weight), tokens, plan, quality)
        return container.seal(header, writer.finish(), self.numerics, blob)

    def sent_tokens(self, tokens: Int32, header: Header) -> Int32:
        """Return the tokens that a file has, int32 (windows, tokens a window), -1 for the others."""
        counts = self._token_counts(self.plan(header), header.quality)
        return exchange_tokens(SymbolWriter(), tokens, counts, self._tables).symbols

    def rounding(self, sent: Int32, header: Header, rate_weight: float | Float32 = 0.0) -> Round:
        """Return what rounds latents beside such `sent_tokens` as `write` does, many times over."""
        plan, tables = self.plan(header), self._tables
        prior = tiling.prior(self._backend, tables, plan, sent, header.quality)
        step = (prior.step / tables.step_unit).astype(np.float32)

        def rounded(y: Float32) -> Rounded:
            sender = Sender(y, SymbolWriter(), tables, rate_weight)
            side = Traced(sender, tables, prior.step.shape)
            details = walk(self._backend, tables, prior, side)
            return Rounded(details.y_hat, float(details.bits.sum()), side.bit_slope, side.sent, step)

        return rounded

    def decode_stream(self, stream: Stream) -> UInt8:
        """Decompress to uint8 (height, width, 3); raises FormatError as `receive` does."""
        return self.paint(self.receive(stream), stream.header)

    def paint(self, received: Received, header: Header) -> UInt8:
        """Paint what was received: uint8 (height, width, 3)."""
        plan = self.plan(header)
        return plan.crop(
            tiling.synthesise(self._backend, plan, received.tokens, received.y_hat, header.quality)
        )

    def receive(self, stream: Stream) -> Received:
        """Decode the symbols only, without painting.

        Raises:
            ChecksumError: the stream is damaged, or another model's.
            FormatError: the payload is not what any picture gives.
        """
        if stream.header.model != self._model or not container.fits(stream, self.numerics):
            raise ChecksumError(MISFIT)
        self.check_payload(stream.header, stream.payload)
        reader = SymbolReader(stream.payload)
        marks: list[int | None] = []
        received = self.read(stream.header, reader, lambda _: marks.append(reader.certain_after()))
        reader.finish()
        return replace(received, settled=tuple(marks))

    def check_payload(self, header: Header, payload: bytes) -> None:
        """Refuse a payload that is longer than any of its picture; raises FormatError."""
        if len(payload) > payload_bound(self.plan(header), self.tokens, self.channels):
            raise FormatError(TOO_LONG)

    def read(
        self, header: Header, reader: SymbolCoder, passed: Passed | None = None, *, is_summed: bool = True
    ) -> Received:
        """Read all symbols; nothing is checked but that they are some.

        passed: called after the tokens, and after each of the four steps of details, with how many symbols
            were to be read.
        is_summed: compare the model's checksum of the symbols, where it has one.
        Tokens that a reader which has `ended` does not give are -1, details 0.

        Raises:
            ChecksumError: the checksum of the symbols does not fit.
            FormatError: no picture gives such data.
        """
        plan, quality = self.plan(header), header.quality
        counts = self._token_counts(plan, quality)
        unknown = np.full((len(counts), self._tables.tokens), NOT_SENT, np.int32)
        tokens = exchange_tokens(reader, unknown, counts, self._tables)
        side: Side = Receiver(reader, self._tables)
        if passed is not None:
            passed(int(counts.sum()))
            side = Watched(side, passed)
        details = self._walk(reader, side, tokens.symbols, plan, quality, is_summed=is_summed)
        return Received(tokens.symbols, details.y_hat, tokens.bits, details.bits, details=details.symbols)

    def _walk(
        self,
        coder: SymbolCoder,
        side: Side,
        tokens: Int32,
        plan: Plan,
        quality: int,
        *,
        is_summed: bool = True,
    ) -> Details:
        """Exchange the details and what follows them."""
        summed = Summed(side, tokens)
        prior = tiling.prior(self._backend, self._tables, plan, tokens, quality)
        details = walk(self._backend, self._tables, prior, summed)
        if self._tables.symbol_sum and is_summed:
            exchange_sum(coder, summed.crc)
        return details

    def plan(self, header: Header) -> Plan:
        """Return the grids of a picture."""
        return Plan(header.height, header.width, self._tables.padding)

    def _token_counts(self, plan: Plan, quality: int) -> NDArray[np.int64]:
        """Tokens that each window sends, int64 (windows,)."""
        return plan.token_counts(int(self._tables.token_count[quality]))
