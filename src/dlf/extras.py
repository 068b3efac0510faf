"""Optional dependencies: import one, or say which line installs it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

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
