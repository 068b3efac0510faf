"""What a region of interest gains and the rest loses: ``python tools/region_table.py IMAGE... --roi faces``.

A line for each grey level of the rest in the mask, 255 being a file without a region: bytes, quality, and
PSNR and distances inside and outside, means over the images.  A distance of one part is that of the image
whose other part is the original's, divided by the part's share of the pixels.  ``--roi middle`` takes the
middle 4x4 cells, a ``MASK`` its own white; ``--crops FOLDER`` keeps the decoded images.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image

import dlf
from dlf.evaluation.metrics.feature_distance import hed_metric, stem_metric
from dlf.evaluation.metrics.metric import Metric
from dlf.geometry import CELL
from dlf.imageio import load_rgb
from dlf.records import UInt8
from dlf.roi.mask import importance


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--roi", default="faces", metavar="faces|text|middle|MASK")
    parser.add_argument("--bytes", type=int, default=900)
    parser.add_argument("--grey", type=int, nargs="+", default=[255, 192, 128, 64, 0])
    parser.add_argument("--model", metavar="MODEL", help="folder, name or role (default: the package's)")
    parser.add_argument("--stem", type=Path, metavar="FILE", help="weights of the stem distance")
    parser.add_argument("--hed", action="store_true", help="the hed distance as well")
    parser.add_argument("--crops", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    codec = dlf.Codec(args.model)
    metrics = [stem_metric(args.stem)] if args.stem else []
    metrics += [hed_metric()] if args.hed else []
    print(
        "grey\tbytes\tquality",
        *(f"{name} in\tout" for name in ["psnr", *(m.name for m in metrics)]),
        sep="\t",
    )
    for grey in args.grey:
        rows = []
        for path in args.images:
            rgb = load_rgb(path)[0]
            region = middle(rgb) if args.roi == "middle" else importance(args.roi, rgb)
            if region is None:
                continue
            data = codec.encode(rgb, max_bytes=args.bytes, roi=np.maximum(region, np.uint8(grey)))
            decoded = np.asarray(codec.decode(data))
            if args.crops:
                args.crops.mkdir(parents=True, exist_ok=True)
                Image.fromarray(decoded).save(args.crops / f"{path.stem}_{grey}.png")
            scores = both_parts(rgb, decoded, region > 0, metrics)
            rows.append([len(data), codec.info(data).quality, *scores])
        print(grey, *(f"{value:.4g}" for value in np.mean(rows, 0)), sep="\t", flush=True)


def middle(rgb: UInt8) -> UInt8:
    """Return a mask of the middle 4x4 cells."""
    mask = np.zeros(rgb.shape[:2], np.uint8)
    top, left = ((side // CELL // 2 - 2) * CELL for side in mask.shape)
    mask[top : top + 4 * CELL, left : left + 4 * CELL] = 255
    return mask


def both_parts(rgb: UInt8, decoded: UInt8, inside: np.ndarray, metrics: list[Metric]) -> list[float]:
    """Return PSNR inside and outside, then each metric inside and outside."""
    error = np.square(rgb.astype(float) - decoded).mean(2)
    scores = [10 * math.log10(255**2 / error[part].mean()) for part in (inside, ~inside)]
    for metric in metrics:
        score = metric.against(rgb)
        for part in (inside, ~inside):
            image = np.where(part[..., None], decoded, rgb)
            scores.append(score(image) / part.mean())
    return scores


if __name__ == "__main__":
    main()
