"""Habits from other codecs: two names, folders, several at a time, pipes, files that are there."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from cli_run import MOCK, Done, runner
from conftest import MockBackend
from dlf.bitstream import container
from dlf.imageio import plugins

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")


@pytest.fixture
def dlf(
    tmp_path: Path,
    write_bundle: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> Callable[..., Done]:
    """The command with a stand-in model, run in tmp_path/here."""
    (tmp_path / "here").mkdir()
    return runner(monkeypatch, capsysbinary, tmp_path / "here", write_bundle(tmp_path / "model"))


def run_plain(*arguments: str) -> str:
    """Standard output of a command that takes no model."""
    done = subprocess.run([*MOCK, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def draw(path: str | Path, colour: str = "teal") -> bytes:
    """Write a small picture; return its bytes."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), colour).save(path)
    return Path(path).read_bytes()


def tree(folder: str | Path = ".") -> list[str]:
    """Files below a folder, by their paths, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def is_stream(path: str | Path) -> bool:
    return container.load(Path(path).read_bytes()).header.width == 64


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `dlf` is the command with the stand-in model."""
    function = f'dlf() {{ "{MOCK[0]}" "{MOCK[1]}" "$@" --model ../model; }}; '
    return subprocess.run(["bash", "-c", function + line], cwd=folder, capture_output=True, timeout=120)


class TestTwoNames:
    def test_the_second_is_the_output_by_its_ending(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        assert dlf("encode", "a.png", "q.dlf").code == 0
        assert is_stream("q.dlf")
        assert dlf("decode", "q.dlf", "seen.webp").code == 0
        assert tree() == ["a.png", "q.dlf", "seen.webp"]
        assert dlf("encode", "a.png", "q.dlf") == Done(
            1, b"", "dlf: a.png: q.dlf exists (--overwrite replaces it)\n"
        )

    def test_or_because_it_is_a_folder(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        Path("out").mkdir()
        assert dlf("encode", "a.png", "out").code == 0
        assert dlf("encode", "a.png", "new/").code == 0
        assert tree() == ["a.png", "new/a.dlf", "out/a.dlf"]

    def test_a_name_of_a_picture_is_an_input(self, dlf: Callable[..., Done]) -> None:
        """Also where nothing is there: a slip of the finger must not become a file."""
        draw("a.png")
        before = draw("b.png", "navy")
        assert dlf("encode", "a.png", "b.png").code == 0
        assert dlf("encode", "a.png", "typo.png", "--overwrite").code == 1
        assert tree() == ["a.dlf", "a.png", "b.dlf", "b.png"]
        assert Path("b.png").read_bytes() == before


class TestFolders:
    def test_what_is_in_it_and_with_r_below(self, dlf: Callable[..., Done]) -> None:
        for name in ("d/a.png", "d/sub/a.png", "d/sub/b.JPG", "d/.hidden/c.png", "d/.c.png"):
            draw(name)
        Path("d/notes.txt").write_text("no picture")
        assert dlf("encode", "d", "-o", "flat").code == 0
        assert tree("flat") == ["a.dlf"]
        done = dlf("encode", "-r", "d", "-o", "deep")
        assert (done.code, done.err) == (0, "")
        assert tree("deep") == ["a.dlf", "sub/a.dlf", "sub/b.dlf"]
        assert [line.split()[0] for line in done.text.splitlines()] == [
            "d/a.png",
            "d/sub/a.png",
            "d/sub/b.JPG",
        ]
        assert dlf("decode", "-r", "deep", "-o", "seen", "--format", "jpeg").code == 0
        assert tree("seen") == ["a.jpg", "sub/a.jpg", "sub/b.jpg"]
        assert dlf("info", "-r", "deep", "--json").text.count("\n") == 3

    def test_an_empty_one_is_said(self, dlf: Callable[..., Done]) -> None:
        draw("d/sub/a.png")
        assert dlf("encode", "d") == Done(
            1, b"", "dlf: the folder d has no file to take (-r looks into the folders below as well)\n"
        )
        assert dlf("decode", "-r", "d") == Done(1, b"", "dlf: the folder d has no file to take\n")

    @posix
    def test_links_to_folders_are_not_followed(self, dlf: Callable[..., Done]) -> None:
        draw("d/a.png")
        Path("d/again").symlink_to(".")
        Path("d/b.png").symlink_to("a.png")
        assert dlf("encode", "-r", "d").code == 0
        assert tree("d") == ["a.dlf", "a.png", "b.dlf", "b.png"]

    def test_one_that_holds_the_outputs_of_before(self, dlf: Callable[..., Done]) -> None:
        """Encoded, decoded and both once more: nothing is coded twice, and no original is written to."""
        pictures = {name: draw(name) for name in ("d/a.png", "d/b.jpg", "d/sub/c.png")}
        assert dlf("encode", "-r", "d").code == 0
        assert dlf("decode", "-r", "d").code == 0
        whole = tree("d")
        assert whole == [
            *("a.dlf", "a.dlf.png", "a.png", "b.dlf", "b.dlf.png", "b.jpg"),
            *("sub/c.dlf", "sub/c.dlf.png", "sub/c.png"),
        ]
        for command in ("encode", "decode"):
            done = dlf(command, "-r", "d", "--skip-existing")
            assert (done.code, done.err, done.text.count("skipped")) == (0, "", 3)
            assert dlf(command, "-r", "d", "--overwrite").code == 0
            assert dlf(command, "-r", "d").err.count(" exists (") == 3
        assert tree("d") == whole
        assert {name: Path(name).read_bytes() for name in pictures} == pictures

    def test_results_in_a_folder_inside(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        for _ in range(2):
            assert dlf("encode", "-r", ".", "-o", "coded", "--overwrite").code == 0
            assert dlf("decode", "-r", ".", "-o", "seen", "--overwrite").code == 0
        assert tree() == ["a.png", "coded/a.dlf", "seen/coded/a.dlf.png"]


class TestNames:
    def test_one_stem_and_two_endings(self, dlf: Callable[..., Done]) -> None:
        draw("e/a.png")
        draw("e/a.jpg")
        done = dlf("encode", "e/a.png", "e/a.jpg", "-o", "out")
        assert done.code == 2
        assert "would both be written to out/a.dlf (--keep-suffix tells them apart)" in done.err
        assert dlf("encode", "e/a.png", "e/a.jpg", "-o", "out", "--keep-suffix").code == 0
        assert dlf("encode", "e", "--keep-suffix").code == 0
        assert tree() == [
            *("e/a.jpg", "e/a.jpg.dlf", "e/a.png", "e/a.png.dlf"),
            *("out/a.jpg.dlf", "out/a.png.dlf"),
        ]
        assert dlf("decode", "out", "-o", "seen").code == 0
        assert tree("seen") == ["a.jpg.png", "a.png.png"]

    def test_one_name_in_two_folders(self, dlf: Callable[..., Done]) -> None:
        draw("e/one/a.png")
        draw("e/two/a.png")
        done = dlf("encode", "e/one/a.png", "e/two/a.png", "-o", "out")
        assert done.code == 2
        assert "give their folder instead, with -r" in done.err
        assert dlf("encode", "-r", "e", "-o", "out").code == 0
        assert tree("out") == ["one/a.dlf", "two/a.dlf"]

    def test_one_input_named_twice_is_one(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        assert dlf("encode", "a.png", "./a.png", "a.png", "-o", "a.dlf").text.count("\n") == 1
        draw("d/b.png")
        assert dlf("encode", "d", "d/b.png", "-o", "out").text.count("\n") == 1

    def test_a_coded_file_is_not_coded(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        assert dlf("encode", "a.png").code == 0
        done = dlf("encode", "a.dlf")
        assert done.code == 2
        assert "a.dlf is a .dlf file already: dlf decode makes an image of it" in done.err

    @posix
    def test_names_that_are_no_text_or_look_like_options(self, dlf: Callable[..., Done]) -> None:
        strange = os.fsdecode(b"\xff\n .")
        for name in (f"{strange}png", "-q.png"):
            draw(name)
        done = dlf("encode", "--json", "--", f"{strange}png", "-q.png")
        assert [json.loads(line)["output"] for line in done.text.splitlines()] == [f"{strange}dlf", "-q.dlf"]
        assert rb"\udcff\n .dlf: " in dlf("decode", f"{strange}dlf").out.replace(b" -> ", b": ")

    def test_decoding_never_aims_at_the_original(self, dlf: Callable[..., Done]) -> None:
        before = draw("keep.png")
        draw("other.jpg")
        assert dlf("encode", "keep.png", "other.jpg").code == 0
        for _ in range(2):
            assert dlf("decode", "keep.dlf", "other.dlf", "--overwrite").code == 0
        assert tree() == [
            *("keep.dlf", "keep.dlf.png", "keep.png"),
            *("other.dlf", "other.dlf.png", "other.jpg", "other.png"),
        ]
        done = dlf("decode", "keep.dlf")
        assert (done.code, done.out) == (1, b"")
        assert "overwrite" not in done.err
        Path("coded").mkdir()
        Path("keep.dlf").rename("coded/keep.dlf")
        assert dlf("decode", "coded/keep.dlf", "-o", ".") == Done(
            1, b"", "dlf: coded/keep.dlf: keep.png exists (-o names another place)\n"
        )
        assert Path("keep.png").read_bytes() == before

    @posix
    @pytest.mark.parametrize("letter", ["x", "ü"])
    def test_as_long_as_the_file_system_allows(self, dlf: Callable[..., Done], letter: str) -> None:
        stem = letter * (251 // len(letter.encode()))
        draw("a.png")
        Path("a.png").rename(f"{stem}.png")
        assert dlf("encode", f"{stem}.png").code == 0
        assert dlf("encode", f"{stem}.png", "--overwrite").code == 0
        assert dlf("decode", f"{stem}.dlf", "-o", "seen/").code == 0
        assert tree() == sorted([f"{stem}.dlf", f"{stem}.png", f"seen/{stem}.png"])
        longer = dlf("encode", f"{stem}.png", "--keep-suffix")
        assert longer.code == 1
        assert f"cannot write {stem}.png.dlf: File name too long" in longer.err
        assert dlf("encode", "y" * 300).code == 1


class TestWhatIsThere:
    def test_skip_existing(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        draw("b.png")
        Path("a.dlf").write_bytes(b"mine")
        first, second = map(
            json.loads, dlf("encode", "a.png", "b.png", "--skip-existing", "--json").text.splitlines()
        )
        assert first == {"input": "a.png", "output": "a.dlf", "skipped": True}
        assert second["bytes"] == Path("b.dlf").stat().st_size
        assert Path("a.dlf").read_bytes() == b"mine"
        assert dlf("encode", "a.png", "--skip-existing", "--overwrite").code == 2

    @posix
    def test_permissions_are_kept(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        Path("a.dlf").write_bytes(b"old")
        Path("a.dlf").chmod(0o604)
        assert dlf("encode", "a.png", "--overwrite").code == 0
        assert stat.S_IMODE(Path("a.dlf").stat().st_mode) == 0o604
        assert is_stream("a.dlf")

    @posix
    def test_a_link_stays_and_its_target_is_written(self, dlf: Callable[..., Done]) -> None:
        draw("a.png")
        Path("far").mkdir()
        Path("link.dlf").symlink_to("far/real.dlf")
        assert "link.dlf exists" in dlf("encode", "a.png", "-o", "link.dlf").err
        for _ in range(2):  # a link to nowhere, then one to a file
            assert dlf("encode", "a.png", "-o", "link.dlf", "--overwrite").code == 0
            assert Path("link.dlf").is_symlink()
            assert is_stream("far/real.dlf")
        assert tree() == ["a.png", "far/real.dlf", "link.dlf"]


class TestSeveralAtATime:
    def test_results_are_the_same_and_in_order(self, dlf: Callable[..., Done]) -> None:
        for number in range(7):
            draw(f"d/{number}.png", f"#{number:02x}4080")
        Path("d/3.png").write_bytes(b"nothing")
        one, three = dlf("encode", "d", "-o", "one"), dlf("encode", "d", "-o", "three", "--jobs", 3)
        assert (one.code, three.code) == (1, 1)
        assert one.err == three.err
        lines = [[line.split(", ")[0].split()[0] for line in done.text.splitlines()] for done in (one, three)]
        assert lines[0] == lines[1] == [f"d/{number}.png" for number in (0, 1, 2, 4, 5, 6)]
        for name in tree("one"):
            assert Path("one", name).read_bytes() == Path("three", name).read_bytes()
        assert tree("one") == tree("three")

    def test_no_more_at_once_than_asked_for(
        self, dlf: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running, most, lock = [0], [0], threading.Lock()
        whole = MockBackend.analyse

        def analyse(self: MockBackend, *args: object) -> object:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.05)
            with lock:
                running[0] -= 1
            return whole(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(MockBackend, "analyse", analyse)
        for number in range(8):
            draw(f"d/{number}.png")
        assert dlf("encode", "d", "--jobs", 2).code == 0
        assert most == [2]

    def test_ctrl_c_leaves_nothing_half_written(
        self, dlf: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = MockBackend.analyse
        done = []

        def analyse(self: MockBackend, *args: object) -> object:
            done.append(1)
            if len(done) == 3:
                raise KeyboardInterrupt
            return whole(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(MockBackend, "analyse", analyse)
        for number in range(20):
            draw(f"d/{number:02}.png")
        interrupted = dlf("encode", "d", "-o", "out", "--jobs", 2)
        assert (interrupted.code, interrupted.err) == (130, "dlf: interrupted\n")
        assert 0 < len(tree("out")) < 20
        assert all(is_stream(Path("out", name)) for name in tree("out"))

    @posix
    @pytest.mark.parametrize("jobs", ["1", "2"])
    def test_neither_does_the_end_of_a_batch(
        self, tmp_path: Path, write_bundle: Callable[[Path], Path], jobs: str
    ) -> None:
        """SIGTERM comes from `timeout` and from batch systems, here while a file is being written."""
        draw(tmp_path / "d/a.png")
        draw(tmp_path / "d/b.png")
        script = """
import os, runpy, signal, sys, time
def fsync(_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
os.fsync = fsync
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
        model = str(write_bundle(tmp_path / "model"))
        arguments = ["encode", "--model", model, "d", "-o", "out", "--jobs", jobs]
        done = subprocess.run(
            [sys.executable, "-c", script, MOCK[1], *arguments], capture_output=True, cwd=tmp_path, timeout=60
        )
        assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")
        assert all(is_stream(tmp_path / "out" / name) for name in tree(tmp_path / "out"))


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
