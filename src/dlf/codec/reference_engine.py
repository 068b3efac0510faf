"""Symbols by the reference decoder, behind the interface of the codec; pixels as always.

It makes nothing faster.  It is a second opinion of what a file holds, and reads symbols where ONNX Runtime is
not to be had.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache, cached_property, partial

from dlf.bitstream.container import Stream
from dlf.codec.backend import Backend
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import Received, StreamCodec
from dlf.codec.deadline import TimedBackend
from dlf.entropy.tables import Tables
from dlf.errors import EngineError
from dlf.records import WHOLE, Float32, Int32, Latents, Place, Prior, StepParams, UInt8
from dlf.reference.decoder import decode_symbols
from dlf.reference.model import ReferenceModel


class ReferenceCodec(StreamCodec):
    """One model whose files are read by the reference decoder.

    painter: makes what paints, when something is painted.
    """

    def __init__(self, bundle: ModelBundle, tables: Tables, painter: Callable[[], Backend]) -> None:
        super().__init__(bundle.manifest, tables, PaintingOnly(painter))
        self._reference = cache(partial(ReferenceModel.open, bundle.folder))
        self._check: Callable[[], None] = lambda: None

    def within(self, seconds: float) -> ReferenceCodec:
        """Return this codec with a limit of time from now on; see `StreamCodec`."""
        limited, timed = copy(self), TimedBackend(self._backend, seconds)
        limited._backend, limited._check = timed, timed.check
        return limited

    def receive(self, stream: Stream) -> Received:
        """Decode the symbols only; see `StreamCodec`."""
        found = decode_symbols(stream, self._reference(), self._check)
        return Received(
            tokens=found.tokens,
            y_hat=found.y_hat,
            token_cost=found.token_cost,
            detail_cost=found.detail_cost,
            details=found.details,
        )


class PaintingOnly:
    """A backend that paints and does nothing else, made when it first paints."""

    def __init__(self, painter: Callable[[], Backend]) -> None:
        self._make = painter

    @cached_property
    def _painter(self) -> Backend:
        try:
            return self._make()
        except ImportError as error:
            msg = f"ONNX Runtime cannot be loaded, so that nothing can be painted ({error})"
            raise EngineError(msg) from error

    def analyse(self, rgb: UInt8, quality: int, place: Place = WHOLE) -> Latents:
        """Refuse to encode."""
        raise _decodes_only()

    def prior(self, rows: int, cols: int, quality: int, tokens: Int32) -> Prior:
        """Refuse: what decides symbols is not this one's."""
        raise _decodes_only()

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Refuse: what decides symbols is not this one's."""
        raise _decodes_only()

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        """Latents to pixels; see `Backend`."""
        return self._painter.synthesise(tokens, y_hat, quality, place)


def _decodes_only() -> EngineError:
    return EngineError("the reference engine only decodes, and only whole files: choose another one")
