"""Habits from other codecs: pipes, formats, options that cannot work, lists, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cli_run import MOCK, Done, draw, run_plain, shell, tree
from dlf.imageio import plugins

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")


@posix
class TestPipes:
    def test_lines_of_a_shell(self, dlf: Callable[..., Done], tmp_path: Path) -> None:
        here = tmp_path / "here"
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        coded = Path("a.dlf").read_bytes()
        for line in (
            "dlf encode a.png -o /dev/stdout",
            "dlf encode a.png /dev/stdout",
            "dlf encode a.png -",
            "cat a.png | dlf encode - -",
            "cat a.png | dlf encode /dev/stdin -o -",
            "dlf encode a.png -o >(cat) --quiet; sleep 0.5",
            "dlf encode a.png -o /dev/fd/7 --quiet 7>&1",
            "dlf encode <(cat a.png) -o -",
            "dlf encode /dev/fd/7 -o - 7<a.png",
            "dlf encode a.png --quiet -o pipe & cat pipe; wait",
            "cat a.png > pipe & dlf encode pipe -o -",
        ):
            if "pipe" in line:
                os.mkfifo("pipe")
            done = shell(line, here)
            assert (done.stdout, done.stderr) == (coded, b""), line
            Path("pipe").unlink(missing_ok=True)
        assert tree() == ["a.dlf", "a.png"]

    def test_what_is_open_is_written_to_and_not_replaced(
        self, dlf: Callable[..., Done], tmp_path: Path
    ) -> None:
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        line = "(echo before; dlf encode a.png -o /dev/stdout; echo after) > all"
        assert shell(line, tmp_path / "here").returncode == 0
        assert Path("all").read_bytes() == b"before\n" + Path("a.dlf").read_bytes() + b"after\n"

    def test_closed_streams(self, dlf: Callable[..., Done], tmp_path: Path) -> None:
        here = tmp_path / "here"
        draw("a.png")
        assert dlf("encode", "a.png", "-o", "right.dlf").code == 0
        for number, line in enumerate(("2>&-", ">&-", "<&-", "<&- >&- 2>&-", "--verbose 2>&-")):
            done = shell(f"dlf encode a.png -o {number}.dlf {line}", here)
            assert done.returncode == 0, line
            assert Path(f"{number}.dlf").read_bytes() == Path("right.dlf").read_bytes()
        done = shell("dlf encode - -o none.dlf <&-", here)
        assert (done.returncode, done.stderr) == (1, b"dlf: -: cannot be read: standard input is closed\n")
        assert shell("dlf encode a.png -o - >&-", here).returncode == 2
        assert shell("dlf info right.dlf >&-", here).returncode == 2
        assert shell("dlf encode nothing.png 2>&-", here).returncode == 1
        assert not Path("none.dlf").exists()


class TestFormat:
    def test_decides_whatever_the_ending(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        for name in ("picture", "picture.dat", "picture.png"):
            assert dlf("decode", "a.dlf", "-o", name, "--format", "webp").code == 0
            with Image.open(name) as image:
                assert image.format == "WEBP"
        assert dlf("decode", "a.dlf", "-o", "picture.dat").code == 2

    def test_every_one_that_is_written(self, dlf: Callable[..., Done]) -> None:
        """By its name and, where no other says it, by the ending of OUT; names that are ours end in it."""
        from dlf.cli.decode import FORMATS
        from dlf.imageio import formats

        assert [each.name for each in formats() if each.writable or each.missing] == list(FORMATS)
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        for each in formats():
            if each.writable:
                assert dlf("decode", "a.dlf", "-o", "out/", "--format", each.name.upper()).code == 0
                for suffix in each.suffixes:
                    assert dlf("decode", "a.dlf", f"by-ending{suffix}").code == 0
                assert (
                    Path("out/a" + each.suffixes[0]).read_bytes() == Path(f"by-ending{suffix}").read_bytes()
                )
                assert dlf("encode", "out/a" + each.suffixes[0], "again.dlf", "--overwrite").code == 0
        refused = dlf("decode", "a.dlf", "--format", "gif")
        assert refused.code == 2
        assert "there is no output format 'gif': it must be one of png, jpeg, webp" in refused.err

    def test_list_of_them(self) -> None:
        rows = [line.split() for line in run_plain("formats").splitlines()[1:]]
        assert ["png", "yes", "yes", ".png"] in rows
        assert ["gif", "yes", "no", ".gif"] in rows
        lines = [json.loads(line) for line in run_plain("formats", "--json").splitlines()]
        assert [line["name"] for line in lines] == [row[0] for row in rows]
        assert lines[0] == {
            "name": "png",
            "suffixes": [".png"],
            "readable": True,
            "writable": True,
            "missing": None,
        }

    def test_its_quality(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        sizes = {}
        for kind in ("jpeg", "webp", "avif"):
            for quality in (5, 95):
                name = f"{quality}.{kind}"
                line = ("decode", "a.dlf", "-o", name, "--format", kind, "--output-quality", quality)
                assert dlf(*line).code == 0
                sizes[kind, quality] = Path(name).stat().st_size
            assert sizes[kind, 5] < sizes[kind, 95]
        assert dlf("decode", "a.dlf", "x.png", "--output-quality", 5) == Done(
            2,
            b"",
            "dlf decode: --output-quality does not apply to png, which is lossless (see dlf decode --help)\n",
        )
        assert dlf("decode", "a.dlf", "x.jpg", "--output-quality", 101).code == 2
        assert not Path("x.png").exists()

    def test_one_whose_plugin_is_missing(
        self, dlf: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Said before the first file is decoded, with the line to type."""
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        plugins.need_jxl.cache_clear()
        monkeypatch.setitem(sys.modules, "pillow_jxl", None)
        done = dlf("decode", "a.dlf", "x.jxl")
        assert done.code == 1
        assert "pip install" in done.err
        assert done.err.count("\n") == 1

    @posix
    def test_of_a_pipe_is_png(self, dlf: Callable[..., Done], tmp_path: Path) -> None:
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        done = shell("dlf decode a.dlf -o >(cat) --quiet; sleep 0.5", tmp_path / "here")
        assert done.stdout.startswith(b"\x89PNG")


class TestOptionsThatCannotWork:
    @pytest.mark.parametrize("option", [("--device", "cuda"), ("--precision", "int8"), ("--compile",)])
    def test_with_the_model(self, dlf: Callable[..., Done], option: tuple[str, ...]) -> None:
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        for command, name in (("encode", "a.png"), ("decode", "a.dlf")):
            done = dlf(command, name, *option, "-o", "x.png")
            assert done.code == 2
            assert f"{option[0]}: the model 'mock' runs on the processor in its own precision" in done.err
        assert tree() == ["a.dlf", "a.png"]

    def test_names_are_those_of_the_engine(self) -> None:
        from dlf.cli import options
        from dlf.codec import engine

        assert options.PRECISIONS == engine.PRECISIONS
        assert options.ENGINES == engine.ENGINES


def test_verbose_says_what_happens(tmp_path: Path, dlf: Callable[..., Done]) -> None:
    draw("d/a.png")
    draw("d/b.dlf.png")
    done = shell("dlf encode -v d", tmp_path / "here")
    assert done.returncode == 0
    said = done.stderr.decode()
    assert "model mock, number 1, in " in said
    assert "left out d/b.dlf.png, the name of a decoded image" in said
    assert f"dlf: d/a.png: wrote {Path('d/a.dlf').stat().st_size} bytes to d/a.dlf\n" in said


def test_a_flaw_is_a_warning_and_strictly_a_reason_to_refuse(dlf: Callable[..., Done]) -> None:
    whole = draw("whole.jpg")
    Path("cut.jpg").write_bytes(whole[:-2])
    assert dlf("encode", "whole.jpg", "--strict").err == ""
    refused = dlf("encode", "cut.jpg", "whole.jpg", "--strict", "--overwrite")
    assert refused.code == 1
    assert not Path("cut.dlf").exists()
    read = dlf("encode", "cut.jpg")
    assert (read.code, read.err.count("\n")) == (0, 1)
    assert read.err.startswith("dlf: cut.jpg: ")
    assert read.err in refused.err
    assert Path("cut.dlf").read_bytes() == Path("whole.dlf").read_bytes()
    assert dlf("encode", "cut.jpg", "--overwrite", "--quiet").err == ""


def test_list_of_models() -> None:
    rows = [line.split() for line in run_plain("models").splitlines()]
    lines = [json.loads(line) for line in run_plain("models", "--json").splitlines()]
    assert rows[0] == ["model", "number", "roles", "engine", "MB", "folder"]
    assert [row[:2] for row in rows[1:]] == [[line["name"], str(line["id"])] for line in lines]
    assert all(Path(line["folder"], "manifest.json").is_file() for line in lines)


def test_completion(tmp_path: Path) -> None:
    """What the line in the help makes the shell ask."""
    env = os.environ | {
        "_DLF_COMPLETE": "bash_complete",
        "COMP_WORDS": "dlf encode --keep-",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(MOCK, env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout.splitlines() == ["plain,--keep-metadata", "plain,--keep-suffix"]
    env |= {"COMP_WORDS": "dlf ", "COMP_CWORD": "1"}
    done = subprocess.run(MOCK, env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "plain,encode" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [("encode", "a.png", "out"), ("encode", "a.png", "a.txt"), ("decode", "a.dlf", "seen.xyz")],
)
def test_a_second_name_that_is_nothing_we_know(
    dlf: Callable[..., Done], command: str, first: str, second: str
) -> None:
    draw("a.png")
    assert dlf("encode", "a.png", "-o", "a.dlf").code == 0
    before = tree()
    done = dlf(command, first, second)
    assert done.code == 2
    assert f"there is no file {second}; if it is to be the output, say -o {second}" in done.err
    assert tree() == before


@posix
def test_names_do_not_work_on_the_terminal(dlf: Callable[..., Done]) -> None:
    name = "a\x1b[31mb\nc\x9b.png"
    draw(name)
    done = dlf("encode", name)
    assert done.code == 0
    assert done.text.startswith(r"a\x1b[31mb\nc\x9b.png -> a\x1b[31mb\nc\x9b.dlf: ")
    again = dlf("encode", name)
    assert again.err.startswith(r"dlf: a\x1b[31mb\nc\x9b.png: a\x1b[31mb\nc\x9b.dlf exists")
