"""Serve the codec over HTTP, with a page to try it on."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import click

from dlf.cli.jobs import tell
from dlf.cli.options import COUNT, ENGINES, PATH, pixels
from dlf.extras import need

ORIGIN = re.compile(r"\*|https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def host_name(text: str) -> str:
    """Argument type: a name that leads to this service, such as photos.example.org."""
    if not HOST_NAME.fullmatch(text):
        msg = f"'{text}' is not the name of a host such as photos.example.org (no port)"
        raise click.BadParameter(msg)
    return text


def origin(text: str) -> str:
    """Argument type: where a web page comes from, such as https://example.org, or *."""
    if not ORIGIN.fullmatch(text):
        msg = f"'{text}' is not an origin such as https://example.org (no path, small letters), or *"
        raise click.BadParameter(msg)
    return text


def size(text: str | int) -> int:
    """Argument type: a number of bytes, such as 32M."""
    try:
        return pixels(text)
    except click.BadParameter as error:
        msg = f"'{text}' is not a number of bytes such as 32000000, 32e6 or 32M"
        raise click.BadParameter(msg) from error


SECONDS = click.FloatRange(0.1, 86400)


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 takes one that is free.",
)
@click.option(
    "--workers",
    type=COUNT,
    metavar="N",
    help="Processes that encode and decode.  [default: one a processor, 2 to 4]",
)
@click.option(
    "--queue",
    type=click.IntRange(0, 10000),
    default=16,
    show_default=True,
    metavar="N",
    help="Requests that may wait; more are answered 429.",
)
@click.option(
    "--max-bytes", type=size, default="32M", show_default=True, metavar="N", help="Refuse longer bodies."
)
@click.option(
    "--max-pixels", type=pixels, default="25M", show_default=True, metavar="N", help="Refuse larger pictures."
)
@click.option(
    "--timeout",
    type=SECONDS,
    default=60,
    show_default=True,
    metavar="S",
    help="Seconds that a picture may take, and that one may wait for a worker.",
)
@click.option(
    "--upload-timeout",
    type=SECONDS,
    default=30,
    show_default=True,
    metavar="S",
    help="Seconds that a body may take to arrive.",
)
@click.option(
    "--cors",
    type=origin,
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of another origin in, such as https://example.org, or *; may be given again.",
)
@click.option(
    "--host-name",
    "names",
    type=host_name,
    multiple=True,
    metavar="NAME",
    help="Answer under this name too, such as photos.example.org; may be given again.  "
    "[default: addresses, and names of the local network]",
)
@click.option("--model", metavar="MODEL", help="What encodes where a request names no model; see dlf --help.")
@click.option("--threads", type=COUNT, metavar="N", help="Threads of each worker.  [default: an equal share]")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="onnxruntime",
    show_default=True,
    help="What runs the networks; see dlf engines.",
)
@click.option(
    "--onnxruntime-web",
    "runtime",
    type=PATH,
    metavar="FOLDER",
    help="The npm package onnxruntime-web: with it the page can decode in the browser; see dlf web.",
)
@click.option("--quiet", is_flag=True, help="Log warnings and errors only.")
def command(
    host: str,
    port: int,
    workers: int | None,
    queue: int,
    max_bytes: int,
    max_pixels: int,
    timeout: float,
    upload_timeout: float,
    cors: tuple[str, ...],
    names: tuple[str, ...],
    model: str | None,
    threads: int | None,
    engine: str,
    runtime: Path | None,
    quiet: bool,
) -> int:
    """Serve the codec over HTTP, with a page to try it on.

    The page is at /, the interface for programs at /api.  Whatever is sent stays in memory and is forgotten.
    SIGTERM and Ctrl-C let what has begun come to its end.  There is neither TLS nor a password: before other
    machines may reach it, put a web server in front (docs/service.md).
    """
    for module in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
        need(module, "serve")
    from dlf.service.server import run, set_up_log
    from dlf.service.settings import Settings, usual_workers

    settings = Settings(
        host=host, port=port, workers=workers or usual_workers(), queue=queue, max_bytes=max_bytes,
        max_pixels=max_pixels, timeout=timeout, upload_timeout=upload_timeout, model=model, engine=engine,
        threads=threads, runtime=runtime, origins=cors, names=names,
    )  # fmt: skip
    set_up_log(logging.WARNING if quiet else logging.INFO)
    run(settings, lambda address: tell(f"listening on {address}"))
    return 0
