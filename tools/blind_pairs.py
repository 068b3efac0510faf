"""Which of two models looks better, without knowing which is which: ``python tools/blind_pairs.py make DIR``.

``make`` writes a sheet for each picture and rate: the original, and the files of both models, of equal bytes,
as A and B in an order drawn by lot; which is which goes to ``key.json``.  Whoever looks writes ``A``, ``B``
or ``=`` for each sheet into a JSON object such as ``{"00": "A"}``, and ``score`` counts:
``python tools/blind_pairs.py score DIR/key.json ANSWERS.json...``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import dlf
from dlf.errors import DlfError
from dlf.evaluation.dataset import find_images
from dlf.evaluation.report.sheet import CaptionedImage, strip
from dlf.imageio import load_rgb

RATES = (0.012, 0.025, 0.05)
FONT_SIZE = 14
TIE = "="


def main() -> int:
    """Make the sheets, or count; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    actions = parser.add_subparsers(required=True)
    make = actions.add_parser("make")
    make.add_argument("output", type=Path)
    make.add_argument("--folder", type=Path, required=True, help="of photographs")
    make.add_argument("--every", type=int, default=2, help="take each so many")
    make.add_argument("--models", nargs=2, default=("fast", "base"))
    make.add_argument(
        "--bpp", type=float, nargs="+", default=RATES, help="each picture gets the next of these"
    )
    make.add_argument("--seed", type=int, default=1, help="of the lot")
    make.set_defaults(
        act=lambda args: make_sheets(
            args.output, args.folder, args.every, args.models, args.bpp, random.Random(args.seed)
        )
    )
    score = actions.add_parser("score")
    score.add_argument("key", type=Path)
    score.add_argument("answers", type=Path, nargs="+")
    score.set_defaults(act=lambda args: print_score(args.key, args.answers))
    args = parser.parse_args()
    try:
        args.act(args)
    except (DlfError, OSError, ValueError) as error:
        print(f"blind_pairs: {error}", file=sys.stderr)
        return 1
    return 0


def make_sheets(
    output: Path,
    folder: Path,
    every: int,
    models: Sequence[str],
    rates: Sequence[float],
    lot: random.Random,
) -> None:
    """Write a sheet for every so many pictures, at the rates in turn, and the key."""
    output.mkdir(parents=True, exist_ok=True)
    codecs = {model: dlf.Codec(model) for model in models}
    key = {}
    for number, image in enumerate(find_images(folder)[::every]):
        rgb, _ = load_rgb(image.path.read_bytes())
        bpp = rates[number % len(rates)]
        order = lot.sample(list(models), len(models))
        files = [codecs[model].encode(rgb, bpp=bpp, best=True) for model in order]
        shown = [CaptionedImage("original", Image.fromarray(rgb))]
        for letter, model, data in zip("AB", order, files, strict=True):
            shown.append(CaptionedImage(letter, codecs[model].decode(data)))
        name = f"{number:02}"
        strip(shown, FONT_SIZE).save(output / f"{name}.png")
        key[name] = {
            "image": image.name,
            "bpp": bpp,
            "A": order[0],
            "B": order[1],
            "bytes": [len(data) for data in files],
        }
        print(name, image.name, bpp, *(len(data) for data in files))
    (output / "key.json").write_text(json.dumps(key, indent=1) + "\n")


def print_score(key_file: Path, answers: Sequence[Path]) -> None:
    """Print how often each model was taken, by rate and in all, and how likely that is by chance."""
    key = json.loads(key_file.read_text())
    votes: dict[float | str, Counter[str]] = {}
    for file in answers:
        for name, letter in json.loads(file.read_text()).items():
            sheet = key[name]
            taken = TIE if letter == TIE else sheet[letter]
            for group in (sheet["bpp"], "all"):
                votes.setdefault(group, Counter())[taken] += 1
    for group, counts in sorted(votes.items(), key=lambda item: str(item[0])):
        print(group, dict(counts))
    decided = [count for model, count in votes["all"].items() if model != TIE]
    print(f"as unequal by chance: {by_chance(max(decided), sum(decided)):.2g}")


def by_chance(most: int, total: int) -> float:
    """Return how likely one of two sides gets at least `most` of `total` votes by tosses of a coin."""
    tail = sum(math.comb(total, count) for count in range(most, total + 1)) / 2**total
    return min(1.0, 2 * tail)


if __name__ == "__main__":
    sys.exit(main())
