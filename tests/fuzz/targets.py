"""What is fuzzed: for each target the inputs to start from, how they are mutated, and what reads them."""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import dlf
from conftest import MockBackend, make_arrays, picture, to_npz, write_bundle
from dlf.bitstream import container
from dlf.bitstream.header import Header
from dlf.codec import bundle, resilient
from dlf.codec.bundle import MANIFEST, TABLES
from dlf.codec.codec import StreamCodec
from dlf.codec.salvage import read_remains
from dlf.entropy.tables import Tables
from dlf.errors import FormatError
from dlf.imageio import load_rgb
from fuzz.mutation import Mutate, StreamMutation, mutate_bytes

MOST_PIXELS = 2**15
"""Limit of pictures in every target, so that one run takes milliseconds."""

FOUND = Path(__file__).parent / "found"
"""Inputs that once were faults, a folder for each target."""


@dataclass(frozen=True)
class Target:
    """seeds: good inputs.  mutate: makes others of them.  read: raises nothing but errors of the package."""

    seeds: tuple[bytes, ...]
    mutate: Mutate
    read: Callable[[bytes], object]


def header_target() -> Target:
    """The header and the container, without any model."""
    seeds = [container.dump(container.seal(Header(4, 50, 64, 48), b"payload", "00" * 32))]
    seeds.append(container.dump(container.seal(Header(300, 0, 65536, 1), b"", "00" * 32)))
    return Target(tuple(seeds), mutate_bytes, lambda data: container.load(data, MOST_PIXELS))


def coder_target() -> Target:
    """Container, range coder, tables and the walk; networks of numpy stand in for those of a model."""
    with tempfile.TemporaryDirectory() as folder:
        model = bundle.find(write_bundle(Path(folder, "model")))
        codec = StreamCodec(model.manifest, model.tables(), MockBackend())
    pictures = [picture(*size) for size in ((64, 48), (1, 1), (150, 130))]
    seeds = [container.dump(codec.encode_rgb(rgb, quality)) for rgb in pictures for quality in (0, 50, 100)]
    mutate = StreamMutation(model.manifest.numerics, 181)
    return Target(tuple(seeds), mutate, lambda data: codec.receive(container.load(data, MOST_PIXELS)))


def decode_target() -> Target:
    """The whole of decoding with the package's default model: `dlf.decode`."""
    codec = dlf.Codec(threads=1, max_pixels=MOST_PIXELS)
    seeds = [
        codec.encode(picture(*size), quality) for size in ((64, 48), (33, 70)) for quality in (5, 50, 100)
    ]
    image = Image.fromarray(picture(40, 40))
    exif = image.getexif()
    exif[0x010E] = "a description"
    stored = io.BytesIO()
    image.save(stored, "png", exif=exif)
    seeds.append(codec.encode(stored.getvalue(), 30, metadata=True))
    mutate = StreamMutation(bundle.find(None).manifest.numerics, 96)
    return Target(tuple(seeds), mutate, codec.decode)


def salvage_target() -> Target:
    """What is read of cut and damaged files and of packets, with the networks of `coder_target`."""
    with tempfile.TemporaryDirectory() as folder:
        model = bundle.find(write_bundle(Path(folder, "model")))
        codec = StreamCodec(model.manifest, model.tables(), MockBackend())
    rgb = picture(110, 290)
    seeds = [container.dump(codec.encode_rgb(rgb, quality)) for quality in (0, 50, 100)]
    seeds += [resilient.encode(codec, rgb, quality, 64) for quality in (0, 50)]

    def read(data: bytes) -> None:
        for best_effort in (True, False):
            read_remains(
                data, FormatError(""), [model], lambda _: codec, MOST_PIXELS, best_effort=best_effort
            )

    stream = StreamMutation(model.manifest.numerics, 181)

    def mutate(rng: random.Random, data: bytes) -> bytes:
        made = (mutate_bytes if rng.random() < 0.5 else stream)(rng, data)
        return made[: rng.randrange(len(made) + 1)] if rng.random() < 0.3 else made

    return Target(tuple(seeds), mutate, read)


def tables_target() -> Target:
    """The tables of a model."""
    arrays = make_arrays()
    seeds = (to_npz(arrays), to_npz(arrays | {"padding": np.array(64), "token_prior": np.array(1)}))
    return Target(seeds, mutate_bytes, Tables.load)


def bundle_target() -> Target:
    """The manifest of a model's folder, and the tables behind it with sums that fit."""
    folder = Path(tempfile.mkdtemp())  # the folder of one process, removed with its temporary files
    write_bundle(folder / "model")
    seed = (folder / "model" / MANIFEST).read_bytes()

    def read(data: bytes) -> None:
        (folder / "model" / MANIFEST).write_bytes(data)
        bundle.find(folder / "model").tables()

    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.5:
            return mutate_bytes(rng, data)
        try:
            values = json.loads(data)
        except ValueError:
            return mutate_bytes(rng, data)
        if isinstance(values, dict) and values:
            other = rng.choice((None, -1, 0, 2**70, 1.5, "", "../..", [], {}, True, {TABLES: "00"}, [[[]]]))
            values[rng.choice(sorted(values))] = other
        return json.dumps(values).encode()

    return Target((seed,), mutate, read)


def image_target() -> Target:
    """Pictures that are to be encoded, in every format that Pillow writes here."""
    image = Image.fromarray(picture(40, 56))
    seeds = []
    for name in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF", "PPM", "ICO", "TGA", "QOI"):
        stored = io.BytesIO()
        try:
            image.save(stored, name)
        except (OSError, KeyError, ValueError):  # this Pillow does not write it
            continue
        seeds.append(stored.getvalue())
    return Target(tuple(seeds), mutate_bytes, lambda data: load_rgb(data, max_pixels=MOST_PIXELS))


TARGETS: dict[str, Callable[[], Target]] = {
    "header": header_target,
    "coder": coder_target,
    "decode": decode_target,
    "salvage": salvage_target,
    "tables": tables_target,
    "bundle": bundle_target,
    "image": image_target,
}
