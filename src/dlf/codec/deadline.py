"""A limit of time: a backend that stops before its next network once the time is over."""

from __future__ import annotations

import time

from dlf.codec.backend import Backend
from dlf.errors import TimeExceeded
from dlf.records import WHOLE, Float32, Int32, Latents, Place, Prior, StepParams, UInt8


class TimedBackend:
    """Another backend's networks, within some seconds from now on.

    The clock is looked at before each network and each tile, so the last one may end a few seconds late.
    Every method raises TimeExceeded once the time is over.
    """

    def __init__(self, backend: Backend, seconds: float) -> None:
        self._backend, self._seconds = backend, seconds
        self._end = time.monotonic() + seconds

    def analyse(self, rgb: UInt8, quality: int, place: Place = WHOLE) -> Latents:
        """Pixels to latents; see `Backend`."""
        self.check()
        return self._backend.analyse(rgb, quality, place)

    def prior(self, rows: int, cols: int, quality: int, tokens: Int32) -> Prior:
        """Integer parameters that are known before any detail symbol; see `Backend`."""
        self.check()
        return self._backend.prior(rows, cols, quality, tokens)

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Integer parameters of a later step; see `Backend`."""
        self.check()
        return self._backend.context(step, y_hat, common)

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        """Latents to pixels; see `Backend`."""
        self.check()
        return self._backend.synthesise(tokens, y_hat, quality, place)

    def check(self) -> None:
        """Raise LimitExceeded if the time is over."""
        if time.monotonic() > self._end:
            msg = f"it takes longer than the limit of {self._seconds:g} seconds"
            raise TimeExceeded(msg)
