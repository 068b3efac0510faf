"""Write the conformance folder: streams with the sums of their symbols, pictures, and files to be refused.

    python tools/make_conformance.py tests/conformance

Streams that are there stay as they are, for their bytes are the promise; symbols and pictures are made anew
from them.  A stream is made only where there is none: for a new model, or a new case below.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import dlf
from dlf.bitstream import container, varint
from dlf.bitstream.container import Stream
from dlf.bitstream.header import Header
from dlf.bitstream.spec import MAX_METADATA_BYTES
from dlf.codec.bundle import ModelBundle, find, shipped_roles
from dlf.codec.detail import walk
from dlf.codec.onnx_backend import OnnxBackend
from dlf.codec.semantic import exchange_tokens
from dlf.entropy import gaussian
from dlf.entropy.coder import Exchanged, SymbolWriter
from dlf.entropy.tables import Tables
from dlf.geometry import Plan
from dlf.records import Int32
from dlf.reference.decoder import decode_symbols, sha256_of
from dlf.reference.model import ReferenceModel

ROOT = Path(__file__).resolve().parents[1]
ASTRONAUT = ROOT / "tests" / "data" / "astronaut.jpg"

LARGEST, MEAN = 4, 0.1
"""How far a decoder's pixels may be from the pictures of the folder, in levels of 255."""

Pixels = NDArray[np.uint8]


def sources() -> dict[str, tuple[str, Callable[[], Image.Image]]]:
    """Name -> where it comes from, and the picture."""
    nasa = "astronaut (NASA, public domain)"
    return {
        "cat": (
            "chelsea (Stéfan van der Walt, CC0)",
            lambda: _skimage("chelsea").resize((301, 201), _LANCZOS),
        ),
        "face": (nasa, lambda: _astronaut().crop((96, 0, 352, 256))),
        "cup": ("coffee (Rachel Michetti, CC0)", lambda: _skimage("coffee").resize((40, 33), _LANCZOS)),
        "strip": (nasa, lambda: _astronaut().resize((530, 512)).crop((0, 60, 530, 76))),
        "tower": (nasa, lambda: _astronaut().crop((200, 0, 211, 512))),
        "pixel": ("one red pixel", lambda: Image.new("RGB", (1, 1), (200, 40, 30))),
        "noise": ("noise of a seeded generator", _noise),
    }


_LANCZOS = Image.Resampling.LANCZOS
_QUALITIES = {"cat": (0, 25, 50, 75, 100), "noise": (100,)}
_WITH_PICTURE = {("cat", 50), ("face", 50), ("cup", 50), ("strip", 50), ("pixel", 50)}


def _astronaut() -> Image.Image:
    with Image.open(ASTRONAUT) as image:
        return image.convert("RGB")


def _skimage(name: str) -> Image.Image:
    from skimage import data

    return Image.fromarray(getattr(data, name)())


def _noise() -> Image.Image:
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 2, (70, 64, 3), np.uint8) * 255)


def models() -> list[ModelBundle]:
    """The shipped models by their number; of several for the same streams the one that decodes by default."""
    return [find(number) for number in sorted({find(role).manifest.id for role in shipped_roles()})]


def make_streams(folder: Path) -> None:
    """Write the streams that are not there yet."""
    for model in models():
        codec = dlf.Codec(model.folder, threads=1)
        for name, (_, make) in sources().items():
            for quality in _QUALITIES.get(name, (50,)):
                path = folder / f"{name}-m{model.manifest.id}-q{quality}.dlf"
                if not path.exists():
                    path.write_bytes(codec.encode(make(), quality))
        path = folder / f"metadata-m{model.manifest.id}-q50.dlf"
        if not path.exists():
            image = _astronaut().crop((200, 60, 248, 108))
            image.info |= {"xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", "dpi": (300, 300)}
            path.write_bytes(codec.encode(image, 50, metadata=True))
        path = folder / f"escapes-m{model.manifest.id}-q50.dlf"
        if not path.exists():
            good = container.load((folder / f"cup-m{model.manifest.id}-q50.dlf").read_bytes())
            payload = chosen_symbols(good, model, (24, -24, 25, -25, 26, -300, 7000, 2**15, -(2**15)))
            path.write_bytes(container.dump(container.seal(good.header, payload, model.manifest.numerics)))
        path = folder / f"empty-m{model.manifest.id}-q50.dlf"
        if not path.exists():
            header = Header(model.manifest.id, 50, 96, 64)
            path.write_bytes(container.dump(container.seal(header, b"", model.manifest.numerics)))


def describe(path: Path, folder: Path) -> dict[str, Any]:
    """What the index says of a stream; writes its picture where it has one."""
    name = path.stem.partition("-")[0]
    data = path.read_bytes()
    stream = container.load(data)
    header = stream.header
    bundle = find(header.model)
    found = decode_symbols(stream, ReferenceModel.open(bundle.folder))
    first = dlf.info(data, symbols=True)
    assert (first.token_sha256, first.detail_sha256) == (sha256_of(found.tokens), sha256_of(found.details))
    entry: dict[str, Any] = {
        "file": f"streams/{path.name}",
        "model": header.model,
        "quality": header.quality,
        "width": header.width,
        "height": header.height,
        "tokens": list(found.tokens.shape),
        "details": list(found.details.shape),
        "token_sha256": first.token_sha256,
        "detail_sha256": first.detail_sha256,
    }
    if (name, header.quality) in _WITH_PICTURE:
        entry["picture"] = f"pictures/{path.stem}.png"
        image = dlf.Codec(threads=1, engine=dlf.EngineOptions(engine="onnxruntime")).decode(data)
        image.save(folder / entry["picture"], optimize=True)
    return entry


def sealed(body: bytes, numerics: str) -> bytes:
    """A file of any bytes with the checksum that a model of these numerics would give it."""
    return body + zlib.crc32(body, zlib.crc32(bytes.fromhex(numerics))).to_bytes(4, "little")


def refused(good: Stream, model: ModelBundle) -> Iterator[tuple[str, str, bytes]]:
    """Name, reason and bytes of files that every decoder must refuse."""
    numerics, number = model.manifest.numerics, bytes([model.manifest.id])
    whole = container.dump(good)
    for name, reason, body in _headers(number):
        yield name, reason, sealed(body, numerics)
    yield "no-bytes", "no bytes at all", b""
    yield "cut-in-header", "ends within the header", whole[:7]
    yield "cut-in-checksum", "ends within the checksum", whole[:12]
    yield "cut-in-payload", "the last bytes are missing", whole[:-9]
    yield "trailing", "a byte behind the checksum", whole + b"\0"
    yield "flipped-bit", "a bit of the payload is wrong", whole[:20] + bytes([whole[20] ^ 4]) + whole[21:]
    yield "flipped-checksum", "a bit of the checksum is wrong", whole[:-1] + bytes([whole[-1] ^ 128])
    yield "other-numerics", "the checksum is that of another model", sealed(whole[:-4], "5a" * 32)
    yield "not-a-dlf", "a PNG file", b"\x89PNG\r\n\x1a\n" + bytes(60)
    unknown = Header(120, 50, 64, 64)
    yield "unknown-model", "no model has this number", container.dump(container.seal(unknown, b"", numerics))
    for name, reason, blob in _metadata():
        head = b"DLF\x11" + number + b"\x32\x40\x40" + varint.pack(len(blob)) + blob
        yield name, reason, sealed(head, numerics)
    beyond = b"DLF\x11" + number + b"\x32\x40\x40" + varint.pack(900) + b"\1\2\3"
    yield "metadata-beyond-the-end", "the metadata is longer than the file", sealed(beyond, numerics)
    for name, reason, payload in _payloads(good, model):
        yield name, reason, container.dump(container.seal(good.header, payload, numerics))


def _headers(number: bytes) -> Iterator[tuple[str, str, bytes]]:
    size = b"\x40\x40"
    yield "version-15", "format version 15", b"DLF\xf0" + number + b"\x32" + size
    yield "version-0", "format version 0", b"DLF\x00" + number + b"\x32" + size
    yield "flag-3", "flag bit 3, which version 1 does not have", b"DLF\x18" + number + b"\x32" + size
    yield "magic", "another magic", b"DLG\x10" + number + b"\x32" + size
    yield "quality-101", "quality 101", b"DLF\x10" + number + b"\x65" + size
    yield "width-0", "no columns", b"DLF\x10" + number + b"\x32\x00\x40"
    yield "height-0", "no rows", b"DLF\x10" + number + b"\x32\x40\x00"
    yield "varint-long", "a number in more bytes than it needs", b"DLF\x10" + number + b"\x32\xc0\x00\x40"
    six = b"\x80\x80\x80\x80\x80\x01"
    yield "varint-6-bytes", "a number of six bytes", b"DLF\x10" + number + b"\x32" + six + b"\x40"
    side = varint.pack(65_537)
    yield "side-65537", "a side of 65,537 pixels", b"DLF\x10" + number + b"\x32" + side + b"\x01"
    many = varint.pack(8193)
    yield "pixels", "67,125,249 pixels, above the limit", b"DLF\x10" + number + b"\x32" + many + many


def _metadata() -> Iterator[tuple[str, str, bytes]]:
    yield "metadata-empty", "a metadata flag but no metadata", b""
    yield "metadata-no-zlib", "metadata that are not zlib", b"no zlib at all"
    yield "metadata-no-parts", "metadata without parts", zlib.compress(b"")
    yield "metadata-cut", "a zlib stream that is cut off", zlib.compress(b"\x03\x04abcd")[:-2]
    yield "metadata-trailing", "bytes behind the zlib stream", zlib.compress(b"\x03\x01a") + b"\0"
    yield "metadata-order", "parts out of order", zlib.compress(b"\x03\x01a\x01\x01a")
    yield "metadata-twice", "a part twice", zlib.compress(b"\x01\x01a\x01\x01a")
    yield "metadata-unknown", "an unknown part", zlib.compress(b"\x09\x01a")
    yield "metadata-part-cut", "a part longer than the metadata", zlib.compress(b"\x03\x09a")
    yield "metadata-part-empty", "an empty part", zlib.compress(b"\x03\x00")
    yield "metadata-dpi-0", "a resolution of 0", zlib.compress(b"\x04\x08" + bytes(8))
    yield "metadata-bomb", "metadata of more than 16 MiB", zlib.compress(bytes(MAX_METADATA_BYTES + 1), 9)


def _payloads(good: Stream, model: ModelBundle) -> Iterator[tuple[str, str, bytes]]:
    yield "payload-zero", "the payload ends in a zero byte", good.payload + b"\0"
    yield "payload-two-more", "bytes behind the shortest payload", good.payload + b"\5\0"
    yield "payload-low", "a payload of ff, which no encoder writes", b"\xff" * 40
    yield "payload-long", "more bytes than the symbols of this size can have", bytes(range(1, 251)) * 40
    yield "payload-escape", "a detail symbol above 32,768", chosen_symbols(good, model, (40_000,))


class _Chosen:
    """A side of the walk that sends what it is told: values in the first places that send at all."""

    def __init__(self, writer: SymbolWriter, tables: Tables, values: tuple[int, ...]) -> None:
        self._writer, self._tables, self._values = writer, tables, values

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        symbols = np.zeros(len(index), np.int32)
        places = np.flatnonzero(index)[: len(self._values)]
        symbols[places] = self._values[: len(places)]
        return gaussian.exchange_symbols(self._writer, symbols, index, self._tables)


def chosen_symbols(good: Stream, model: ModelBundle, values: tuple[int, ...]) -> bytes:
    """The payload of a stream's tokens and of some detail symbols in each step, which may be too large."""
    tables, header = model.tables(), good.header
    received = decode_symbols(good, ReferenceModel.open(model.folder))
    writer, plan = SymbolWriter(), Plan(header.height, header.width)
    counts = plan.token_counts(int(tables.token_count[header.quality]))
    exchange_tokens(writer, received.tokens, counts, tables)
    backend = OnnxBackend(model, tables, 1)
    highest, gaussian.MAX_SYMBOL = gaussian.MAX_SYMBOL, 2**17
    told = backend.prior(*plan.cells, header.quality, received.tokens)
    walk(backend, tables, told, _Chosen(writer, tables, values))
    gaussian.MAX_SYMBOL = highest
    return writer.finish()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for part in ("streams", "pictures", "refused"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    make_streams(folder / "streams")
    streams = [describe(path, folder) for path in sorted((folder / "streams").glob("*.dlf"))]
    model = models()[0]
    good = container.load((folder / "streams" / f"cup-m{model.manifest.id}-q50.dlf").read_bytes())
    cases = []
    for name, reason, data in refused(good, model):
        (folder / "refused" / f"{name}.dlf").write_bytes(data)
        cases.append({"file": f"refused/{name}.dlf", "reason": reason})
    index = {
        "format_version": 1,
        "models": {
            str(each.manifest.id): {
                "numerics": each.manifest.numerics,
                "synthesis_sha256": each.manifest.files["synthesis.onnx"],
            }
            for each in models()
        },
        "largest_difference": LARGEST,
        "mean_difference": MEAN,
        "sources": {name: text for name, (text, _) in sources().items()},
        "streams": streams,
        "refused": cases,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", "utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{len(streams)} streams, {len(cases)} files to refuse, {size / 1e3:.0f} kB in all")


if __name__ == "__main__":
    main()
