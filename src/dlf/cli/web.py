"""Make a folder that decodes files in browsers, from any static host."""

from __future__ import annotations

from pathlib import Path

import click

from dlf.cli.jobs import complain, tell
from dlf.cli.options import PATH
from dlf.errors import reason


@click.command("web", short_help="Make a web site that decodes in the browser.")
@click.option("-o", "--output", type=PATH, required=True, metavar="FOLDER", help="Where the site goes.")
@click.option(
    "--onnxruntime-web", "runtime", type=PATH, metavar="FOLDER",
    help="The npm package onnxruntime-web, or a folder where npm installed it.  [default: npm fetches it]",
)  # fmt: skip
@click.option(
    "--model", "models", multiple=True, metavar="MODEL",
    help="Put only these models on the site.  [default: one for each kind of streams]",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace files of a site that exists.")
def command(output: Path, runtime: Path | None, models: tuple[str, ...], overwrite: bool) -> int:
    """Make a web site that decodes .dlf files in the browser.

    FOLDER then holds a page, a decoder in JavaScript, the models and the runtime of their networks.  Any
    static host serves it; pictures never leave the reader's machine, and nothing is fetched from elsewhere.
    Try it with: python -m http.server --directory FOLDER
    """
    from dlf.codec import bundle
    from dlf.web.runtime import fetched_files, installed_files
    from dlf.web.site import site_files, write_site

    chosen = [bundle.find(model) for model in models] or None
    files = site_files(installed_files(runtime) if runtime else fetched_files(), chosen)
    try:
        site = write_site(output, files, overwrite=overwrite)
    except OSError as error:
        complain(f"{output}: {reason(error)}")
        return 1
    tell(f"{output}: {site.files} files, {site.bytes / 1e6:.1f} MB, models: {', '.join(site.models)}")
    return 0
