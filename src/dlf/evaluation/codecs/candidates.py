"""What is compared: codecs by the names that the command line gives them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from dlf.errors import SpecError
from dlf.evaluation.codecs.fitting import SCALES, Fitted, Fitter
from dlf.evaluation.codecs.formats import OPENERS, Format, OwnFormat, open_format
from dlf.evaluation.metrics.metric import Metric, Score
from dlf.records import UInt8

CLASSICAL = tuple(OPENERS)
SPEC = re.compile(r"(?:(?P<name>[^=:@]*)=)?(?P<kind>[^=:@]*)(?::(?P<argument>[^@]*))?(?:@(?P<scale>[^@]*))?")
NAME = re.compile(r"[\w.+@-]+")


class Attempt(Protocol):
    """One picture through one candidate."""

    def fit(self, budget: int, metric: Metric, score: Score) -> Fitted:
        """Return the best of at most `budget` bytes, or the smallest of all; raises nearly anything."""
        ...

    def paint(self, scale: Fraction, quality: int) -> Fitted:
        """Make it at one setting; raises nearly anything."""
        ...

    def decode(self, data: bytes) -> UInt8:
        """Return the picture of a file made before, uint8 (H, W, 3); raises nearly anything."""
        ...


class Candidate(Protocol):
    """A codec in a comparison.

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

    def start(self, picture: str, original: UInt8) -> Attempt:
        """Begin with a picture, uint8 (H, W, 3); picture: its name."""
        ...


@dataclass(frozen=True)
class Coder:
    """A `Candidate` that codes the picture at one of several scales."""

    name: str
    format: Format
    scales: tuple[Fraction, ...]
    own: bool = False
    classical: bool = False

    @property
    def identity(self) -> str:
        """Changes with the format and the scales."""
        return f"{self.format.identity} {' '.join(map(str, self.scales))}"

    @property
    def judged(self) -> bool:
        """Tell whether there is a choice of scales."""
        return len(self.scales) > 1

    def start(self, picture: str, original: UInt8) -> Fitter:
        """Begin with a picture."""
        return Fitter(self.name, self.format, original, self.scales)


@dataclass(frozen=True)
class Spec:
    """A codec as the command line names it: ``[NAME=]KIND[:ARGUMENT][@SCALE]``.

    kind: a key of KINDS.  argument: model, folder.  scale: the only one, if given.
    """

    name: str
    kind: str
    argument: str | None = None
    scale: Fraction | None = None


def parse_spec(text: str) -> Spec:
    """Read ``avif``, ``avif@1``, ``dlf:MODEL``, ``old=dlf:MODEL``; raises SpecError."""
    match = SPEC.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        kind = match["kind"] if match else text
        msg = f"'{kind}' is not one of the codecs {', '.join(KINDS)}"
        raise SpecError(msg)
    scale = None
    if match["scale"] is not None:
        try:
            scale = Fraction(match["scale"])
        except (ValueError, ZeroDivisionError):
            scale = Fraction(0)
        if not 0 < scale <= 1:
            msg = f"the scale in '{text}' is not a number above 0 and up to 1"
            raise SpecError(msg)
    name = match["name"]
    if name is None:
        name = match["kind"]
        if match["argument"]:
            name += "-" + re.sub(r"[^\w.+-]", "_", Path(match["argument"]).name)
        if scale is not None:
            name += f"@{scale}".replace("/", "_")
    if not NAME.fullmatch(name):
        msg = f"the name '{name}' may hold letters, digits and . + @ _ - only"
        raise SpecError(msg)
    return Spec(name, match["kind"], match["argument"], scale)


def open_candidate(spec: Spec, threads: int | None = None) -> Candidate:
    """Make the codec of a specification; threads: for our own codec, None uses all.

    Raises:
        MissingExtra: what it needs is not installed.
        DlfError: its model or folder cannot be used.
    """
    return KINDS[spec.kind](spec, threads)


def _open_own(spec: Spec, threads: int | None) -> Candidate:
    from dlf.api import Codec
    from dlf.codec import bundle

    files = bundle.find(spec.argument).manifest.files
    identity = " ".join(files[name] for name in sorted(files))
    form = OwnFormat(Codec(spec.argument, threads), identity, spec.argument)
    return Coder(spec.name, form, (spec.scale or Fraction(1),), own=True)


def _open_classical(spec: Spec, threads: int | None) -> Candidate:
    scales = SCALES if spec.scale is None else (spec.scale,)
    return Coder(spec.name, open_format(spec.kind), scales, classical=True)


def _open_vvc(spec: Spec, threads: int | None) -> Candidate:
    from dlf.evaluation.codecs.vvc import open_vvc

    scales = SCALES if spec.scale is None else (spec.scale,)
    return Coder(spec.name, open_vvc(), scales, classical=True)


def _open_compressai(spec: Spec, threads: int | None) -> Candidate:
    from dlf.evaluation.codecs.neural import open_compressai

    return Coder(spec.name, open_compressai(spec.argument), (spec.scale or Fraction(1),))


def _open_illm(spec: Spec, threads: int | None) -> Candidate:
    from dlf.evaluation.codecs.neural import open_illm

    return Coder(spec.name, open_illm(spec.argument), (spec.scale or Fraction(1),))


def _open_decoded(spec: Spec, threads: int | None) -> Candidate:
    from dlf.evaluation.codecs.decoded import DecodedFolder

    if not spec.argument:
        msg = "the codec decoded needs a folder: decoded:FOLDER"
        raise SpecError(msg)
    return DecodedFolder(spec.name, Path(spec.argument))


KINDS: dict[str, Callable[[Spec, int | None], Candidate]] = {
    "dlf": _open_own,
    **dict.fromkeys(CLASSICAL, _open_classical),
    "vvc": _open_vvc,
    "compressai": _open_compressai,
    "msillm": _open_illm,
    "decoded": _open_decoded,
}
"""Every kind of codec."""
