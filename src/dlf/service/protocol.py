"""HTTP/1.1 with patience: a connection that says nothing for too long, or takes nothing, is closed.

uvicorn itself waits without end for the head of a first request, and for a client that reads no further.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class PatientProtocol(H11Protocol):
    """A connection with a clock that runs while the client is the one to do something.

    A body that is being read has a limit of its own (`dlf.service.bodies`).
    """

    idle_timeout = 10.0
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop waiting once a request has begun; where it has not, more bytes win no more time."""
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        if cycle is not None and not cycle.response_complete:
            self._stop()
        elif self._clock is None:
            self._start()

    def on_response_complete(self) -> None:
        """Begin to wait for the rest of a refused body, or for the next request."""
        self._stop()
        super().on_response_complete()
        if self.cycle.response_complete:  # else a request that had come already has begun
            self._start()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what it was sent."""
        super().pause_writing()
        self._start()

    def resume_writing(self) -> None:
        """Stop waiting."""
        super().resume_writing()
        self._stop()

    def _start(self) -> None:
        self._stop()
        self._clock = self.loop.call_later(self.idle_timeout, self.transport.abort)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
