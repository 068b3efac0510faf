#!/usr/bin/env bash
# An archive of thumbnails: every photo of a folder tree in a few hundred bytes, all of them in one tar file.
#
#   examples/thumbnails.sh PHOTOS ARCHIVE.tar [BYTES]
#
# A photo is shrunk to 512 pixels first: of a large one, so few bytes would hold little more than colours.
set -euo pipefail
photos=$1 archive=$2 bytes=${3:-600}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 - "$photos" "$work/small" <<'PY'
import sys
from pathlib import Path
from PIL import Image, ImageOps

source, target = map(Path, sys.argv[1:])
for path in sorted(source.rglob("*")):
    if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
        small = target / path.relative_to(source).with_suffix(".png")
        small.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image).convert("RGB")
            image.thumbnail((512, 512))
            image.save(small)
PY
dlf encode -r "$work/small" -o "$work/coded" --bytes "$bytes" --best --quiet
tar -C "$work/coded" -cf "$archive" .

count=$(find "$work/coded" -name '*.dlf' | wc -l)
size=$(find "$work/coded" -name '*.dlf' -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
echo "$count thumbnails, $size bytes of pictures, in $archive"
echo "one of them back: tar -xOf $archive ./NAME.dlf | dlf decode - thumbnail.png"
