"""What README and docs/ tell people to type does what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name

import pytest
from PIL import Image

from tool_modules import load_tool

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "tests" / "data" / "astronaut.jpg"
DOCS = ROOT / "docs"
TUTORIAL_PICTURES = ("row", "bits", "parts")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def blocks(path: Path, *languages: str) -> Iterator[tuple[str, str]]:
    """Language and text of each code block of these languages, in order."""
    fences = rf"^```({'|'.join(languages)})\n(.*?)^```"
    for match in re.finditer(fences, path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        yield match[1], match[2]


def section(path: Path, heading: str) -> str:
    """A section of a page, up to the next heading of its level."""
    _, found, rest = path.read_text("utf-8").partition(f"\n## {heading}\n")
    assert found, f"{path.name} has no section '{heading}'"
    return rest.partition("\n## ")[0]


GENERATED = {"index.md", "contributing.md", "changelog.md"}  # by tools/site_hooks.py


def pages() -> list[Path]:
    return [
        *sorted(DOCS.glob("*.md")),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]


def without_code(path: Path) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def headings(path: Path) -> list[str]:
    return re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.M), re.M
    )


def anchor(heading: str) -> str:
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", words)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the photos that the pages name."""
    with Image.open(PHOTO) as image:
        small = image.convert("RGB").resize((256, 256))
    for name in ("photo", "a", "b"):
        small.save(tmp_path / f"{name}.jpg")
    shutil.copy(PHOTO, tmp_path / "astronaut.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(script: str, folder: Path) -> str:
    """Run lines of a page as they stand, with `dlf` from this checkout; return what they print."""
    function = f'dlf() {{ "{sys.executable}" -m dlf "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", function + script], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"DLF_MODELS": str(folder / "no-models")}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(path: Path) -> dict[str, object]:
    """Run the blocks of a page one after the other; returns the names that they define."""
    names: dict[str, object] = {}
    for _, code in blocks(path, "python"):
        exec(code, names)  # our own page
    return names


def test_python_of_the_readme(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_python(ROOT / "README.md")
    assert "width=256" in capsys.readouterr().out
    assert isinstance(names["image"], Image.Image)
    assert names["image"].size == (256, 256)
    assert [bytes(file[:3]) for file in names["files"]] == [b"DLF", b"DLF"]  # type: ignore[attr-defined]


def test_python_of_the_quick_start(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_python(DOCS / "quickstart.md")
    assert 0.01 < float(capsys.readouterr().out) < 0.1


def test_python_of_the_reference(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_python(DOCS / "api.md")
    assert "checksum" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(("page", "heading"), [("README.md", "Use"), ("docs/quickstart.md", "Commands")])
def test_commands_of_the_pages(page: str, heading: str, photos: Path) -> None:
    script = "".join(re.findall(r"```sh\n(.*?)```", section(ROOT / page, heading), re.DOTALL))
    assert script.count("dlf ") >= 5
    run_shell(script, photos)
    assert (photos / "photo.dlf").read_bytes()[:3] == b"DLF"


def same_output(told: str, printed: str) -> bool:
    """Equal but for numbers, which may differ by 5 %: another processor may round a symbol otherwise."""
    numbers = zip(NUMBER.findall(told), NUMBER.findall(printed), strict=False)
    near = all(abs(float(a) - float(b)) <= 0.05 * float(a) for a, b in numbers)
    return near and NUMBER.sub("#", told).split() == NUMBER.sub("#", printed).split()


def test_output_is_compared() -> None:
    assert same_output("4 of 1000\n", "4 of  1001\n")
    assert not same_output("4 of 1000", "4 in 1000")
    assert not same_output("4 of 1000", "4 of 1100")
    assert not same_output("4 of 1000", "4 of 1000 10")


def test_tutorial(photos: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    """Every block runs and prints what the page says; --regenerate-golden renews the pictures."""
    names: dict[str, object] = {}
    printed, shown = "", 0
    for language, text in blocks(DOCS / "tutorial.md", "python", "text"):
        if language == "python":
            exec(text, names)  # our own page
            printed = capsys.readouterr().out
        else:
            assert same_output(text, printed), printed
            shown += 1
    assert shown >= 5
    for name in TUTORIAL_PICTURES:
        committed = DOCS / "images" / f"tutorial_{name}.jpg"
        if request.config.getoption("--regenerate-golden"):
            shutil.copy(photos / f"{name}.jpg", committed)
        with Image.open(photos / f"{name}.jpg") as made, Image.open(committed) as there:
            assert made.size == there.size


def test_pages_link_to_what_exists() -> None:
    """Files and headings; mkdocs sees the pages of docs/ only, and only where it is installed."""
    anchors = {path: set(map(anchor, headings(path))) for path in pages()}
    for path in pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path)):
            if target.startswith(("http://", "https://")):
                continue
            name, _, fragment = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            assert file.exists() or file.name in GENERATED, f"{path.name} links to {target}"
            if fragment and file in anchors:
                assert fragment in anchors[file], f"{path.name} links to {target}"


NAMED_FILE = re.compile(r"`([\w./-]+/[\w./-]+\.(?:py|yaml|json|csv|md|bin|jpg|cff))`")
FOLDERS = ("", "src/dlf", "src", "docs", "configs")  # that names on the pages are relative to
NOT_OURS = re.compile(r"^(?:runs|OUT|report|assets)/")


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_files_that_a_page_names_are_there(path: Path) -> None:
    for name in NAMED_FILE.findall(path.read_text("utf-8")):
        there = any((ROOT / folder / name).exists() for folder in FOLDERS)
        assert there or NOT_OURS.match(name), f"{path.name} names {name}"


NAMED_CODE = re.compile(r"`([\w/]+\.py)`((?:,? `\w+(?:\.(?!py`)\w+)*`)+)")


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_code_that_a_page_names_is_in_its_file(path: Path) -> None:
    """As in: `nn/vq.py` `VectorQuantizer`."""
    for file, names in NAMED_CODE.findall(path.read_text("utf-8")):
        code = next(folder / file for folder in map(ROOT.joinpath, FOLDERS) if (folder / file).exists())
        for name in re.findall(r"\w+", names):
            assert re.search(rf"\b{name}\b", code.read_text("utf-8")), f"{path.name}: {name} of {file}"


@pytest.mark.parametrize("heading", ["4. One encode", "5. One decode"])
def test_the_walks_of_the_architecture_name_what_is_there(heading: str) -> None:
    names = re.findall(
        r"\b(?:api|bitstream|cli|codec|files|geometry|imageio)(?:\.\w+)+",
        section(DOCS / "architecture.md", heading),
    )
    assert len(names) >= 5
    for name in names:
        resolve_name(f"dlf.{name}")  # raises if a part of it is not there


COMMAND = re.compile(
    r"(?:^|`|&& |\| |-m )dlf ([a-z]+(?: (?:import|split|recover|encode|decode)\b)?)([^\n`|&#;]*)",
    re.MULTILINE,
)
OPTION = re.compile(r"(?<=\s)(--[a-z][\w-]*|-[a-zA-Z])(?=[\s=]|$)")


@lru_cache
def help_of(command: str) -> str:
    line = [sys.executable, "-m", "dlf", *command.split(), "--help"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"there is no command 'dlf {command}'"
    return done.stdout


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_options_that_a_page_names_are_there(path: Path) -> None:
    text = path.read_text("utf-8").replace("\\\n", " ")
    text = re.sub(r"(`[^`\n]*)\n([^`\n]*`)", r"\1 \2", text)  # code that wraps
    for command, rest in COMMAND.findall(text):
        for option in OPTION.findall(rest):
            assert re.search(rf"(?<![\w-]){option}\b", help_of(command)), (
                f"{path.name}: dlf {command} {option}"
            )


@pytest.mark.parametrize(("tag", "refused"), [
    ('<script src="https://example.org/a.js"></script>', True),
    ('<link rel="stylesheet" href="https://example.org/a.css">', True),
    ('<img alt="" src=//example.org/a.png>', True),
    ('<a href="https://example.org">there</a>', False),
    ('<script src="assets/a.js"></script>', False),
])  # fmt: skip
def test_pages_that_fetch_are_refused(tag: str, refused: bool, fetched: Callable[[str], bool]) -> None:
    assert fetched(tag) == refused


@pytest.fixture
def fetched() -> Callable[[str], bool]:
    pytest.importorskip("mkdocs")
    module = load_tool("site_hooks")
    return lambda text: module.FETCHED.search(text) is not None
