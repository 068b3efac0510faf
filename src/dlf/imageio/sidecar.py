"""What a file says about its picture that Pillow does not hand out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Signal:
    """Code points of ITU-T H.273: how the numbers of a picture are colours.

    primaries, transfer: `ColourPrimaries` and `TransferCharacteristics`.
    """

    primaries: int
    transfer: int


@dataclass(frozen=True)
class Sidecar:
    """Findings in a file beside what Pillow reads of it.

    icc, exif, xmp: as in `dlf.records.Metadata`, where Pillow reads the format but not this part of it.
    signal: how numbers are colours, where the file says so by code points.
    turned: the pixels stand as they are meant to, whatever EXIF says.
    problems: what was passed over, each a sentence; there are none in a flawless file.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    signal: Signal | None = None
    turned: bool = False
    problems: tuple[str, ...] = ()
