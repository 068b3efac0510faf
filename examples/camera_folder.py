"""Watch a folder that a camera writes into, and keep a small copy of each photo beside an upload queue.

    python examples/camera_folder.py /srv/camera /srv/queue --bytes 1500

A photo is taken once its size has stood still for a while, for cameras write slowly.  What cannot be read is
named and left where it is.  Ctrl-C ends.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import dlf

ENDINGS = (".jpg", ".jpeg", ".png", ".heic", ".avif", ".tif", ".tiff")


def finished(folder: Path, pause: float) -> Iterator[Path]:
    """Yield, for ever, photos of the folder whose size and time stood still for one pause, each once."""
    seen: dict[Path, tuple[int, int]] = {}
    done: set[tuple[Path, int, int]] = set()
    while True:
        there: dict[Path, tuple[int, int]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in ENDINGS:
                continue
            state = path.stat()
            there[path] = state.st_size, state.st_mtime_ns
            if there[path] == seen.get(path) and (path, *there[path]) not in done:
                done.add((path, *there[path]))
                yield path
        seen = there
        time.sleep(pause)


def keep(path: Path, queue: Path, size: int, codec: dlf.Codec) -> str:
    """Encode one photo into the queue; returns what to say about it."""
    target = queue / f"{path.stem}.dlf"
    try:
        data = codec.encode(path, max_bytes=size, best=True)
    except (dlf.DlfError, OSError) as error:
        return f"{path.name}: {error}"
    part = target.with_suffix(".part")  # whoever empties the queue must never see half a file
    part.write_bytes(data)
    part.replace(target)
    return f"{path.name}: {len(data)} bytes"


def main() -> None:
    """Watch until Ctrl-C, or until so many photos are done."""
    parser = argparse.ArgumentParser(description="Small copies of what a camera writes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("queue", type=Path)
    parser.add_argument("--bytes", type=int, default=1500)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument("--count", type=int, help="end after so many photos")
    options = parser.parse_args()
    options.queue.mkdir(parents=True, exist_ok=True)
    codec = dlf.Codec()
    try:
        for number, path in enumerate(finished(options.folder, options.pause), 1):
            print(keep(path, options.queue, options.bytes, codec), flush=True)
            if number == options.count:
                break
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
