"""What mkdocs does to our pages, named as `hooks` in mkdocs.yml.

- README.md, CONTRIBUTING.md and CHANGELOG.md become pages, so that no text stands in two places; links
  between them and the files in docs/ are turned to fit.
- A link whose text is the name of a page gets the page's title.
- The line ``<!-- help of every command -->`` becomes a section for each, with what its ``--help`` prints.
- The line ``<!-- modules -->`` becomes a list of all modules, with the first line of each.
- A site of which a page would fetch anything from another host is an error.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
COLUMNS = 80  # of the help texts: what fits the page
SEE_ALSO = {
    "dlf batch": "batch",
    "dlf serve": "service",
    "dlf eval": "evaluation",
    "dlf web": "browser",
    "dlf train": "training",
    "dlf plan": "one_gpu",
    "dlf export": "training",
    "dlf weights import": "paper_size",
}
"""Pages that say more about a command."""

# a link that a browser follows by itself, without a click
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon))[^>]*?\bhref=["']?((?:https?:)?//[^"'\s>]+)""",
    re.IGNORECASE,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are files of the repository's root."""
    for name, page in ROOT_PAGES.items():
        text = (ROOT / name).read_text("utf-8")
        text = re.sub(r"(\[|\]\()docs/(\w+\.md)", r"\1\2", text).replace("](docs/", "](")
        files.append(File.generated(config, page, content=link_root_files(text, "")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Turn links to files of the root, name pages by their titles, and print the help of commands."""
    text = link_root_files(link_root_files(markdown, r"\.\./"), "")
    text = re.sub(r"\[(\w+)\.md\]\(\1\.md", lambda link: f"[{title(link[1])}]({link[1]}.md", text)
    for marker, write in WRITTEN.items():
        if marker in text:
            text = text.replace(marker, write())
    return text


def link_root_files(text: str, prefix: str) -> str:
    """Links to README.md and its like lead to their pages; other files of the root have none."""
    for name, page in ROOT_PAGES.items():
        text = re.sub(rf"\]\({prefix}{re.escape(name)}", f"]({page}", text)
    return re.sub(rf"\[([^\]]+)\]\({prefix}(?:NOTICE|LICENSE|SECURITY\.md|CITATION\.cff)\)", r"\1", text)


def title(page: str) -> str:
    """The heading of a page in docs/."""
    return (ROOT / "docs" / f"{page}.md").read_text("utf-8").partition("\n")[0].removeprefix("# ")


def help_of_all() -> str:
    """A section for every command, with what its ``--help`` prints."""
    sys.path.insert(0, str(ROOT / "src"))
    from dlf.cli.main import dlf_command

    context = click.Context(
        dlf_command, info_name="dlf", terminal_width=COLUMNS, **dlf_command.context_settings
    )
    return "\n\n".join(sections(dlf_command, context))


def sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """The section of a command, and those of its subcommands."""
    path = context.command_path
    more = f"See also [{title(SEE_ALSO[path])}]({SEE_ALSO[path]}.md).\n\n" if path in SEE_ALSO else ""
    level = "###" if path.count(" ") > 1 else "##"
    yield f"{level} {path}\n\n{more}```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from sections(below, click.Context(below, parent=context, info_name=name))


def list_of_modules() -> str:
    """A table for each folder of the package."""
    source = ROOT / "src" / "dlf"
    tables = []
    for folder in (source, *sorted(path.parent for path in source.rglob("*/__init__.py"))):
        rows = [
            f"| `{path.name}` | {first_line(path)} |"
            for path in sorted(folder.glob("*.py"))
            if path.stem[0] != "_"
        ]
        name = folder.relative_to(ROOT / "src").as_posix()
        head = f"## {name}\n\n{first_line(folder / '__init__.py')}\n\n"
        tables.append(head + ("| module | |\n|---|---|\n" + "\n".join(rows) if rows else ""))
    return "\n\n".join(tables)


def first_line(path: Path) -> str:
    """Of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


WRITTEN = {"<!-- help of every command -->": help_of_all, "<!-- modules -->": list_of_modules}
"""Lines of pages, and what they become."""


def on_post_build(config: MkDocsConfig) -> None:
    """Fail if a page fetches something from another host when it is read."""
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        if match := FETCHED.search(path.read_text("utf-8")):
            msg = f"{path.relative_to(config.site_dir)} fetches {match[1] or match[2]}"
            raise PluginError(msg)
