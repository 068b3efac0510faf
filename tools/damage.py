"""What cut files still show, and what packets cost: the tables of docs/damage.md.

    python tools/damage.py PICTURE_OR_FOLDER... [--every N] [--bytes 900] [--sheet OUT.jpg]

Prints the PSNR of the picture by the share of its file that is there, and the bytes of a file of packets
against those of a plain one.  Each row is a mean over the pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import dlf
from dlf.bitstream import packets

SHARES = (10, 30, 50, 70, 90, 100)  # per cent of a file
QUALITIES = (15, 45, 75)
PACKET_BYTES = (128, 256, 512)
SHEET_HEIGHT = 240  # pixels of each picture


def psnr(before: Image.Image, after: Image.Image) -> float:
    """In dB, over all samples."""
    error = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def cut(codec: dlf.Codec, picture: Image.Image, size: int) -> list[Image.Image]:
    """The picture of a file of at most so many bytes, from each share of it."""
    data = codec.encode(picture, max_bytes=size, best=True)
    return [codec.salvage(data[: len(data) * share // 100]).image for share in SHARES]


def lost(codec: dlf.Codec, picture: Image.Image, quality: int) -> list[Image.Image]:
    """The picture of a file of packets: whole, then without each of them in turn."""
    data = codec.encode(picture, quality, packet_bytes=PACKET_BYTES[1])
    found = packets.load(data)
    shorter = [data[: each.end - len(each.data)] + data[each.end :] for each in found]
    return [codec.decode(data), *(codec.salvage(each).image for each in shorter if each)]


def sheet(rows: list[list[Image.Image]], height: int) -> Image.Image:
    """Pictures in rows, all of one height."""
    width = round(rows[0][0].width * height / rows[0][0].height)
    result = Image.new("RGB", (width * max(map(len, rows)), height * len(rows)), "white")
    for down, row in enumerate(rows):
        for across, each in enumerate(row):
            small = each.resize((width, height), Image.Resampling.LANCZOS)
            result.paste(small, (across * width, down * height))
    return result


def packet_rows(codec: dlf.Codec, pictures: list[Image.Image]) -> None:
    """Print bytes of plain files and of files of packets."""
    print("\nquality  plain  packet  bytes   more  packets  windows a packet")
    for quality in QUALITIES:
        plain = np.mean([len(codec.encode(picture, quality)) for picture in pictures])
        for most in PACKET_BYTES:
            files = [codec.encode(picture, quality, packet_bytes=most) for picture in pictures]
            size = np.mean([len(file) for file in files])
            count = np.mean([dlf.info(file).packets for file in files])
            windows = np.mean([-(-p.width // 256) * -(-p.height // 256) for p in pictures])
            print(
                f"{quality:7}  {plain:5.0f}  {most:6}  {size:5.0f}  {size / plain - 1:+5.1%}  {count:7.1f}"
                f"  {windows / count:.1f}"
            )


def main() -> None:
    """Measure the pictures of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each Nth picture of a folder only")
    parser.add_argument("--model", metavar="MODEL", help="folder, name or role (default: the package's)")
    parser.add_argument("--bytes", type=int, default=900, help="of a file that is cut")
    parser.add_argument("--sheet", type=Path, help="to write, of the first picture: shares, and lost packets")
    options = parser.parse_args()
    paths = [
        path
        for each in options.inputs
        for path in (sorted(each.glob("*.[jp][pn]g"))[:: options.every] if each.is_dir() else [each])
    ]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    codec = dlf.Codec(options.model)
    rows = []
    for index, picture in enumerate(pictures):
        shown = cut(codec, picture, options.bytes)
        rows.append([psnr(picture, each) for each in shown])
        if index == 0 and options.sheet is not None:
            below = lost(codec, picture, QUALITIES[1])[: len(shown) + 1]
            sheet([[picture, *shown], below], SHEET_HEIGHT).save(options.sheet, quality=88)
    print(f"{len(pictures)} pictures, files of {options.bytes} bytes")
    print("share  " + "  ".join(f"{share:4} %" for share in SHARES))
    print("PSNR   " + "  ".join(f"{value:6.2f}" for value in np.mean(rows, axis=0)))
    packet_rows(codec, pictures)


if __name__ == "__main__":
    main()
