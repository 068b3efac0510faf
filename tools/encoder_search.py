"""What an encoder gains that searches: ``python tools/encoder_search.py FOLDER -o FILE --ways WAY ..``.

Decoders and format stay as they are; an encoder may only choose other symbols.  Ways to choose them, with
what stands after a colon:

- ``again:A:N``: N times the decoded image is analysed, and the latent moves by A of what is missing in it;
- ``turned:A:N``: as ``again``, without what would only make channels stronger or weaker;
- ``search:STEPS:WEIGHT:PATH``: steps down a gradient through the decoder, see `dlf.codec.effort`.

Every picture is encoded, decoded and judged at some qualities; the numbers go to FILE (JSON lines), and what
is there is not measured again.  Prints the change of bytes at equal score against plain rounding (BD-rate,
per cent; negative is better): mean over the pictures, its standard error, and on how many it is better; then
processor time as a multiple of a plain encode.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlf.bitstream import container
from dlf.bitstream.container import Stream
from dlf.codec import bundle
from dlf.codec.codec import StreamCodec
from dlf.codec.effort import Search
from dlf.codec.engine import EngineOptions, make_codec
from dlf.evaluation.bdrate import NoOverlap, bd_rate
from dlf.evaluation.dataset import find_images
from dlf.evaluation.metrics.catalogue import open_metric
from dlf.evaluation.metrics.metric import Metric
from dlf.imageio import load_rgb
from dlf.records import Latents, UInt8

PLAIN = "plain"


@dataclass(frozen=True)
class Case:
    """An image to encode: uint8 (height, width, 3), at a quality."""

    codec: StreamCodec
    rgb: UInt8
    quality: int

    def analyse(self, rgb: UInt8 | None = None) -> Latents:
        """Analyse the image, or another one."""
        return self.codec.analyse(self.rgb if rgb is None else rgb, self.quality)

    def write(self, latents: Latents) -> Stream:
        """Code latents by plain rounding."""
        return self.codec.write(latents, self.codec.header(self.rgb, self.quality))

    def decode(self, latents: Latents) -> UInt8:
        """Return what a decoder paints of latents."""
        return self.codec.decode_stream(self.write(latents))


Way = Callable[..., Latents]
"""Returns the latents to write, of a case and numbers."""


def plain(case: Case) -> Latents:
    """Take what the analysis says."""
    return case.analyse()


def again(case: Case, share: float, times: float = 1) -> Latents:
    """Move the latent by what the decoded image lacks of it."""
    wanted = case.analyse()
    y = wanted.y
    for _ in range(int(times)):
        y = y + share * (wanted.y - case.analyse(case.decode(Latents(wanted.tokens, y))).y)
    return Latents(wanted.tokens, y.astype(np.float32))


def turned(case: Case, share: float, times: float = 1) -> Latents:
    """Move the latent by what the decoded image lacks of it, but leave the strength of channels as it is."""
    wanted = case.analyse()
    y, own = wanted.y, wanted.y - wanted.y.mean((1, 2), keepdims=True)
    power = np.square(own).sum((1, 2), keepdims=True) + 1e-9
    for _ in range(int(times)):
        lack = wanted.y - case.analyse(case.decode(Latents(wanted.tokens, y))).y
        lack = lack - lack.mean((1, 2), keepdims=True)
        y = y + share * (lack - (lack * own).sum((1, 2), keepdims=True) / power * own)
    return Latents(wanted.tokens, y.astype(np.float32))


WAYS: dict[str, Way] = {PLAIN: plain, "again": again, "turned": turned}


def make_way(text: str, args: argparse.Namespace) -> Way:
    """Return the way of a text, its numbers filled in."""
    name, *numbers = text.split(":")
    values = [float(number) for number in numbers]
    if name == "search":
        from dlf.refine.judge import Judging

        judging = Judging(bundle.find(args.model), 1)
        return lambda case: searched(judging, Search(int(values[0]), *values[1:]), case)
    way = WAYS[name]
    return lambda case: way(case, *values)


def searched(judging: Any, search: Search, case: Case) -> Latents:
    """Go down the gradient."""
    codec, latents, header = case.codec, case.analyse(), case.codec.header(case.rgb, case.quality)
    sent = codec.sent_tokens(latents.tokens, header)
    judge = judging.of(codec.plan(header), case.rgb, sent, case.quality)
    return replace(latents, y=search(latents.y, codec.rounding(sent, header), judge))


def main() -> None:
    """Measure what is missing, and print a line for each way."""
    args = parse()
    torch.set_num_threads(1)  # the judging networks get one, as all else has
    model = bundle.find(args.model)
    codec = make_codec(model, model.tables(), EngineOptions(threads=1))
    metrics = [open_metric(name) for name in ("psnr", "ms-ssim", *args.metrics)]
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    if args.output.exists():
        rows = map(json.loads, args.output.read_text().splitlines())
        known = {key_of(row): row for row in rows}
    files = find_images(args.folder)[args.start :: args.every][: args.count]
    for text in (PLAIN, *args.ways):
        todo = [(file, missing(args, known, text, file.name)) for file in files]
        todo = [(file, qualities) for file, qualities in todo if qualities]
        if todo:
            way = make_way(text, args)

            def judge(each: Any, way: Way = way) -> Any:
                rgb = cut(load_rgb(each[0].path)[0], args.side)
                return each[0].name, judged(codec, way, metrics, rgb, each[1])

            with ThreadPoolExecutor(args.workers) as pool, args.output.open("a") as out:
                for name, rows in pool.map(judge, todo):
                    for row in rows:
                        row |= {"model": args.model, "side": args.side, "way": text, "picture": name}
                        known[key_of(row)] = row
                        print(json.dumps(row), file=out, flush=True)
        if text != PLAIN:
            print_way(text, [known[key_of(k)] for k in keys(args, files, PLAIN)],
                      [known[key_of(k)] for k in keys(args, files, text)], metrics)  # fmt: skip


def missing(args: argparse.Namespace, known: Any, text: str, picture: str) -> list[int]:
    """Return the qualities of a picture that are not measured yet."""
    label = {"model": args.model, "side": args.side, "way": text, "picture": picture}
    return [quality for quality in args.qualities if key_of(label | {"quality": quality}) not in known]


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--ways", nargs="+", default=[], metavar="WAY")
    parser.add_argument("--model", default="base")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="pictures at a time")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="NAME", help="besides PSNR and MS-SSIM")
    parser.add_argument("--every", type=int, default=6, help="take every Nth image")
    parser.add_argument("--start", type=int, default=3, help="the first that is taken, from 0")
    parser.add_argument("--count", type=int, metavar="N", help="take N images at most")
    parser.add_argument("--side", type=int, metavar="N", help="cut a square of N pixels from the middle")
    parser.add_argument("--qualities", type=int, nargs="+", default=[35, 45, 55, 65])
    return parser.parse_args()


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    """Return what tells a measurement from others."""
    return tuple(str(row[name]) for name in ("model", "side", "way", "picture", "quality"))


def keys(args: argparse.Namespace, files: Any, text: str) -> list[dict[str, Any]]:
    """Return the labels of all measurements of a way."""
    return [
        {"model": args.model, "side": args.side, "way": text, "picture": file.name, "quality": quality}
        for file in files
        for quality in args.qualities
    ]


def cut(rgb: UInt8, side: int | None) -> UInt8:
    """Return the middle of an image."""
    if side is None:
        return rgb
    top, left = ((size - side) // 2 for size in rgb.shape[:2])
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def judged(
    codec: StreamCodec, way: Way, metrics: list[Metric], rgb: UInt8, qualities: list[int]
) -> list[dict[str, Any]]:
    """Return bytes, scores and seconds of an image at qualities."""
    scores = {metric.name: metric.against(rgb) for metric in metrics}
    rows = []
    for quality in qualities:
        case = Case(codec, rgb, quality)
        start = time.thread_time()
        stream = case.write(way(case))
        row = {"quality": quality, "seconds": time.thread_time() - start}
        image = codec.decode_stream(stream)
        row |= {"bytes": len(container.dump(stream))}
        rows.append(row | {name: score(image) for name, score in scores.items()})
    return rows


def print_way(
    text: str, before: list[dict[str, Any]], after: list[dict[str, Any]], metrics: list[Metric]
) -> None:
    """Print what a way changes."""
    pictures = list(dict.fromkeys(row["picture"] for row in before))
    columns = []
    for metric in metrics:
        changes = []
        for picture in pictures:
            curves = [
                [(row["bytes"], row[metric.name]) for row in rows if row["picture"] == picture]
                for rows in (before, after)
            ]
            try:
                changes.append(bd_rate(*curves, lower_is_better=metric.lower_is_better).percent)
            except NoOverlap:
                changes.append(math.nan)
        good = np.array([change for change in changes if not math.isnan(change)])
        error = good.std(ddof=1) / math.sqrt(len(good))
        columns.append(f"{metric.name} {good.mean():+.1f} +- {error:.1f} ({(good < 0).sum()}/{len(good)})")
    share = np.mean([b["bytes"] / a["bytes"] for a, b in zip(before, after, strict=True)])
    times = sum(row["seconds"] for row in after) / sum(row["seconds"] for row in before)
    print(text, *columns, f"bytes {share:.3f}", f"time {times:.1f}", sep="  ", flush=True)


if __name__ == "__main__":
    main()
