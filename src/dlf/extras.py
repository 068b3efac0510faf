"""Optional dependencies: import one, or say which line installs it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from dlf.errors import MissingExtra


def need(module: str, extra: str) -> ModuleType:
    """Import and return `module`, which the optional dependency group `extra` installs.

    Raises:
        MissingExtra: it is not installed; the message holds the pip line to type.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there, but lacks something of its own
        msg = f"{module} is not installed; run: pip install 'dlf-codec[{extra}]'"
        raise MissingExtra(msg) from error


def loaded(module: str, install: str) -> Any:
    """Import a library that stands on others of a fitting release (torchvision); install: what to type.

    Raises:
        MissingExtra: it is not installed, or does not fit what else is.
    """
    name = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        absent = error.name is None or error.name.partition(".")[0] == name
        reason = "is not installed" if absent else f"does not work here ({first_line(error)})"
    except (ImportError, RuntimeError) as error:
        reason = f"does not work here ({first_line(error)})"
    msg = f"{name} {reason}; run: {install}"
    raise MissingExtra(msg)


def first_line(error: Exception) -> str:
    """First line of what an error says, to be put into another sentence."""
    return str(error).partition("\n")[0].removesuffix(".")
