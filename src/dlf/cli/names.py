"""Which inputs a command has, and where the result of each goes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from dlf.cli.options import Outputs
from dlf.errors import DlfError
from dlf.files import descriptor_of, find_files

log = logging.getLogger(__name__)

STDIO = "-"
DLF = ".dlf"


class JobError(DlfError):
    """One input cannot be handled, for a reason that lies outside of its contents."""


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; either may be "-"; target is None if there is no result.

    make_folder: the folder of the result is the user's wish, and may have to be made.
    derived: the name of the result is ours, not the user's.
    """

    source: str
    target: str | None = None
    make_folder: bool = False
    derived: bool = False


@dataclass(frozen=True)
class Input:
    """One input; folder: the one that it was found in, if the user named a folder."""

    path: str
    folder: Path | None = None


@dataclass(frozen=True)
class Naming:
    """How a command names its results.

    name: gives the file name of a result from the input, and the folder that it goes to.
    inputs: gives the endings of inputs: of the files to take from folders, and of what is no OUT.
    suffixes: endings by which the second of two names is known to be OUT.
    remedy: what to do where two inputs of one folder would get one name.
    """

    name: Callable[[Input, Path], str]
    inputs: Callable[[], Collection[str]]
    suffixes: Collection[str]
    remedy: str


def plan(inputs: Sequence[Input], output: str | None, naming: Naming) -> list[Job]:
    """Give every input its output: `output`, or a name of `naming` in that folder or beside the input.

    Raises:
        click.UsageError: two outputs would be one file, an output is an input, or it has no name.
    """
    if [each.path for each in inputs].count(STDIO) > 1:
        msg = "standard input can be read only once"
        raise click.UsageError(msg)
    unique: dict[str, Input] = {}
    for each in inputs:  # named twice, or by itself and in a folder, it is still one input
        unique.setdefault(os.path.abspath(each.path), each)
    inputs = list(unique.values())
    several = len(inputs) > 1 or any(each.folder is not None for each in inputs)
    if output == STDIO and several:
        msg = "several results cannot go to standard output"
        raise click.UsageError(msg)
    to_folder = output is not None and (several or output.endswith(("/", os.sep)) or os.path.isdir(output))
    if to_folder and os.path.exists(str(output)) and not os.path.isdir(str(output)):
        msg = f"{output} is not a folder, but several results go there"
        raise click.UsageError(msg)
    jobs = []
    for each in inputs:
        if output is not None and not to_folder:
            jobs.append(Job(each.path, output))
        elif each.path == STDIO or descriptor_of(each.path) is not None:
            if to_folder or each.path != STDIO:
                what = "standard input" if each.path == STDIO else each.path
                msg = f"the result of {what} needs a file name: give -o a file"
                raise click.UsageError(msg)
            jobs.append(Job(each.path, STDIO))
        else:
            folder = _folder(each, output)
            target = str(folder / naming.name(each, folder))
            jobs.append(Job(each.path, target, make_folder=to_folder, derived=True))
    _check_apart(jobs, naming.remedy)
    return jobs


def _folder(each: Input, output: str | None) -> Path:
    """Folder of a result: beside the input, or the same place in the tree below `output`."""
    beside = Path(each.path).parent
    if output is None:
        return beside
    return Path(output) if each.folder is None else Path(output) / beside.relative_to(each.folder)


def _check_apart(jobs: Sequence[Job], remedy: str) -> None:
    """Raise click.UsageError if two results have one name, or one is another's input."""
    taken: dict[str, str] = {}
    for job in jobs:
        if job.target == STDIO:
            continue
        place = os.path.realpath(str(job.target))
        if place in taken:
            other = taken[place]
            if Path(other).name == Path(job.source).name:
                remedy = "give their folder instead, with -r: its tree is kept"
            msg = f"{other} and {job.source} would both be written to {job.target} ({remedy})"
            raise click.UsageError(msg)
        taken[place] = job.source
    for job in jobs:
        if job.source != STDIO and os.path.realpath(job.source) in taken:
            msg = f"{job.source} cannot be both an input and an output"
            if job.derived and job.source == job.target:
                msg = f"{job.source} is a .dlf file already: dlf decode makes an image of it"
            raise click.UsageError(msg)


def in_and_out(
    names: tuple[str, ...], outputs: Outputs, naming: Naming
) -> tuple[tuple[str, ...], str | None]:
    """Return the names of the inputs, and that of the output if there is one.

    Of two names without -o the second is the output if it cannot be an input: by its ending, because it is
    a folder while the first is none, or because it is standard output.

    Raises:
        click.UsageError: a name is empty, or the second of two is neither a file nor called like one of ours.
    """
    names = tuple(STDIO if descriptor_of(name) == 0 else name for name in names)
    output = outputs.output
    if "" in (*names, output):  # from a variable of the shell that is not set
        msg = "the name of a file is empty"
        raise click.UsageError(msg)
    if output is None and len(names) == 2:
        if _is_output(names[0], names[1], naming):
            output, names = names[1], names[:1]
        elif not os.path.lexists(names[1]) and Path(names[1]).suffix.lower() not in naming.inputs():
            msg = f"there is no file {names[1]}; if it is to be the output, say -o {names[1]}"
            raise click.UsageError(msg)
    if output is not None and descriptor_of(output) == 1:
        output = STDIO
    return names, output


def _is_output(first: str, second: str, naming: Naming) -> bool:
    if second == STDIO or descriptor_of(second) == 1:
        return True
    if os.path.isdir(second) or second.endswith(("/", os.sep)):
        return not os.path.isdir(first)
    return Path(second).suffix.lower() in naming.suffixes


def expand(
    names: Sequence[str], suffixes: Callable[[], Collection[str]], *, recursive: bool
) -> Iterator[Input]:
    """Yield the inputs, with files in the place of folders.

    suffixes: gives the endings of the files to take from folders; only asked where there is one.  Images
        that are called like decoded ones (NAME.dlf.png) are left out, for they would be coded twice.

    Raises:
        JobError: a folder cannot be read, or has nothing to take.
    """
    for name in names:
        if name == STDIO or not os.path.isdir(name):
            yield Input(name)
            continue
        paths = []
        try:
            for path in find_files(Path(name), suffixes(), recursive=recursive):
                if is_decoded(path):
                    log.debug("left out %s, the name of a decoded image", path)
                else:
                    paths.append(path)
        except OSError as error:
            msg = f"the folder {name} cannot be read: {error.strerror or error}"
            raise JobError(msg) from error
        if not paths:
            below = "" if recursive else " (-r looks into the folders below as well)"
            msg = f"the folder {name} has no file to take{below}"
            raise JobError(msg)
        for path in paths:
            yield Input(str(path), Path(name))


def readable_suffixes() -> frozenset[str]:
    """Return the endings of images, in small letters; also of those whose plugin is not installed.

    To pass over the latter in silence would be worse than to say for each what is missing.
    """
    from dlf.imageio import formats

    return frozenset(
        suffix for each in formats() if each.readable or each.missing for suffix in each.suffixes
    )


def is_decoded(path: Path) -> bool:
    """Whether an image has a name such as NAME.dlf.png, which only decoding gives."""
    return path.suffix.lower() != DLF and Path(path.stem).suffix.lower() == DLF
