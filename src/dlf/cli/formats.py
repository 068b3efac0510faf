"""List the formats of images that can be read and written here."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from dlf.cli.jobs import tell


@click.command("formats")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(as_json: bool) -> int:
    """List the formats of images that can be read and written here.

    The first column holds the names that `dlf decode --format` knows, as far as a format is written.
    """
    from dlf.imageio import formats

    supported = formats()
    if as_json:
        for each in supported:
            tell(json.dumps(asdict(each)))
        return 0
    tell(f"{'format':<10} {'read':<5} {'write':<6} endings")
    for each in supported:
        read, write = ("yes" if can else "no" for can in (each.readable, each.writable))
        missing = "" if each.missing is None else f"  ({each.missing})"
        tell(f"{each.name:<10} {read:<5} {write:<6} {' '.join(each.suffixes)}{missing}".rstrip())
    return 0
