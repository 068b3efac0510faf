"""A sheet to look at: ``python tools/crop_sheet.py out.png [--zoom 2] [--models old,new] [--folder DIR]``.

Twelve crops, each as original, from our files at 0.02 and 0.04 bits a pixel, and from AVIF files of at most
as many bytes at the scale that is best by MS-SSIM (marked "over" where even the smallest is larger).  Whole
pictures are coded; bytes and bits a pixel are those of the whole.  Without --folder the crops are places of
public domain pictures of scikit-image.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlf.cli.eval import bits
from dlf.cli.options import listed
from dlf.errors import DlfError
from dlf.evaluation.codecs.protocols import ComparedCodec, RatePoint
from dlf.evaluation.codecs.specs import CodecSpec, open_codec, parse_codec
from dlf.evaluation.dataset import find_images
from dlf.evaluation.metrics.fidelity import MS_SSIM
from dlf.evaluation.report.sheet import CaptionedImage, stacked, strip
from dlf.imageio import load_rgb
from dlf.records import UInt8

T = TypeVar("T")

COUNT = 12
SIDE = 160  # pixels of a crop
COLUMNS = 2  # crops beside each other
FONT_SIZE = 12
RATES = (0.02, 0.04)
PLACES = {  # left, top
    "astronaut": [(130, 20), (300, 60), (180, 330)],
    "coffee": [(20, 20), (260, 100), (420, 220)],
    "chelsea": [(80, 20), (170, 120), (290, 60)],
    "rocket": [(60, 240), (250, 60), (400, 240)],
}


@dataclass(frozen=True)
class Work:
    """A picture, uint8 (H, W, 3), and the (left, top) of its crops."""

    name: str
    rgb: UInt8
    places: list[tuple[int, int]]


def main() -> int:
    """Write the sheet; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--folder", type=Path, help="crops of these photographs, where they have most detail")
    parser.add_argument("--bpp", type=argument(bits), default=RATES, help="bits a pixel, with commas between")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--model", help="folder or name of our model (default: the package's)")
    models.add_argument(
        "--models", type=argument(listed), help="several to compare; AVIF gets the bytes of the first"
    )
    parser.add_argument("--zoom", type=int, choices=(1, 2, 3, 4), default=1, help="2: at 200 %%")
    args = parser.parse_args()
    try:
        ours = [own(model) for model in args.models or (args.model,)]
        avif = open_codec(parse_codec("avif"))
        works = chosen(args.folder) if args.folder else fixed()
        crops = [each for work in works for each in strips(work, ours, avif, args.bpp, args.zoom)]
        columns = [stacked(crops[start::COLUMNS]) for start in range(min(COLUMNS, len(crops)))]
        beside(columns).save(args.output)
    except (DlfError, OSError, ValueError) as error:
        print(f"crop_sheet: {error}", file=sys.stderr)
        return 1
    return 0


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return an argument type of the command dlf as one of argparse."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except click.BadParameter as error:
            raise argparse.ArgumentTypeError(error.message) from error

    return parsed


def own(model: str | None) -> ComparedCodec:
    """Return our codec with a model, under the name that captions give it; raises DlfError."""
    return open_codec(CodecSpec(Path(model).name if model else "dlf", "dlf", model))


def fixed() -> list[Work]:
    """Return the pictures of scikit-image."""
    from skimage import data

    return [Work(name, np.asarray(getattr(data, name)()), places) for name, places in PLACES.items()]


def chosen(folder: Path, count: int = COUNT, side: int = SIDE) -> list[Work]:
    """Return up to `count` pictures of a folder, evenly spaced by name, with as many crops together.

    Raises ImageError.
    """
    pictures = find_images(folder)
    used = [pictures[place * len(pictures) // count] for place in range(count)]
    works = []
    for picture in dict.fromkeys(used):
        rgb = load_rgb(picture.path.read_bytes())[0]
        works.append(Work(picture.name, rgb, detailed(rgb, used.count(picture), side)))
    return works


def detailed(rgb: UInt8, count: int, side: int = SIDE) -> list[tuple[int, int]]:
    """Return (left, top) of up to `count` squares of the most detail, none over another.

    Detail: the sum of the differences of neighbours.
    """
    grey = rgb.mean(2)
    change = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    change += np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    sums = np.pad(change, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    tops, lefts = (steps(length, side) for length in grey.shape)
    squares: list[tuple[float, int, int]] = []
    for top in tops:
        for left in lefts:
            down, right = min(top + side, grey.shape[0]), min(left + side, grey.shape[1])
            total = sums[down, right] - sums[top, right] - sums[down, left] + sums[top, left]
            squares.append((-float(total), int(left), int(top)))
    kept: list[tuple[int, int]] = []
    for _, left, top in sorted(squares):
        if len(kept) < count and all(abs(left - x) >= side or abs(top - y) >= side for x, y in kept):
            kept.append((left, top))
    return kept


def steps(length: int, side: int) -> NDArray[np.int64]:
    """Return places along a side, a quarter of a crop apart."""
    spare = max(0, length - side)
    return np.unique(np.append(np.arange(0, spare + 1, side // 4), spare))


def strips(
    work: Work, ours: Sequence[ComparedCodec], avif: ComparedCodec, rates: Sequence[float], zoom: int
) -> list[Image.Image]:
    """Code one picture and return a strip for each of its crops."""
    height, width = work.rgb.shape[:2]
    score = MS_SSIM.against(work.rgb)
    captioned = [(f"{Path(work.name).stem}  {width}x{height}", work.rgb)]
    for bpp in rates:
        budget = int(bpp * width * height / 8)
        for place, codec in enumerate(ours):
            point = codec.start(work.name, work.rgb).fit(budget, MS_SSIM, score)
            captioned.append((caption(codec.name, point, work.rgb), point.rgb))
            if not place:
                equal = point.size
        point = avif.start(work.name, work.rgb).fit(equal, MS_SSIM, score)
        name = "AVIF" if point.scale == 1 else f"AVIF {point.scale}"
        name += " over" if point.size > equal else ""
        captioned.append((caption(name, point, work.rgb), point.rgb))
        print("  ".join(text for text, _ in (captioned[0], *captioned[-len(ours) - 1 :])))
    return [
        strip([CaptionedImage(text, crop(rgb, place, zoom)) for text, rgb in captioned], FONT_SIZE)
        for place in work.places
    ]


def caption(name: str, point: RatePoint, original: UInt8) -> str:
    """Return name, bytes and bits a pixel of a file."""
    return f"{name}  {point.size:,} B  {8 * point.size / (original.size / 3):.4f}"


def crop(rgb: UInt8, place: tuple[int, int], zoom: int) -> Image.Image:
    """Cut a square out and enlarge each pixel to a square."""
    left, top = place
    part = Image.fromarray(np.ascontiguousarray(rgb[top : top + SIDE, left : left + SIDE]))
    return part.resize((part.width * zoom, part.height * zoom), Image.Resampling.NEAREST)


def beside(columns: Sequence[Image.Image]) -> Image.Image:
    """Put columns beside each other, with a gap."""
    gap = 24
    size = sum(column.width + gap for column in columns) - gap, max(column.height for column in columns)
    sheet = Image.new("RGB", size, "white")
    left = 0
    for column in columns:
        sheet.paste(column, (left, 0))
        left += column.width + gap
    return sheet


if __name__ == "__main__":
    sys.exit(main())
