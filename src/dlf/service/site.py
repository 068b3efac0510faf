"""The files that browsers get, by a fixed table of names."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from dlf.web.runtime import installed_files
from dlf.web.site import FOLDER, Content, site_files

INDEX = "index.html"
DECODING = ("models/", "onnxruntime/")


def files_of(runtime: Path | None) -> dict[str, Content]:
    """Return the files of the page and, where there is a runtime, of the decoder in the browser.

    runtime: folder of the npm package onnxruntime-web, or where npm installed it.

    Raises:
        SiteError: the runtime is not there, or no model runs in browsers.
    """
    files = site_files({} if runtime is None else installed_files(runtime), service=True)
    if runtime is None:  # then nobody needs the models
        files = {name: content for name, content in files.items() if not name.startswith(DECODING)}
    return files


class Listed(StaticFiles):
    """Files of a table; a path that is no name in it leads nowhere, whatever it is made of."""

    def __init__(self, files: dict[str, Path]) -> None:
        super().__init__(directory=FOLDER)
        self._files = files

    def file_response(self, *given: Any, **named: Any) -> Response:
        """Return the answer with a file, which browsers ask for anew: all of a page must be of one age."""
        response = super().file_response(*given, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Return where the file of a name lies, and its state; None where there is none."""
        name = INDEX if path == "." else path.replace(os.sep, "/")
        found = self._files.get(name)
        if found is None:
            return "", None
        state = found.stat()
        return (str(found), state) if stat.S_ISREG(state.st_mode) else ("", None)
