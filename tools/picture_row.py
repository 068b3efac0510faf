"""The picture of the README: ``python tools/picture_row.py docs/images/row.jpg [--quality 50]``.

Originals above, what comes back from the file below, with its size.  The pictures are public domain ones
of scikit-image: astronaut, coffee, chelsea (a cat), rocket.
"""

from __future__ import annotations

import argparse

from PIL import Image, ImageDraw
from skimage import data

import dlf

NAMES = ("astronaut", "coffee", "chelsea", "rocket")
HEIGHT = 300
CAPTION = 26  # pixels; the page shows the sheet at half its size


def main() -> None:
    """Write one sheet and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output")
    parser.add_argument("--quality", type=int, default=50)
    parser.add_argument("--model")
    args = parser.parse_args()
    codec = dlf.Codec(args.model)
    columns = []
    for name in NAMES:
        picture = Image.fromarray(getattr(data, name)())
        coded = codec.encode(picture, quality=args.quality)
        bpp = 8 * len(coded) / (picture.width * picture.height)
        print(f"{name}: {picture.width}x{picture.height}, {len(coded)} bytes, {bpp:.4f} bpp")
        columns.append((picture, codec.decode(coded), f"{len(coded)} bytes, {bpp:.3f} bpp"))
    sheet(columns).save(args.output, quality=88)


def sheet(columns: list[tuple[Image.Image, Image.Image, str]]) -> Image.Image:
    """One column a picture: original, decoded, caption."""
    widths = [round(before.width * HEIGHT / before.height) for before, _, _ in columns]
    result = Image.new("RGB", (sum(widths), 2 * HEIGHT + CAPTION + 8), "white")
    draw = ImageDraw.Draw(result)
    left = 0
    for width, (before, after, caption) in zip(widths, columns, strict=True):
        for row, picture in enumerate((before, after)):
            result.paste(picture.resize((width, HEIGHT), Image.Resampling.LANCZOS), (left, row * HEIGHT))
        draw.text((left + 4, 2 * HEIGHT + 2), caption, fill="black", font_size=CAPTION)
        left += width
    return result


if __name__ == "__main__":
    main()
