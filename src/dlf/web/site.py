"""A folder for any static host: the page, the decoder in JavaScript, the models and their runtime.

    index.html app.js style.css      the page
    decoder/                         the decoder
    models/index.json                folders of models, in order of preference
    models/NAME/                     what decoding needs of a model
    onnxruntime/                     runs the networks
    site.json                        what the page can do here

All paths on the pages are relative, so that the folder may lie anywhere on a host.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dlf.codec import bundle
from dlf.codec.bundle import GRAPHS, MANIFEST, TABLES, ModelBundle
from dlf.errors import SiteError
from dlf.files import write_bytes

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
PAGE_SUFFIXES = (".html", ".js", ".css", ".svg", ".png", ".ico", ".webmanifest")
DECODING = (MANIFEST, TABLES, *(name for name in GRAPHS if name != "analysis.onnx"))

_SAFE = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # names that a URL holds as they are

Content = Path | bytes
"""A file of the site: where it lies, or what is in it."""


@dataclass(frozen=True)
class Site:
    """What was written: number of files, their bytes together, and the names of the models."""

    files: int
    bytes: int
    models: tuple[str, ...]


def site_files(
    runtime: Mapping[str, Content], models: Iterable[ModelBundle] | None = None, *, service: bool = False
) -> dict[str, Content]:
    """Return the files of a site by their paths on it.

    Args:
        runtime: files of onnxruntime-web, as `dlf.web.runtime` gives them; empty leaves the decoder out of
            what the page may use.
        models: of several for the same streams only the first is taken, for it decodes all their files;
            None is all that are installed.
        service: whether a server that encodes stands behind the page.

    Raises:
        SiteError: there is no model that runs in a browser.
    """
    files: dict[str, Content] = {}
    for path in sorted([*FOLDER.iterdir(), *(FOLDER / "decoder").iterdir()]):
        if path.suffix in PAGE_SUFFIXES and path.is_file():
            files[path.relative_to(FOLDER).as_posix()] = path
    names: list[str] = []
    chosen: dict[tuple[int, str], ModelBundle] = {}
    for model in bundle.installed() if models is None else models:
        chosen.setdefault((model.manifest.id, model.manifest.numerics), model)
    for model in chosen.values():
        if model.manifest.engine != "onnx":
            log.warning("left out the model '%s': it does not run in browsers", model.manifest.name)
            continue
        name = model.folder.name
        if name in names or not _SAFE.fullmatch(name):
            name = f"model-{len(names)}"
        names.append(name)
        for part in DECODING:
            files[f"models/{name}/{part}"] = model.folder / part
    if not names:
        msg = "there is no model that runs in browsers"
        raise SiteError(msg)
    files["models/index.json"] = _json({"models": names})
    files |= {f"onnxruntime/{name}": content for name, content in runtime.items()}
    files["site.json"] = _json({"service": service, "decoder": bool(runtime)})
    return files


def write_site(folder: Path, files: Mapping[str, Content], *, overwrite: bool = False) -> Site:
    """Write the files of a site into a folder, which is made.

    Args:
        folder: where the site goes; must be empty unless `overwrite` is set.
        files: as `site_files` returns them.
        overwrite: replace files of these names; others that are there stay.

    Raises:
        SiteError: there is something in the folder, or it is none.
        BundleError: a file of a model is damaged.
        OSError: a file cannot be read or written.
    """
    try:
        if any(folder.iterdir()) and not overwrite:
            msg = f"{folder} is not empty (--overwrite replaces its files)"
            raise SiteError(msg)
    except FileNotFoundError:
        pass
    except NotADirectoryError as error:
        msg = f"{folder} is a file"
        raise SiteError(msg) from error
    total = 0
    for name, content in files.items():
        data = _read(content)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, data)
        total += len(data)
    models = tuple(json.loads(_read(files["models/index.json"]))["models"])
    return Site(len(files), total, models)


def _read(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    if (content.parent / MANIFEST).is_file() and content.name != MANIFEST:
        return ModelBundle.open(content.parent).read(content.name)
    return content.read_bytes()


def _json(value: object) -> bytes:
    return (json.dumps(value) + "\n").encode()
