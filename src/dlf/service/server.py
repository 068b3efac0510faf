"""Runs the service until it is told to end."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable

import uvicorn

from dlf.errors import DlfError
from dlf.service.app import make_app
from dlf.service.protocol import PatientProtocol
from dlf.service.settings import Settings
from dlf.service.worker import LOG_FORMAT

BACKLOG = 128

log = logging.getLogger(__name__)


class CannotListen(DlfError):
    """The address is taken, or not this machine's."""


def run(settings: Settings, started: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, and then until what has begun is done.

    started: told the address once it is listened on; whether a worker is ready is for `/ready` to say.

    Raises:
        CannotListen: the address cannot be listened on.
        UnknownModel, BundleError: the model that the settings name cannot be used.
        SiteError: the runtime that they name is not there.
    """
    app = make_app(settings)
    listening = _listen(settings)
    protocol = type("Protocol", (PatientProtocol,), {"idle_timeout": settings.idle_timeout})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=int(max(1, settings.idle_timeout / 2)),
        # those that wait may need the time of those before them and their own
        timeout_graceful_shutdown=int(settings.upload_timeout + 2 * settings.timeout),
    )
    log.info("%d workers of %d threads, %d places in the queue", settings.workers,
             settings.worker_threads(), settings.queue)  # fmt: skip
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn's own, which it sets a little later: whoever reads the address may signal at once
        signal.signal(number, server.handle_exit)
    started(_address(listening))
    server.run(sockets=[listening])
    log.info("ended")


def set_up_log(level: int) -> None:
    """Let all that is logged go to standard error, with the time and the process."""
    logging.basicConfig(format=LOG_FORMAT, level=level, force=True)
    for noisy in ("uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it tells of bytes in bodies


def _listen(settings: Settings) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        msg = f"cannot listen on {settings.host}, port {settings.port}: {error.strerror or error}"
        raise CannotListen(msg) from error
    return listening


def _address(listening: socket.socket) -> str:
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
