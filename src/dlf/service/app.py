"""What the service answers: its routes, and what stands between a request and a worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

import dlf
from dlf.codec.bundle import find
from dlf.imageio import formats
from dlf.service import bodies, parameters
from dlf.service.guards import Guard
from dlf.service.media import MEDIA_TYPES
from dlf.service.metrics import Metrics
from dlf.service.openapi import document, page
from dlf.service.pool import Pool
from dlf.service.settings import Settings
from dlf.service.site import Listed, files_of
from dlf.service.tasks import Answer, Refused, Task, refusal, to_json

DLF_HEADERS = (
    "Dlf-Quality",
    "Dlf-Width",
    "Dlf-Height",
    "Dlf-Bpp",
    "Dlf-Scale",
    "Retry-After",
    "X-Request-Id",
)
"""Headers that pages of other origins may read, where they are let in."""

Read = Callable[[Request], Task]

PIECE_BYTES = 2**18
"""Of an answer that is sent at a time: what a client must take within `Settings.idle_timeout`."""


class Service:
    """The parts that requests share.

    Raises:
        UnknownModel, BundleError: the model that the settings name cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.pool = Pool(settings, self.metrics)
        self.default = find(settings.model).describe()
        self.models = dlf.models()
        # of several with one name or number the service's own comes first, then the first that is installed
        self.names = {
            name: str(model.folder)
            for model in (*reversed(self.models), self.default)
            for name in (model.name, str(model.id), *model.roles)
        }
        writable = {known.name for known in formats() if known.writable}
        self.formats = [name for name in MEDIA_TYPES if name in writable]

    def about(self) -> dict[str, object]:
        """Return what clients may know of the limits."""
        settings = self.settings
        return {
            "version": dlf.__version__,
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "seconds": settings.timeout,
            "workers": settings.workers,
            "queue": settings.queue,
            "formats": self.formats,
            "avif": "avif" in self.formats,
        }


class _Working:
    """The endpoint of a task that `read` reads from the query and the headers of a request."""

    def __init__(self, service: Service, read: Read) -> None:
        self._service, self._read = service, read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if request.method != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        task = self._read(request)
        service, settings = self._service, self._service.settings
        with service.pool.place():
            body = await bodies.read(request, settings.max_bytes, settings.upload_timeout)
            service.metrics.body_bytes.labels(request.url.path).observe(len(body))
            answer = await service.pool.run(task, body, request.is_disconnected)
            # within its place, so that places bound the answers in memory as well
            await respond(answer)(scope, receive, send)


def make_app(settings: Settings) -> Starlette:
    """Return the service as an application of ASGI; its workers start with it, and end with it.

    Raises:
        UnknownModel, BundleError: the model that the settings name cannot be used.
        SiteError: the runtime that the settings name is not there.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.pool.open()
        yield
        await service.pool.close()

    middleware = []
    if settings.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=["GET", "POST"],
                allow_headers=["Content-Type"],
                expose_headers=DLF_HEADERS,
            )
        )
    routes = _routes(service)
    paths = [route.path for route in routes]
    files = files_of(settings.runtime)
    made = [_fixed(f"/{name}", data) for name, data in files.items() if isinstance(data, bytes)]
    lying = {name: path for name, path in files.items() if isinstance(path, Path)}
    guard = Middleware(Guard, service.metrics, settings.origins, settings.names, paths)
    return Starlette(
        routes=[*routes, *made, Mount("/", Listed(lying))],
        middleware=[guard, *middleware],
        exception_handlers={Refused: _refused, HTTPException: _http, ClientDisconnect: _gone, 500: _failed},
        lifespan=lifespan,
    )


def _routes(service: Service) -> list[Route]:
    def post(path: str, read: Read) -> Route:
        return Route(path, _Working(service, read))

    def get(path: str, answer: Callable[[], Response]) -> Route:
        async def endpoint(_: Request) -> Response:
            return answer()

        return Route(path, endpoint, methods=["GET"])

    described = document(dlf.__version__)
    return [
        post("/encode", lambda request: parameters.encode(request.query_params, service.names)),
        post("/decode", lambda request: parameters.decode(
            request.query_params, request.headers.get("accept", ""), service.formats
        )),
        post("/info", lambda request: parameters.describe(request.query_params)),
        post("/bits", lambda request: parameters.spending(request.query_params)),
        post("/avif", lambda request: parameters.rival(request.query_params)),
        get("/models", lambda: respond(Answer(_models(service)))),
        get("/limits", lambda: respond(Answer(to_json(service.about())))),
        get("/health", lambda: respond(Answer(to_json({"status": "alive"})))),
        get("/ready", lambda: _ready(service)),
        get("/metrics", lambda: Response(service.metrics.text(), media_type="text/plain; version=0.0.4")),
        get("/openapi.json", lambda: respond(Answer(json.dumps(described, indent=1).encode()))),
        get("/api", lambda: HTMLResponse(page(described))),
    ]  # fmt: skip


def _fixed(path: str, data: bytes) -> Route:
    """Return the route of a JSON text that never changes."""

    async def endpoint(_: Request) -> Response:
        return respond(Answer(data))

    return Route(path, endpoint, methods=["GET"])


def _models(service: Service) -> bytes:
    """All models as JSON, without their folders: the places of our files concern nobody."""
    models = []
    for model in service.models:
        fields = asdict(model)
        del fields["folder"]
        models.append({**fields, "default": model.folder == service.default.folder})
    return to_json(models)


def _ready(service: Service) -> Response:
    ready = service.pool.ready
    if not ready:
        return respond(Refused(503, "no worker has its networks yet", 1).answer())
    return respond(Answer(to_json({"status": "ready", "workers": ready})))


class _Pieces(Response):
    """A response that goes out piece by piece: sent at once, all of it would have to be taken in time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body, end = self.body, 0
        while end < len(body):
            start, end = end, end + PIECE_BYTES
            await send({"type": "http.response.body", "body": body[start:end], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def respond(answer: Answer) -> Response:
    """Return an answer as Starlette sends it; answers are about their own request, so nobody keeps them."""
    headers = {"Cache-Control": "no-store", **answer.headers}
    return _Pieces(answer.body, answer.status, headers, answer.media_type)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return respond(error.answer())


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {
        404: "there is nothing of this name here",
        405: "this path is asked in another way; see /api",
    }
    answer = refusal(
        error.status_code, sentences.get(error.status_code, error.detail), **(error.headers or {})
    )
    return respond(answer)


async def _gone(_: Request, __: Exception) -> Response:
    return respond(refusal(499, "the client went away"))


async def _failed(_: Request, __: Exception) -> Response:
    return respond(refusal(500, "unexpected error; the log of the service says more"))
