"""The files of onnxruntime-web, which runs networks in browsers: from a folder, or fetched by npm.

They are no part of the package: 14 MB of WebAssembly that only a web site needs.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from dlf.errors import MissingExtra, SiteError

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
"""Release that the decoder is tested with; tests/web/package.json names the same."""

FILES = {
    "ort.js": "ort.wasm.min.mjs",
    "ort-wasm.js": "ort-wasm-simd-threaded.mjs",
    "ort-wasm.wasm": "ort-wasm-simd-threaded.wasm",
}
"""Names on the site, and in the package's folder dist; not every host knows that .mjs is JavaScript."""

_MAX_BYTES = 2**26
_SECONDS = 600


def installed_files(folder: Path) -> dict[str, Path]:
    """Return the files by their names on the site; folder: the npm package, or what `npm install` filled.

    Raises:
        SiteError: they are not there.
    """
    for root in (folder, folder / PACKAGE, folder / "node_modules" / PACKAGE):
        found = {name: root / "dist" / source for name, source in FILES.items()}
        if all(path.is_file() for path in found.values()):
            return found
    msg = f"there is no package {PACKAGE} in {folder}: it needs the files {', '.join(FILES.values())} in dist"
    raise SiteError(msg)


def fetched_files() -> dict[str, bytes]:
    """Fetch the package by npm and return its files by their names on the site.

    Raises:
        MissingExtra: npm is not installed.
        SiteError: npm cannot fetch the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        msg = f"{PACKAGE} is not at hand; install npm, or name its folder by --onnxruntime-web"
        raise MissingExtra(msg)
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"],
                cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            msg = f"npm cannot fetch {PACKAGE} ({error})"
            raise SiteError(msg) from error
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            lines = done.stderr.strip().splitlines() or ["it says nothing"]
            msg = f"npm cannot fetch {PACKAGE}@{VERSION} ({lines[0]})"
            raise SiteError(msg)
        return _unpacked(archives[0])


def _unpacked(archive: Path) -> dict[str, bytes]:
    """Read the files out of what npm packs; nothing is extracted to disk."""
    found = {}
    try:
        with tarfile.open(archive) as tar:
            for name, source in FILES.items():
                file = tar.extractfile(f"package/dist/{source}")
                if file is None:
                    raise KeyError(source)
                found[name] = file.read(_MAX_BYTES)
    except (KeyError, OSError, tarfile.TarError) as error:
        msg = f"the package {PACKAGE} that npm fetched lacks a file ({error})"
        raise SiteError(msg) from error
    return found
