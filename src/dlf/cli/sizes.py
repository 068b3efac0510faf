"""Options that say how large a coded file is to be, by its quality or its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from dlf.bitstream.spec import MAX_BPP, MIN_FILE_BYTES
from dlf.cli.options import Decorator, gathered

KILO = 1000


@dataclass(frozen=True)
class FileSize:
    """A quality, or a size as bytes, thousands of bytes or bits a pixel; None where not given.

    total_bytes: of the files of all inputs together.
    best: take the nearest file where none has that size.
    """

    quality: int | None
    bytes: int | None
    kb: float | None
    bpp: float | None
    total_bytes: int | None
    best: bool

    def __post_init__(self) -> None:
        given = self.given()
        if self.best and not given:
            msg = f"--best goes with {', '.join(self._sizes())} only"
            raise click.UsageError(msg)
        if self.quality is not None:
            given.insert(0, "--quality")
        if len(given) > 1:
            msg = f"{given[1]} is not allowed with {given[0]}"
            raise click.UsageError(msg)
        # NaN is in no range, but no comparison of click's says so
        if self.kb is not None and not MIN_FILE_BYTES / KILO <= self.kb < float("inf"):
            msg = f"--kb {self.kb:g} is not {MIN_FILE_BYTES / KILO} (the smallest of all files) or more"
            raise click.UsageError(msg)
        if self.bpp is not None and not 0 < self.bpp <= MAX_BPP:
            msg = f"--bpp {self.bpp:g} is not above 0 and at most {MAX_BPP}"
            raise click.UsageError(msg)

    def given(self) -> list[str]:
        """Return the options of a size that are given."""
        return [option for option, value in self._sizes().items() if value is not None]

    def _sizes(self) -> dict[str, float | None]:
        return {
            "--bytes": self.bytes,
            "--kb": self.kb,
            "--bpp": self.bpp,
            "--total-bytes": self.total_bytes,
        }

    def arguments(self) -> dict[str, Any]:
        """Return the same as arguments of `dlf.Codec.encode`, which knows of no total."""
        max_bytes = self.bytes if self.kb is None else int(round(self.kb * KILO, 6))
        return {"quality": self.quality, "max_bytes": max_bytes, "bpp": self.bpp, "best": self.best}


_SIZES = (
    click.option(
        "-q",
        "--quality",
        type=click.IntRange(0, 100),
        metavar="0..100",
        help="Higher is better and larger.  [default: the model's, 50 for those of the package]",
    ),
    click.option(
        "--bytes",
        type=click.IntRange(MIN_FILE_BYTES),
        metavar="N",
        help="Size of each file instead of a quality: at most N bytes, and nearly as many.",
    ),
    click.option("--kb", type=float, metavar="N", help="The same in thousands of bytes, such as 0.9."),
    click.option("--bpp", type=float, metavar="N", help="The same in bits a pixel, such as 0.015."),
)

_BEST = click.option(
    "--best", is_flag=True, help="Take the nearest file where an image has none of the size asked for."
)


def _total(*, hidden: bool) -> Decorator:
    return click.option(
        "--total-bytes",
        type=click.IntRange(MIN_FILE_BYTES),
        metavar="N",
        hidden=hidden,
        help="Of all files together: at most N bytes, and nearly as many; one quality for all.",
    )


file_size_options = gathered(FileSize, "size", *_SIZES, _total(hidden=False), _BEST)

batch_size_options = gathered(FileSize, "size", *_SIZES, _total(hidden=True), _BEST)
"""The same where the images are never together."""
