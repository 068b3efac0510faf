"""List the models that are installed."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

import dlf
from dlf.cli.jobs import tell


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(as_json: bool) -> int:
    """List the models that are installed: the package's, then the user's.

    `--model` takes a name or a role of this list, or a folder.  A .dlf file holds the number.  The user's
    models are the folders in $DLF_MODELS, or else in the user's data folder.
    """
    installed = dlf.models()
    if as_json:
        for model in installed:
            tell(json.dumps({**asdict(model), "folder": str(model.folder)}))
        return 0
    rows = [("model", "number", "roles", "engine", "MB", "folder")]
    rows += [
        (
            model.name,
            str(model.id),
            ", ".join(model.roles),
            model.engine,
            f"{model.file_bytes / 1e6:.1f}",
            str(model.folder),
        )
        for model in installed
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        tell("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0
