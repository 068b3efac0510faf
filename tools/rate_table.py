"""How near files come to a size: ``python tools/rate_table.py FOLDER --bytes 300 600 1200 2400 4800``.

One line for each picture: the bytes of its file for each target, marked where they are not from 97 to 100 per
cent of it.  Below, for each target: how many are, the least and the largest share, the quality, and the
processor time as a multiple of that of encoding at the quality that was found.  Where a target is out of an
image's range its nearest file is taken.  ``--grow`` prints the bytes at qualities 0, 10 .. 100 instead, and
where they do not grow; with ``--metrics`` also at which of them a smaller file is better by all of these.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dlf
from dlf.codec.rate_search import LEAST
from dlf.evaluation.dataset import find_images
from dlf.evaluation.metrics.catalogue import open_metric
from dlf.evaluation.metrics.metric import Metric
from dlf.imageio import load_rgb
from dlf.records import UInt8

QUALITIES = range(0, 101, 10)


@dataclass(frozen=True)
class Fitted:
    """A file for a target: bytes, quality, and processor time as a multiple of a plain encode's."""

    target: int
    size: int
    quality: int
    times: float

    @property
    def good(self) -> bool:
        """Tell whether the file is as large as it should be."""
        return LEAST * self.target <= self.size <= self.target


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bytes", type=int, nargs="+", default=[300, 600, 1200, 2400, 4800])
    parser.add_argument("--side", type=int, metavar="N", help="cut a square of N pixels from the middle")
    parser.add_argument("--model", metavar="MODEL", help="folder, name or role (default: the package's)")
    parser.add_argument("--grow", action="store_true", help="see above")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="NAME", help="as of dlf eval; see above")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each N-th picture only")
    args = parser.parse_args()
    codec = dlf.Codec(args.model, threads=1)
    codec.encode(np.zeros((256, 256, 3), np.uint8))  # the networks are loaded before anything is timed
    metrics = [open_metric(name) for name in args.metrics]
    fitted = []
    for file in find_images(args.folder)[:: args.every]:
        rgb = cut(load_rgb(file.path)[0], args.side)
        if args.grow:
            print_growth(file.name, *grown(codec, metrics, rgb))
            continue
        row = [fit(codec, rgb, target) for target in args.bytes]
        fitted += row
        print(file.name, *(f"{each.size}{'' if each.good else '*'}" for each in row), sep="\t", flush=True)
    if not args.grow:
        print_summary(args.bytes, fitted)


def cut(rgb: UInt8, side: int | None) -> UInt8:
    """Return the middle of an image."""
    if side is None:
        return rgb
    top, left = ((size - side) // 2 for size in rgb.shape[:2])
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def fit(codec: dlf.Codec, rgb: UInt8, target: int) -> Fitted:
    """Encode to a size, and plainly."""
    start = time.process_time()
    data = codec.encode(rgb, max_bytes=target, best=True)
    middle = time.process_time()
    quality = codec.info(data).quality
    before = time.process_time()
    codec.encode(rgb, quality)
    plain = time.process_time() - before
    return Fitted(target, len(data), quality, (middle - start) / plain)


def grown(codec: dlf.Codec, metrics: list[Metric], rgb: UInt8) -> tuple[list[int], list[int]]:
    """Return the bytes of a picture at QUALITIES, and those of them at which a smaller file is better."""
    scores = [metric.against(rgb) for metric in metrics]
    sizes, values = [], []
    for quality in QUALITIES:
        data = codec.encode(rgb, quality)
        sizes.append(len(data))
        values.append([score(np.asarray(codec.decode(data))) for score in scores] if scores else [])

    def beats(one: int, other: int) -> bool:
        pairs = zip(metrics, values[one], values[other], strict=True)
        return sizes[one] < sizes[other] and all(metric.better(a, b) for metric, a, b in pairs)

    places = range(len(sizes) if metrics else 0)
    return sizes, [QUALITIES[place] for place in places if any(beats(other, place) for other in places)]


def print_growth(name: str, sizes: list[int], dominated: list[int]) -> None:
    """Print the bytes of a picture at QUALITIES, and where more of them are of no use."""
    falls = [QUALITIES[place + 1] for place in np.flatnonzero(np.diff(sizes) <= 0)]
    remarks = (("does not grow at", falls), ("worse than a smaller file at", dominated))
    said = [f"{remark} {', '.join(map(str, found))}" for remark, found in remarks if found]
    print(name, *sizes, "; ".join(said), sep="\t", flush=True)


def print_summary(targets: list[int], fitted: list[Fitted]) -> None:
    """Print a line for each target."""
    for target in targets:
        here = [each for each in fitted if each.target == target]
        shares = [each.size / target for each in here]
        times = [each.times for each in here]
        print(
            f"{target} bytes: {sum(each.good for each in here)} of {len(here)} within, "
            f"{min(shares):.1%} to {max(shares):.1%}, "
            f"quality {min(each.quality for each in here)} to {max(each.quality for each in here)}, "
            f"time {np.mean(times):.2f} (at most {max(times):.2f})"
        )


if __name__ == "__main__":
    main()
