"""What a codec in a comparison is: how it codes one image, and how it meets a number of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from PIL import Image

from dlf.evaluation.metrics.metric import Metric, Score
from dlf.records import UInt8


class Codec(Protocol):
    """An image to the bytes of its file and back, with a quality setting."""

    @property
    def identity(self) -> str:
        """Changes when its files would: versions of libraries, options."""
        ...

    @property
    def qualities(self) -> range:
        """Settings, worst and smallest first."""
        ...

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """Return the file of an RGB image; any exception says that it cannot be written."""
        ...

    def decode(self, data: bytes) -> Image.Image:
        """Return the RGB image of a file."""
        ...


@dataclass(frozen=True, eq=False)
class RatePoint:
    """An image through a codec at one setting.

    scale: of both sides before coding.  quality: setting of the codec.  data: the file; None where only
    the decoded image is known.  size: its bytes.  rgb: uint8 (H, W, 3), decoded and scaled back.
    encode_s, decode_s: seconds, scaling left out; 0 where not known.
    """

    scale: Fraction
    quality: int
    data: bytes | None
    size: int
    rgb: UInt8
    encode_s: float = 0
    decode_s: float = 0


class RateSearch(Protocol):
    """One image through one codec, at any number of bytes."""

    def fit(self, budget: int, metric: Metric, score: Score) -> RatePoint:
        """Return the best of at most `budget` bytes, or the smallest of all; raises nearly anything."""
        ...

    def code(self, scale: Fraction, quality: int) -> RatePoint:
        """Code and decode at one setting; raises nearly anything."""
        ...

    def decode(self, data: bytes) -> UInt8:
        """Return the image of a file that `code` made, uint8 (H, W, 3); raises nearly anything."""
        ...


class ComparedCodec(Protocol):
    """A codec under the name that it has in a comparison.

    name: as tables call it.  identity: changes when its results would.  own: one of ours, whose quality
    can be asked for.  classical: a common format.  judged: a metric chooses among several scales.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def own(self) -> bool: ...  # noqa: D102

    @property
    def classical(self) -> bool: ...  # noqa: D102

    @property
    def judged(self) -> bool: ...  # noqa: D102

    def start(self, name: str, original: UInt8) -> RateSearch:
        """Begin with an image, uint8 (H, W, 3), of the name `name`."""
        ...
