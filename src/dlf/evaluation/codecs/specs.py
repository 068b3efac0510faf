"""Codecs by the names that the command line gives them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from dlf import api
from dlf.codec import bundle
from dlf.errors import SpecError
from dlf.evaluation.codecs.decoded import DecodedFolder
from dlf.evaluation.codecs.fitting import SCALES, ScaledCodec
from dlf.evaluation.codecs.formats import OPENERS, DlfCodec, open_format
from dlf.evaluation.codecs.neural import open_compressai, open_illm
from dlf.evaluation.codecs.protocols import ComparedCodec
from dlf.evaluation.codecs.vvc import open_vvc

PATTERN = re.compile(
    r"(?:(?P<name>[^=:@]*)=)?(?P<kind>[^=:@]*)(?::(?P<argument>[^@]*))?(?:@(?P<scale>[^@]*))?"
)
NAME = re.compile(r"[\w.+@-]+")


@dataclass(frozen=True)
class CodecSpec:
    """A codec as it is asked for: ``[NAME=]KIND[:ARGUMENT][@SCALE]``.

    kind: a key of KINDS.  argument: model, folder.  scale: the only one, if given.
    """

    name: str
    kind: str
    argument: str | None = None
    scale: Fraction | None = None


def parse_codec(text: str) -> CodecSpec:
    """Read ``avif``, ``avif@1``, ``dlf:MODEL``, ``old=dlf:MODEL``; raises SpecError."""
    match = PATTERN.fullmatch(text)
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
    return CodecSpec(name, match["kind"], match["argument"], scale)


def open_codec(spec: CodecSpec, threads: int | None = None) -> ComparedCodec:
    """Make the codec of a specification; threads: for our own codec, None uses all.

    Raises:
        MissingExtra: what it needs is not installed.
        DlfError: its model or folder cannot be used.
    """
    return KINDS[spec.kind](spec, threads)


def _open_own(spec: CodecSpec, threads: int | None) -> ComparedCodec:
    files = bundle.find(spec.argument).manifest.files
    identity = " ".join(files[name] for name in sorted(files))
    # one engine throughout, for results that do not depend on how many images came before
    engine = api.EngineOptions(threads, engine="onnxruntime")
    codec = DlfCodec(api.Codec(spec.argument, engine=engine), identity, spec.argument)
    return ScaledCodec(spec.name, codec, (spec.scale or Fraction(1),), own=True)


def _open_classical(spec: CodecSpec, threads: int | None) -> ComparedCodec:
    codec = open_vvc() if spec.kind == "vvc" else open_format(spec.kind)
    scales = SCALES if spec.scale is None else (spec.scale,)
    return ScaledCodec(spec.name, codec, scales, classical=True)


def _open_learned(spec: CodecSpec, threads: int | None) -> ComparedCodec:
    opener = open_compressai if spec.kind == "compressai" else open_illm
    return ScaledCodec(spec.name, opener(spec.argument), (spec.scale or Fraction(1),))


def _open_decoded(spec: CodecSpec, threads: int | None) -> ComparedCodec:
    if not spec.argument:
        msg = "the codec decoded needs a folder: decoded:FOLDER"
        raise SpecError(msg)
    return DecodedFolder(spec.name, Path(spec.argument))


KINDS: dict[str, Callable[[CodecSpec, int | None], ComparedCodec]] = {
    "dlf": _open_own,
    **dict.fromkeys([*OPENERS, "vvc"], _open_classical),
    "compressai": _open_learned,
    "msillm": _open_learned,
    "decoded": _open_decoded,
}
"""Every kind of codec."""
