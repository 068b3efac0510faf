"""What every request passes: headers for the safety of browsers, a line in the log, counters."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import time
from collections.abc import Collection
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dlf.service.metrics import Metrics
from dlf.service.tasks import JSON, Answer, refusal

log = logging.getLogger(__name__)

CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",  # WebAssembly may be compiled; no text is ever run
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self' blob:",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
SAME_ORIGIN = "Cross-Origin-Resource-Policy"
DISCARD_SECONDS, DISCARD_PAUSE = 5.0, 0.5
"""How long the rest of a refused body is taken in, and how long of that nothing may come."""

PROBES = ("/health", "/ready", "/metrics")
"""What machines ask for every few seconds, so that the log has no line for it."""

ANONYMOUS_METHODS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Middleware around everything else.

    origins: web origins whose pages may use the service, or "*".  names: under which it may be asked for,
    besides its addresses.  routes: paths that are counted by name.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        origins: Collection[str],
        names: Collection[str],
        routes: Collection[str],
    ) -> None:
        self._app, self._metrics = app, metrics
        self._origins, self._routes = frozenset(origins), frozenset(routes)
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, sent = time.monotonic(), 500, 0
        name, incoming = secrets.token_hex(6), _Incoming(scope, receive)

        async def send_guarded(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400 and status != 408:
                    await incoming.discard()
                headers = MutableHeaders(scope=message)
                for key, value in HEADERS.items():
                    headers.setdefault(key, value)
                headers.setdefault(SAME_ORIGIN, "cross-origin" if self._origins else "same-origin")
                headers["X-Request-Id"] = name
            sent += len(message.get("body", b""))
            await send(message)

        try:
            if (answer := self._refusal(scope)) is not None:
                response = Response(answer.body, answer.status, media_type=JSON)
                await response(scope, incoming.receive, send_guarded)
            else:
                await self._app(scope, incoming.receive, send_guarded)
        finally:
            seconds = time.monotonic() - start
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            level = logging.DEBUG if route in PROBES and status == 200 else logging.INFO
            log.log(
                level,
                "%s %s %s %s %d %d bytes %.3f s",
                name,
                _client(scope),
                scope["method"],
                _path(scope),
                status,
                sent,
                seconds,
            )

    def _refusal(self, scope: Scope) -> Answer | None:
        """Return what a request is told that a page from elsewhere sends, or may have sent."""
        if "*" in self._origins:
            return None
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._is_own(host):
            return refusal(421, "the service does not go by this name (see dlf serve --host-name)")
        if scope["method"] not in ANONYMOUS_METHODS and self._is_foreign(headers, host):
            return refusal(403, "pages of other origins may not use this service (see dlf serve --cors)")
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a host can be this one: anybody may let a name of his lead here, and his page is then ours.

        No stranger can do that with an address, a name without a domain, or a name of the local network.
        """
        name, _, port = host.rpartition(":")
        name = (name if port.isdecimal() else host).rstrip(".")
        if "." not in name or name.endswith((".localhost", ".local")) or name in self._names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _is_foreign(self, headers: Headers, host: str) -> bool:
        """Whether a browser says that a page from elsewhere sends this, which needs no leave to send it."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._origins:
            return False
        if site is not None:
            return site not in ("same-origin", "none")
        # browsers say the site on TLS and to their own machine only, the origin always
        return origin is not None and _authority(origin) != host


class _Incoming:
    """The body of a request as it comes in."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._is_coming = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._is_held = "expect" in headers  # the client waits for leave, which a refusal does not give

    async def receive(self) -> Message:
        """Return the next part."""
        message = await self._receive()
        if not message.get("more_body", False):
            self._is_coming = False
        return message

    async def discard(self) -> None:
        """Take in what is under way, for a while: many clients read no answer before they have sent all."""
        if self._is_held:
            return
        with anyio.move_on_after(DISCARD_SECONDS):
            while self._is_coming:
                with anyio.move_on_after(DISCARD_PAUSE) as pause:
                    await self.receive()
                if pause.cancelled_caught:
                    return


def _authority(origin: str) -> str:
    """Return host and port of an origin; empty where it has none."""
    try:
        return urlsplit(origin.lower()).netloc
    except ValueError:
        return ""


def _client(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else "-"


def _path(scope: Scope) -> str:
    """The path as it was sent, so that nothing in it can begin a line of its own."""
    raw: bytes = scope.get("raw_path") or b"?"
    return ascii(raw[:200].decode("latin-1"))[1:-1]
