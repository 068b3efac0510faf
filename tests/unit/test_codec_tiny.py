"""The whole way with real, if untrained, networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dlf
from dlf.records import UInt8

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def codecs(tiny_bundle: Path) -> tuple[dlf.Codec, dlf.Codec]:
    """A sender and a receiver that do not compute in the same way."""
    return dlf.Codec(tiny_bundle, threads=1), dlf.Codec(tiny_bundle, threads=2)


@pytest.mark.parametrize("quality", [0, 50, 100])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (31, 33), (255, 257), (300, 500), (40, 1700)])
def test_round_trip(
    height: int,
    width: int,
    quality: int,
    codecs: tuple[dlf.Codec, dlf.Codec],
    picture: Callable[[int, int], UInt8],
) -> None:
    sender, receiver = codecs
    data = sender.encode(picture(height, width), quality)
    image = receiver.decode(data)
    assert image.size == (width, height)
    # the symbols are the same for both, or decoding would have failed; the pixels are so but for rounding
    other = np.asarray(sender.decode(data), int)
    assert np.abs(np.asarray(image, int) - other).max() <= 1
    info = receiver.info(data)
    assert info.model_name == "tiny"
    assert info.token_bits is not None
    assert info.token_bits > 0


def test_size_grows_with_quality(
    codecs: tuple[dlf.Codec, dlf.Codec], picture: Callable[[int, int], UInt8]
) -> None:
    sizes = [len(codecs[0].encode(picture(255, 257), quality)) for quality in (0, 25, 50, 75, 100)]
    assert sizes == sorted(set(sizes))
