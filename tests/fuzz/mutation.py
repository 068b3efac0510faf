"""Seeded mutations of inputs: bytes at random, and a .dlf file field by field."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from dlf.bitstream import container
from dlf.errors import DlfError

Mutate = Callable[[random.Random, bytes], bytes]

WORDS = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x01",
)
"""What numbers of files break at."""


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Change one to four places: bits, bytes, words; pieces cut out, doubled, moved; the end cut off."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((1, 1, 2, 4, 16, 200)))
        match rng.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(out):
                out[at] = rng.randrange(256)
            case 2:
                word = rng.choice(WORDS)
                out[at : at + len(word)] = word
            case 3:
                del out[at:end]
            case 4:
                out[at:at] = out[at:end]
            case 5:
                out[at:at] = rng.randbytes(rng.randint(1, 20))
            case 6 if rng.random() < 0.3:
                del out[at:]
    return bytes(out)


@dataclass(frozen=True)
class StreamMutation:
    """Mutates .dlf files; every other time the checksum is made to fit again.

    numerics: of the model that reads them, in hex.  most: sides in pixels, so that a run stays cheap.
    """

    numerics: str
    most: int

    def __call__(self, rng: random.Random, data: bytes) -> bytes:
        """Change header, payload or metadata of a file that can be parsed, and bytes of any."""
        try:
            stream = container.load(data)
        except DlfError:
            return mutate_bytes(rng, data)
        header, payload, blob = stream.header, stream.payload, stream.blob
        match rng.randrange(8):
            case 0:
                header = replace(header, quality=rng.choice((0, 1, 50, 99, 100)))
            case 1:
                sides = (1, 31, 32, 33, 64, 255, self.most)
                header = replace(header, width=rng.choice(sides), height=rng.choice(sides))
            case 2:
                header = replace(header, model=rng.choice((0, 1, header.model, 127, 2**35 - 1)))
            case 3 if blob:
                blob = mutate_bytes(rng, blob) or b"\0"
            case 4:
                payload = rng.randbytes(rng.randrange(2 * len(payload) + 8))
            case _:
                payload = mutate_bytes(rng, payload)
        if rng.random() < 0.5:
            return container.dump(container.seal(header, payload, self.numerics, blob))
        return container.dump(replace(stream, header=header, payload=payload, blob=blob))
