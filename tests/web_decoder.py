"""The browser's decoder in Node, for tests: a process that answers commands (see tests/web/driver.mjs)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.onnx_backend import OnnxBackend
from dlf.errors import ChecksumError, DlfError, FormatError, LimitExceeded, SiteError, UnsupportedVersion
from dlf.records import UInt8
from dlf.web.runtime import installed_files
from dlf.web.site import Site, site_files, write_site

WEB = Path(__file__).parent / "web"
KINDS = {
    UnsupportedVersion: "version",
    ChecksumError: "checksum",
    FormatError: "format",
    LimitExceeded: "limit",
}
"""Names that JavaScript gives to errors."""

OLDEST_NODE = 20, 12  # that unfolds raw deflate streams


def runtime() -> dict[str, Path]:
    """The files of onnxruntime-web, or the test is skipped."""
    folder = Path(os.environ.get("DLF_ONNXRUNTIME_WEB", WEB))
    try:
        return installed_files(folder)
    except SiteError:
        pytest.skip("onnxruntime-web is not installed (npm ci --prefix tests/web)")


def node() -> str:
    """The program, or the test is skipped."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node is not installed")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, version.lstrip("v").split(".")[:2])) < OLDEST_NODE:
        pytest.skip(f"Node {version.strip()} is too old")
    return program


def make_site(folder: Path, models: list[ModelBundle] | None = None) -> Site:
    """Write a site with its runtime, or skip."""
    site = write_site(folder, site_files(runtime(), models))
    # hosts say that .js are modules; to Node this says it
    (folder / "package.json").write_text('{"type": "module"}')
    return site


@dataclass(frozen=True, eq=False)
class Painted:
    """A picture, uint8 (height, width, 4); top, left, height, width and bytes of the tiles that were told."""

    rgba: UInt8
    tiles: list[tuple[int, ...]]

    @property
    def rgb(self) -> UInt8:
        """The picture without its fourth channel."""
        return self.rgba[..., :3]


class Driver:
    """A Node process with the decoder of a site."""

    def __init__(self, site: Path) -> None:
        self._process = subprocess.Popen(
            [node(), str(WEB / "driver.mjs"), str(site)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, command: str, **given: Any) -> dict[str, Any]:
        """Run a command; bytes are sent in base64.  An answer with `error` is a refusal."""
        sent = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in given.items()}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **sent}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert not str(answer.get("error", "")).startswith("unexpected"), answer
        return answer

    def decode(self, data: bytes, folder: Path) -> Painted:
        """Decode a file; `folder` is a place for its pixels on the way."""
        out = folder / "picture.rgba"
        answer = self.ask("decode", bytes=data, out=str(out))
        assert "error" not in answer, answer
        rgba = np.fromfile(out, np.uint8).reshape(answer["height"], answer["width"], 4)
        return Painted(rgba, [tuple(tile) for tile in answer["tiles"]])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def kind(error: DlfError) -> str:
    return next(name for known, name in KINDS.items() if isinstance(error, known))


def sha(*arrays: np.ndarray[Any, Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@lru_cache
def receiver_of(folder: Path) -> StreamCodec:
    model = ModelBundle.open(folder)
    tables = model.tables()
    return StreamCodec(model.manifest, tables, OnnxBackend(model, tables))
