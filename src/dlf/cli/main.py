"""``dlf encode``, ``decode``, ``train`` and the others of `COMMANDS`: dispatch and exit codes."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import click

import dlf
from dlf.cli.jobs import LogLines, complain, tell
from dlf.cli.streams import (
    OutputGone,
    buffer_standard_output,
    drop_standard_output,
    hold_standard_streams,
)
from dlf.errors import DlfError, explain, is_out_of_memory

COMMANDS = (
    "encode",
    "decode",
    "batch",
    "info",
    "verify",
    "formats",
    "models",
    "engines",
    "bench",
    "serve",
    "web",
    "eval",
    "train",
    "plan",
    "pack",
    "export",
    "weights",
)
"""Each is the click command `command` of the module `dlf.cli` of that name."""

COMPLETION = "_DLF_COMPLETE"
"""Environment variable by which a shell asks for completions, as click's documentation names it."""

INTERRUPTED = 130
READER_GONE = 141


class LazyGroup(click.Group):
    """A group of commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"dlf.cli.{cmd_name}").command
        return command


def _tell_version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    """Print the version, which takes as long to find as a command to be parsed, only if it is asked for."""
    if asked and not context.resilient_parsing:
        tell(f"dlf {dlf.__version__}")
        context.exit()


@click.command(
    cls=LazyGroup,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""
    Models of the package go by what they are for: --model base (the best images) or --model fast (the
    smallest and quickest), as far as this version has one of its own; --model default is what is taken when
    none is named.  A .dlf file says which models read it; of several the one that is named paints.

    Completion: add eval "$(_DLF_COMPLETE=bash_source dlf)" to ~/.bashrc, or the same with zsh_source to
    ~/.zshrc; for fish put _DLF_COMPLETE=fish_source dlf | source into ~/.config/fish/completions/dlf.fish.
    """,
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_tell_version,
    help="Show the version and exit.",
)
def dlf_command() -> None:
    """Compress photographs to about a kilobyte and paint them back."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    hold_standard_streams()
    if argv is None:
        _clean_up_on_signals()
        buffer_standard_output()
    logging.basicConfig(format="%(message)s", handlers=[LogLines()])
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    if COMPLETION in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(dlf_command, {}, "dlf", COMPLETION, os.environ[COMPLETION])
    try:
        code = _invoke(sys.argv[1:] if argv is None else list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.UsageError as error:
        name = "dlf" if error.ctx is None else error.ctx.command_path
        # some messages of click list what there is, a line for each
        sentence = " ".join(line.strip() for line in error.format_message().splitlines()).rstrip(".")
        tell(f"{name}: {sentence} (see {name} --help)", error=True)
        return error.exit_code
    except (DlfError, MemoryError) as error:  # before the first input, so it concerns them all
        complain(explain(error))
        return 1
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        complain(explain(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except OutputGone as error:
        return _without_output(error.__cause__)
    except OSError as error:
        return _without_output(error)
    return code


def _without_output(error: BaseException | None) -> int:
    """End without standard output, which cannot be written; returns the exit code."""
    if sys.stdout is not None:
        drop_standard_output()
    if isinstance(error, BrokenPipeError):
        return READER_GONE
    complain(f"cannot write to standard output: {getattr(error, 'strerror', error)}")
    return 1


def _clean_up_on_signals() -> None:
    """Let the end of a batch or of a terminal leave no unfinished file behind, as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):  # the latter is not everywhere
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # else nohup ignores it
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def _invoke(arguments: list[str]) -> int:
    """Run a command and return its exit code.

    `click.Command.main` does the same, but with its own ideas of exit codes and of what to say.
    """
    try:
        with dlf_command.make_context("dlf", arguments) as context:
            code: int = dlf_command.invoke(context)
            return code
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code
