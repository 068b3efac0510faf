"""How to share bytes among pictures: ``python tools/set_budget.py FOLDER -o FILE --metrics stem:W hed``.

Every picture is encoded, decoded and judged at some qualities; the numbers go to FILE (JSON lines), and what
is there is not measured again.  From them come, for each total, the mean distances if every picture gets the
same bytes, the same quality, or bytes at an equal slope of some distance; between two qualities the logarithm
of a distance is taken as straight over the logarithm of the bytes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import dlf
from dlf.evaluation.dataset import find_images
from dlf.evaluation.metrics.catalogue import open_metric
from dlf.evaluation.metrics.metric import Metric
from dlf.imageio import load_rgb

QUALITIES = (5, 10, 20, 30, 40, 50, 60, 70, 80)
FINE = 400  # bytes between the least and the most of a picture at which a share may end
BASIC = ("psnr", "ms_ssim")

Curves = dict[str, NDArray[np.float64]]
"""Of one picture: "bytes" and the distances, each at all QUALITIES."""


@dataclass(frozen=True)
class Way:
    """A way to share bytes.

    name: what to call it.  bytes: of each picture.
    """

    name: str
    bytes: NDArray[np.float64]


def main() -> None:
    """Measure what is missing, and print a table for each total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", metavar="MODEL", help="folder, name or role (default: the package's)")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="NAME", help="besides PSNR and MS-SSIM")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take each N-th picture only")
    parser.add_argument("--mean-bytes", type=int, nargs="+", default=[600, 1200, 2400], metavar="N")
    args = parser.parse_args()
    curves = measured(args)
    for mean in args.mean_bytes:
        print_total(curves, mean)


def measured(args: argparse.Namespace) -> list[Curves]:
    """Return the curves of the pictures, from the file as far as they are there."""
    known = {}
    if args.output.exists():
        known = {row["picture"]: row for row in map(json.loads, args.output.read_text().splitlines())}
    files = list(find_images(args.folder))[:: args.every]
    if any(file.name not in known for file in files):
        codec = dlf.Codec(args.model, threads=1)
        metrics = list(map(open_metric, ("psnr", "ms-ssim", *args.metrics)))
        for file in files:
            if file.name not in known:
                known[file.name] = {"picture": file.name} | judged(codec, metrics, file.path)
                with args.output.open("a") as out:
                    print(json.dumps(known[file.name]), file=out, flush=True)
    rows = [known[file.name] for file in files]
    return [{name: np.array(row[name]) for name in row if name != "picture"} for row in rows]


def judged(codec: dlf.Codec, metrics: list[Metric], path: Path) -> dict[str, list[float]]:
    """Return bytes and distances of a picture at all QUALITIES."""
    rgb, _ = load_rgb(path)
    scores = {metric.name: metric.against(rgb) for metric in metrics}
    row: dict[str, list[float]] = {"bytes": []} | {metric.name: [] for metric in metrics}
    for quality in QUALITIES:
        data = codec.encode(rgb, quality)
        decoded = np.asarray(codec.decode(data))
        row["bytes"].append(len(data))
        for name, score in scores.items():
            row[name].append(score(decoded))
    return row


def distances(curves: Curves) -> Curves:
    """Return what is measured as distances that are least at best: PSNR and MS-SSIM turned round."""
    turned = {"psnr": lambda x: 255**2 * 10 ** (-x / 10), "ms_ssim": lambda x: 1 - x}
    return {name: turned.get(name, lambda x: x)(values) for name, values in curves.items()}


def at(curve: Curves, name: str, size: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return a distance of a picture at some bytes."""
    logs = np.interp(np.log(size), np.log(curve["bytes"]), np.log(curve[name]))
    return np.exp(logs)


def equal_quality(curves: list[Curves], total: float) -> NDArray[np.float64]:
    """Return bytes at one quality, which may lie between whole ones."""
    fine = np.linspace(QUALITIES[0], QUALITIES[-1], 2000)
    sizes = np.array([np.exp(np.interp(fine, QUALITIES, np.log(curve["bytes"]))) for curve in curves])
    return sizes[:, np.argmin(np.abs(sizes.sum(0) - total))]


def between(curves: list[Curves], total: float, power: float) -> NDArray[np.float64]:
    """Return bytes in proportion to a power of those at one quality; 0 is equal bytes."""
    shares = equal_quality(curves, total) ** power
    low = np.array([curve["bytes"][0] for curve in curves])
    high = np.array([curve["bytes"][-1] for curve in curves])
    scales = np.geomspace(1e-3, 1e3, 4000)[:, None] * total / shares.sum()
    sizes = np.clip(scales * shares, low, high)
    return sizes[np.argmin(np.abs(sizes.sum(1) - total))]


def equal_slope(curves: list[Curves], total: float, name: str) -> NDArray[np.float64]:
    """Return bytes at which one more would save as much of a distance in every picture."""
    grids = [np.geomspace(curve["bytes"][0], curve["bytes"][-1], FINE) for curve in curves]
    costs = [at(curve, name, grid) for curve, grid in zip(curves, grids, strict=True)]
    low, high = 1e-12, 1e6
    for _ in range(120):
        weight = np.sqrt(low * high)
        sizes = np.array(
            [grid[np.argmin(cost + weight * grid)] for grid, cost in zip(grids, costs, strict=True)]
        )
        low, high = (weight, high) if sizes.sum() > total else (low, weight)
    return sizes * total / sizes.sum()  # the last thousandth


def print_total(measured_curves: list[Curves], mean: int) -> None:
    """Print the mean distances of all ways at one total."""
    curves = [distances(curve) for curve in measured_curves]
    total = float(mean * len(curves))
    names = [name for name in curves[0] if name != "bytes"]
    ways = [
        Way("equal bytes", between(curves, total, 0)),
        *(Way(f"quality's bytes ^ {power}", between(curves, total, power)) for power in (0.5, 0.75, 1.25)),
        Way("equal quality", equal_quality(curves, total)),
        *(Way(f"equal slope of {name}", equal_slope(curves, total, name)) for name in names),
    ]
    print(f"\n{len(curves)} pictures, {total:.0f} bytes: means, and the worst tenth")
    print("way", "bytes", *(f"{name}\t{name} worst" for name in names), "least", "most", sep="\t")
    for way in ways:
        scores = {
            name: np.array([at(curve, name, size) for curve, size in zip(curves, way.bytes, strict=True)])
            for name in names
        }
        worst = max(1, len(curves) // 10)
        columns = [
            f"{values.mean():.5g}\t{np.sort(values)[-worst:].mean():.5g}" for values in scores.values()
        ]
        print(
            way.name,
            f"{way.bytes.sum():.0f}",
            *columns,
            f"{way.bytes.min():.0f}",
            f"{way.bytes.max():.0f}",
            sep="\t",
        )


if __name__ == "__main__":
    main()
