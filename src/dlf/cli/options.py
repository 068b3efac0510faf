"""Options that several commands have, the records that hold them, and argument types of our own.

A command is a function of typed parameters.  Options that belong together reach it as one frozen record:

    @click.command()
    @common_options
    @click.option("-q", "--quality", type=click.IntRange(0, 100), default=50)
    def command(common: Common, quality: int) -> int: ...
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from dlf.limits import MAX_PIXELS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from dlf.codec.engine import EngineOptions

T = TypeVar("T")

Function = Callable[..., int]
"""A command: takes its options by name, returns the exit code."""

Decorator = Callable[[Function], Function]

PATH = click.Path(path_type=Path, readable=False)
"""Argument type: a path, whatever is there."""

FILE = click.Path(readable=False)
"""Argument type: the same as text, which may be "-"."""

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
"""Those of `dlf.codec.engine`, which the parser does not import."""

REFERENCE = "reference"

ENGINES = ("auto", "onnxruntime", "openvino", "cuda", "coreml", "directml", REFERENCE)
"""Those of `dlf.codec.engine`, likewise."""

EFFORTS = ("0", "3", "9")
"""Those of `dlf.codec.effort`, likewise."""

COUNT = click.IntRange(1, 1024)
"""Argument type: how many of something that costs memory or processors."""


_MANY = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def pixels(text: str | int) -> int:
    """Argument type: a number of pixels, at least 1, such as 5000000, 5e6 or 5M (millions)."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,12})?(?:E[0-9]{1,2})?)([KMG]?)", str(text).upper())
    number = 0.0 if match is None else float(match[1]) * _MANY[match[2]]
    if not number >= 1:
        msg = f"'{text}' is not a number of pixels such as 5000000, 5e6 or 5M"
        raise click.BadParameter(msg)
    return int(number)


def gathered(record: type[DataclassInstance], into: str, *options: Decorator) -> Decorator:
    """Return a decorator that adds options whose values reach the function as one record.

    record: a frozen dataclass with a field for every option, of the name that click gives its value.
    into: name of the function's parameter that takes the record.
    """
    make: Callable[..., object] = record
    names = [field.name for field in fields(record)]

    def decorate(function: Function) -> Function:
        @wraps(function)
        def gather(**values: object) -> int:
            taken = {name: values.pop(name) for name in names}
            return function(**{into: make(**taken)}, **values)

        return stacked(*options)(gather)

    return decorate


def stacked(*options: Decorator) -> Decorator:
    """Return several decorators as one; their options stand in the help in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


limit_options = (
    click.option(
        "--max-pixels",
        type=pixels,
        metavar="N",
        default=MAX_PIXELS,
        show_default="32 megapixels",
        help="Refuse images of more pixels, such as 12M, which is 12 million.",
    ),
    click.option(
        "--max-seconds",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        help="Give an image up once its networks have run that long.  [default: no limit]",
    ),
)
"""Limits of `dlf.limits`, of every command that reads images or files."""


@dataclass(frozen=True)
class Common:
    """What every command on images or .dlf files is told.

    inputs: paths, or "-".  model: folder, name or role; None is the package's default.
    recursive: look into the folders of an input folder.  json: report as JSON lines.
    max_pixels: limit of width * height.  max_seconds: limit of the networks' time for an image, None is none.
    """

    inputs: tuple[str, ...]
    model: str | None
    recursive: bool
    json: bool
    max_pixels: int
    max_seconds: float | None


common_options = gathered(
    Common,
    "common",
    click.argument("inputs", nargs=-1, required=True, type=FILE, metavar="IN..."),
    click.option("--model", metavar="MODEL", help="Folder, name or role of another model; see dlf --help."),
    click.option("-r", "--recursive", is_flag=True, help="Take what is in the folders of a folder as well."),
    click.option("--json", is_flag=True, help="Report as one JSON object a line."),
    *limit_options,
)


@dataclass(frozen=True)
class Outputs:
    """Where results go, what to do about files that are there, and how many are made at a time.

    output: a file, a folder, "-", or None for the folder of each input.
    """

    output: str | None
    overwrite: bool
    skip_existing: bool
    jobs: int

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            msg = "--skip-existing is not allowed with --overwrite"
            raise click.UsageError(msg)


output_options = gathered(
    Outputs,
    "outputs",
    click.option(
        "-o",
        "--output",
        type=FILE,
        metavar="OUT",
        help="Output file, folder, or - for standard output.  [default: beside each input]",
    ),
    click.option("--overwrite", is_flag=True, help="Replace outputs that exist."),
    click.option("--skip-existing", is_flag=True, help="Pass over inputs whose outputs exist."),
    click.option("--jobs", type=COUNT, default=1, show_default=True, metavar="N", help="Inputs at a time."),
)


@dataclass(frozen=True)
class Engine:
    """What the command line says of how networks are run; see `dlf.codec.engine.EngineOptions`."""

    threads: int | None
    device: str
    precision: str | None
    compile: bool
    engine: str

    def options(self, jobs: int, progress: Callable[[str, float], None]) -> EngineOptions:
        """Return the same for a codec that does so many jobs at a time; raises EngineError."""
        from dlf.codec.engine import EngineOptions  # brings numpy, which the parser does not need

        # torch then asks Linux for pages of 2 MB: maps at full size are made anew by every layer, and mapping
        # them in pages of 4 KB takes a tenth of the time.  It looks when it makes its first tensor
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        threads = self.threads
        if threads is None and jobs > 1:
            threads = max(1, (os.cpu_count() or 1) // jobs)
        return EngineOptions(threads, self.device, self.precision, self.compile, progress, self.engine)

    def given(self) -> list[str]:
        """Return the options given that not every model can follow."""
        given = {
            "--device": self.device != "cpu",
            "--precision": self.precision is not None,
            "--compile": self.compile,
            "--engine": self.engine != "auto",
        }
        return [option for option, is_given in given.items() if is_given]


engine_options = gathered(
    Engine,
    "engine",
    click.option("--threads", type=COUNT, metavar="N", help="Processor threads to use.  [default: all]"),
    click.option(
        "--device", default="cpu", show_default=True, help="For models that torch runs: where, such as cuda."
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="For torch and OpenVINO: smaller is faster.  [default: as stored, or bfloat16 in OpenVINO]",
    ),
    click.option(
        "--compile", is_flag=True, help="For models that torch runs: compile first, which takes minutes."
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="For models of ONNX graphs; see dlf engines.",
    ),
)


def loudness_options(function: Function) -> Function:
    """Add --quiet and --verbose; the function is told whether it is to be quiet."""

    @click.option("--quiet", is_flag=True, help="Report failures only.")
    @click.option("-v", "--verbose", is_flag=True, help="Report every detail.")
    @wraps(function)
    def decorated(*, quiet: bool, verbose: bool, **values: object) -> int:
        if quiet and verbose:
            msg = "--verbose is not allowed with --quiet"
            raise click.UsageError(msg)
        _set_levels(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
        return function(quiet=quiet, **values)

    return decorated


def _set_levels(level: int) -> None:
    """Let log lines of a level through; of other packages nothing below a warning."""
    logging.getLogger("dlf").setLevel(level)
    for other in ("", "PIL"):
        logging.getLogger(other).setLevel(max(level, logging.WARNING))
    # what Pillow or a user's file names make Python say is a log line, not an output
    logging.getLogger("py.warnings").setLevel(level if level == logging.DEBUG else logging.ERROR)


def listed(text: str) -> tuple[str, ...]:
    """Argument type: words with commas between, each once."""
    words = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if "" in words:
        msg = f"'{text}' has an empty part"
        raise click.BadParameter(msg)
    return words


def whole_numbers(text: str, low: int, high: int) -> tuple[int, ...]:
    """Return whole numbers in low..high with commas between, as given."""
    values = []
    for part in text.split(","):
        try:
            value = int(part)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            msg = f"'{part}' is not a whole number from {low} to {high}"
            raise click.BadParameter(msg)
        values.append(value)
    return tuple(values)


def above_zero(text: str, unit: str) -> float:
    """Return a finite number above 0; unit: what it counts, for the error message."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        msg = f"'{text}' is not a number of {unit} above 0"
        raise click.BadParameter(msg)
    return value


def minutes(text: str) -> float:
    """Argument type: a length of time."""
    return above_zero(text, "minutes")


def needed(value: T | None, option: str) -> T:
    """Return what `option` says, where the command cannot do without it; raises click.UsageError."""
    if value is None:
        msg = f"the following option is required: {option}"
        raise click.UsageError(msg)
    return value
