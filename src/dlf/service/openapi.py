"""The description of the service: OpenAPI for programs, and a page of the same for people."""

from __future__ import annotations

from html import escape
from typing import Any

from dlf.service.media import MEDIA_TYPES
from dlf.service.tasks import DLF, JSON

Fields = dict[str, Any]

REFUSALS = {
    403: "A page of another origin asks, which the service was not told to let in.",
    405: "The path is there, but asked in another way.",
    406: "The client accepts no type of picture that is made here.",
    408: "The body did not arrive in time.",
    413: "The body has too many bytes, or the picture too many pixels.",
    415: "The body is no picture that is read here, or no .dlf file.",
    421: "The service does not go by the name under which it is asked.",
    422: "A parameter makes no sense, a .dlf file is damaged, or no file has the size that was asked for.",
    429: "All places are taken; Retry-After says when to try again.",
    500: "An error of the service; its log says more.",
    503: "No worker is there, none became free in time, or the one that had the picture died.",
    504: "The picture takes longer than the service allows.",
}
"""What each status means, for every path that takes a body."""

FORMATS = " or ".join(MEDIA_TYPES)


def document(version: str) -> Fields:
    """Return the description as OpenAPI 3.1; version: of the package."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dlf",
            "version": version,
            "summary": "Photographs to about a kilobyte, and back.",
            "description": "Bodies are the bytes of a file, or a form (multipart/form-data) whose first file "
            'counts. Every refusal is JSON with one sentence, {"error": "..."}.',
        },
        "paths": _paths(),
        "components": {
            "schemas": {
                "Refusal": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string", "description": "A sentence."}},
                }
            }
        },
    }


def _paths() -> Fields:
    picture, ours = "A picture, in any format that is read here.", "A .dlf file."
    sizes = [
        _parameter(
            "quality", "0 (smallest) to 100 (best).", {"type": "integer", "minimum": 0, "maximum": 100}
        ),
        _parameter("bytes", "Instead: the file has at most so many bytes.", {"type": "integer"}),
        _parameter("bpp", "Instead: the same in bits a pixel.", {"type": "number"}),
        _parameter("best", "Take the nearest file where none has that size.", {"type": "boolean"}),
        _parameter("model", "Name, role or number of a model of /models.", {"type": "string"}),
        _parameter("metadata", "Keep ICC, EXIF and XMP.", {"type": "boolean"}),
    ]
    made = [
        _parameter("format", f"{FORMATS}; else what Accept prefers.", {"enum": list(MEDIA_TYPES)}),
        _parameter("quality", "1 to 100, of lossy formats.", {"type": "integer"}),
    ]
    symbols = _parameter("symbols", "Read the symbols as well, which runs two networks.", {"type": "boolean"})
    size = _parameter("bytes", "Bytes at most.", {"type": "integer"}, required=True)
    smallest = _parameter("best", "Take the smallest file where none is so small.", {"type": "boolean"})
    pictures: Fields = {media_type: {} for media_type in MEDIA_TYPES.values()}
    return {
        "/encode": _post("Picture to .dlf file", picture, sizes, {DLF: {}}, refuses_accept=False),
        "/decode": _post(".dlf file to picture", ours, made, pictures),
        "/info": _post("What a .dlf file says of itself", ours, [symbols], {JSON: {}}, refuses_accept=False),
        "/bits": _post("Where the bits of a .dlf file went, in bits of each cell of 32x32 pixels and of the "
                       "tokens of each window of 256x256", ours, [], {JSON: {}}, refuses_accept=False),
        "/avif": _post("Picture to an AVIF file of at most so many bytes, at the scale that MS-SSIM finds "
                       "best, to compare with", picture, [size, smallest], {"image/avif": {}},
                       refuses_accept=False),
        "/models": _get("Models that are installed", JSON),
        "/limits": _get("Limits of this service, and what it can write", JSON),
        "/health": _get("The process is alive", JSON),
        "/ready": _get("A worker has its networks", JSON, {503: "None has."}),
        "/metrics": _get("Numbers for Prometheus", "text/plain"),
        "/openapi.json": _get("This description", JSON),
        "/api": _get("The same as a page", "text/html"),
    }  # fmt: skip


def _parameter(name: str, text: str, schema: Fields, *, required: bool = False) -> Fields:
    return {"name": name, "in": "query", "description": text, "schema": schema, "required": required}


def _post(
    summary: str, body: str, parameters: list[Fields], content: Fields, *, refuses_accept: bool = True
) -> Fields:
    form = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
    refusals = {
        str(status): _refusal(text) for status, text in REFUSALS.items() if status != 406 or refuses_accept
    }
    return {
        "post": {
            "summary": summary,
            "parameters": parameters,
            "requestBody": {
                "required": True,
                "description": body,
                "content": {
                    "application/octet-stream": {},
                    "multipart/form-data": {"schema": form},
                },
            },
            "responses": {"200": {"description": summary, "content": content}, **refusals},
        }
    }


def _get(summary: str, media_type: str, others: dict[int, str] | None = None) -> Fields:
    refusals = {str(status): _refusal(text) for status, text in (others or {}).items()}
    found = {"description": summary, "content": {media_type: {}}}
    return {"get": {"summary": summary, "responses": {"200": found, **refusals}}}


def _refusal(text: str) -> Fields:
    schema = {"$ref": "#/components/schemas/Refusal"}
    return {"description": text, "content": {JSON: {"schema": schema}}}


def page(described: Fields) -> str:
    """Return a description as a page of HTML that fetches nothing but the style of the service's own page."""
    about = described["info"]
    sections = "".join(
        _section(method.upper(), path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(about['title'])}: HTTP interface</title>"
        '<link rel="icon" href="icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="style.css"></head>'
        f'<body class="api"><main><h1>HTTP interface</h1><p>{escape(about["description"])}</p>'
        '<p><a href="openapi.json">openapi.json</a> has the same for programs. '
        '<a href=".">Back to the page</a></p>'
        f"{sections}</main></body></html>\n"
    )


def _section(method: str, path: str, operation: Fields) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code></td><td>{escape(each['description'])}</td></tr>"
        for each in operation.get("parameters", [])
    )
    answers = "".join(
        f"<tr><td>{status}</td><td>{escape(found['description'])} "
        f"<code>{escape(', '.join(found['content']))}</code></td></tr>"
        for status, found in operation["responses"].items()
    )
    table = "<table><caption>{}</caption><tbody>{}</tbody></table>".format
    body = operation.get("requestBody", {}).get("description")
    return (
        f"<section><h2><code>{method} {escape(path)}</code></h2><p>{escape(operation['summary'])}.</p>"
        + (f"<p>Body: {escape(body)}</p>" if body else "")
        + (table("Parameters", rows) if rows else "")
        + table("Answers", answers)
        + "</section>"
    )
