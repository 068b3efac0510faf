"""``dlf encode``, ``decode``, ``train`` and the others of `COMMANDS`: parser, dispatch, exit codes."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import dlf
from dlf.cli import decode, encode, export, info, pack, plan, train, weights
from dlf.cli import eval as evaluate
from dlf.cli.jobs import UsageError, complain, explain
from dlf.errors import DlfError

COMMANDS = (
    ("encode", encode),
    ("decode", decode),
    ("info", info),
    ("eval", evaluate),
    ("train", train),
    ("plan", plan),
    ("pack", pack),
    ("export", export),
    ("weights", weights),
)

ROLES = (
    "Models of the package go by what they are for: --model base (the best pictures) or --model fast (the "
    "smallest and quickest), as far as this version has one of its own; --model default is what is taken "
    "when none is named.  A .dlf file says which model reads it."
)

INTERRUPTED = 130
READER_GONE = 141


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong instead of repeating the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; `args.run` is the command's function."""
    parser = Parser(
        prog="dlf", description="Compress photographs to about a kilobyte and paint them back.", epilog=ROLES
    )
    parser.add_argument("--version", action="version", version=f"dlf {dlf.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command in COMMANDS:
        text = (command.__doc__ or "").partition("\n")[0]
        command.add_arguments(commands.add_parser(name, help=text, description=text))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    # what Pillow or a user's file names make Python say is a log line, not an output
    logging.basicConfig(
        format="dlf: %(message)s",
        level=logging.ERROR if args.quiet else logging.DEBUG if args.verbose else logging.WARNING,
    )
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.DEBUG if args.verbose else logging.ERROR)
    logging.getLogger("PIL").setLevel(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except UsageError as error:
        complain(str(error))
        return 2
    except (DlfError, MemoryError) as error:  # before the first input, so it concerns them all
        complain(explain(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except OSError as error:
        # Python flushes standard output once more at exit, which must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return READER_GONE
        complain(f"cannot write to standard output: {error.strerror}")
        return 1
    return code
