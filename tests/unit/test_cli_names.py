"""Names on the command line: two of them, folders, odd ones, files that are there, several at a time."""

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

from cli_run import MOCK, Done, draw, is_stream, tree
from conftest import MockBackend

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")


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
