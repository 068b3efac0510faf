"""List the models that are installed, and check their files."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

import dlf
from dlf.cli.jobs import tell


@click.command("models")
@click.option("--check", is_flag=True, help="Check every file, and that what decides symbols is exact.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(check: bool, as_json: bool) -> int:
    """List the models that are installed: the package's, then the user's.

    `--model` takes a name or a role of this list, or a folder.  A .dlf file holds the number.  The user's
    models are the folders in $DLF_MODELS, or else in the user's data folder.

    --check hashes all files and proves that no number in the networks that decide symbols can reach 2^24,
    below which float32 never rounds.
    """
    installed = dlf.models()
    verdicts = [_verdict(model) if check else {} for model in installed]
    if as_json:
        for model, verdict in zip(installed, verdicts, strict=True):
            tell(json.dumps({**asdict(model), "folder": str(model.folder), **verdict}))
    else:
        _show(installed, verdicts)
    return int(any(verdict.get("error") for verdict in verdicts))


def _verdict(model: dlf.InstalledModel) -> dict[str, object]:
    """Return what a check of a model found out: the largest numbers of its networks, or an error."""
    from dlf.codec.bundle import ModelBundle
    from dlf.codec.exactness import check_model

    try:
        checked = check_model(ModelBundle.open(model.folder))
    except dlf.BundleError as error:
        return {"error": str(error)}
    return {"error": None, "largest_in_prior": checked.prior, "largest_in_context": checked.context}


def _show(installed: tuple[dlf.InstalledModel, ...], verdicts: list[dict[str, object]]) -> None:
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
    for model, verdict in zip(installed, verdicts, strict=True):
        if verdict:
            tell(f"{model.name}: {_sentence(verdict)}")


def _sentence(verdict: dict[str, object]) -> str:
    if verdict["error"] is not None:
        return str(verdict["error"])
    if verdict["largest_in_prior"] is None:
        return "the files are whole; what decides symbols is checked in every file instead of proved"
    largest = f"{verdict['largest_in_prior']:,} and {verdict['largest_in_context']:,}"
    return (
        f"the files are whole; no number in prior and context network is above {largest} (limit 16,777,216)"
    )
