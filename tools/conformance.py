"""Test a decoder of .dlf files, in whatever language, with the streams of the conformance folder.

    python tools/conformance.py --decoder 'dlf decode {in} -o {out}'
    python tools/conformance.py --decoder 'my-decoder {in} {out}' --symbols 'my-decoder --symbols {in}'

The decoder gets a file and writes a PNG or PPM.  It must exit with 0 for every stream, and with another code,
having written nothing, for every file that is to be refused.  `--symbols` names a command that prints a JSON
object with `token_sha256` and `detail_sha256`, as `dlf info --symbols --json {in}` does; without it sizes
and pictures are compared.  docs/exactness.md says what the sums are taken of.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "conformance"

Decode = Callable[[Path, Path], int]
"""Decodes a file into another and returns an exit code, below 0 for a crash."""

Symbols = Callable[[Path], dict[str, Any]]
"""Returns the sums of a file's symbols by their names in the index."""


@dataclass(frozen=True)
class Outcome:
    """One case: its file, and what is wrong with it; nothing where it passed."""

    name: str
    faults: tuple[str, ...]


def read_index(folder: Path = FOLDER) -> dict[str, Any]:
    """Return the index of a conformance folder."""
    index: dict[str, Any] = json.loads((folder / "index.json").read_text("utf-8"))
    return index


def run(
    decode: Decode, symbols: Symbols | None = None, folder: Path = FOLDER, only: Collection[str] = ()
) -> list[Outcome]:
    """Return the outcome of every case; only: stems of the files to take, all if there are none."""
    index = read_index(folder)
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "out.png"
        for entry in [*index["streams"], *index["refused"]]:
            path = folder / entry["file"]
            if only and path.stem not in only:
                continue
            target.unlink(missing_ok=True)
            if "reason" in entry:
                faults = _refused(path, entry, decode, target)
            else:
                faults = _decoded(path, entry, index, decode, target) + _read(path, entry, symbols)
            outcomes.append(Outcome(entry["file"], tuple(faults)))
    return outcomes


def _refused(path: Path, entry: dict[str, Any], decode: Decode, target: Path) -> list[str]:
    code = decode(path, target)
    faults = []
    if code == 0:
        faults.append(f"was decoded, but must be refused: {entry['reason']}")
    if code < 0:
        faults.append(f"crashed the decoder (signal {-code})")
    if target.exists():
        faults.append("left a picture behind")
    return faults


def _decoded(
    path: Path, entry: dict[str, Any], index: dict[str, Any], decode: Decode, target: Path
) -> list[str]:
    code = decode(path, target)
    if code != 0:
        return [f"was refused with code {code}"]
    if not target.exists():
        return ["gave no picture"]
    with Image.open(target) as image:
        found = np.asarray(image.convert("RGB"), np.int64)
    if found.shape[:2] != (entry["height"], entry["width"]):
        return [f"gave {found.shape[1]}x{found.shape[0]} pixels"]
    if "picture" not in entry:
        return []
    with Image.open(path.parents[1] / entry["picture"]) as image:
        difference = np.abs(found - np.asarray(image.convert("RGB"), np.int64))
    if difference.max() > index["largest_difference"] or difference.mean() > index["mean_difference"]:
        return [
            f"is painted otherwise: by {difference.max()} levels at most, {difference.mean():.3f} on average"
        ]
    return []


def _read(path: Path, entry: dict[str, Any], symbols: Symbols | None) -> list[str]:
    if symbols is None:
        return []
    found = symbols(path)
    names = ("token_sha256", "detail_sha256")
    return [f"has another {name}: {found.get(name)}" for name in names if found.get(name) != entry[name]]


def command(line: str, seconds: float) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs a command line whose {in} and {out} are replaced by paths."""
    words = shlex.split(line)

    def started(source: Path, target: Path | None = None) -> subprocess.CompletedProcess[str]:
        filled = [word.replace("{in}", str(source)).replace("{out}", str(target)) for word in words]
        return subprocess.run(filled, capture_output=True, text=True, timeout=seconds, check=False)

    return started


def main() -> int:
    """Run the commands that were given; 0 if all cases pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--decoder", required=True, help="command with {in} and {out}")
    parser.add_argument("--symbols", help="command with {in} that prints the sums as JSON")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only", nargs="+", default=(), help="names of files without their ending")
    parser.add_argument("--seconds", type=float, default=600, help="limit of one command")
    options = parser.parse_args()
    decoder = command(options.decoder, options.seconds)
    reader = command(options.symbols, options.seconds) if options.symbols else None

    def symbols(source: Path) -> dict[str, Any]:
        assert reader is not None
        found = json.loads(reader(source).stdout or "{}")
        return found if isinstance(found, dict) else {}

    outcomes = run(
        lambda source, target: decoder(source, target).returncode,
        symbols if reader else None,
        options.folder,
        options.only,
    )
    for outcome in outcomes:
        for fault in outcome.faults:
            print(f"{outcome.name} {fault}")
    failed = sum(bool(outcome.faults) for outcome in outcomes)
    print(f"{len(outcomes) - failed} of {len(outcomes)} cases passed")
    return int(failed > 0 or not outcomes)


if __name__ == "__main__":
    sys.exit(main())
