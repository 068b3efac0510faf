"""A codec among threads and processes, and as a guest that leaves its host alone."""

from __future__ import annotations

import copy
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

import dlf
from dlf.codec import bundle
from shipped_models import needs_models

pytestmark = needs_models

RGB = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
PATH = os.pathsep.join(sys.path)
ENDS = 120  # seconds, after which a process that hangs is ended


def run(code: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, which must end well and say nothing."""
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": PATH} | environment,
        capture_output=True,
        text=True,
        timeout=ENDS,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return done


@pytest.fixture(scope="module")
def used() -> dlf.Codec:
    codec = dlf.Codec(threads=2, max_pixels=3000, engine=dlf.EngineOptions(threads=1))
    codec.decode(codec.encode(RGB))
    return codec


@pytest.mark.parametrize(
    "again",
    [lambda codec: pickle.loads(pickle.dumps(codec)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deep"],
)
def test_a_used_codec_can_be_copied(again: object, used: dlf.Codec) -> None:
    copied = again(used)  # type: ignore[operator]
    data = copied.encode(RGB)
    assert data == used.encode(RGB)
    assert copied.decode(data) == used.decode(data)
    with pytest.raises(dlf.LimitExceeded):
        copied.encode(np.zeros((60, 51, 3), np.uint8))
    assert len(pickle.dumps(used)) < 10_000


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_used_codec_goes_to_other_processes(method: str, tmp_path: Path) -> None:
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    code = f"""
        import multiprocessing, pickle, sys
        import numpy, dlf

        if __name__ == "__main__":
            rgb = numpy.arange(6000, dtype=numpy.uint8).reshape(40, 50, 3)
            codec = dlf.Codec(threads=2)
            data = codec.encode(rgb)
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                assert pool.map(codec.encode, [rgb] * 4) == [data] * 4
                assert pool.map(codec.decode, [data] * 2) == [codec.decode(data)] * 2
    """
    (tmp_path / "main.py").write_text(textwrap.dedent(code))  # which processes that are spawned read again
    run(f"import runpy; runpy.run_path({str(tmp_path / 'main.py')!r}, run_name='__main__')")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("end", ["sys.exit", "os._exit"])
def test_a_used_codec_survives_a_fork(end: str) -> None:
    """In parent and child, and the child comes to its end."""
    run(f"""
        import os, sys, warnings
        import numpy, dlf

        warnings.simplefilter("ignore")  # some Pythons warn of every fork beside threads
        rgb = numpy.arange(6000, dtype=numpy.uint8).reshape(40, 50, 3)
        codec, small = dlf.Codec(threads=2), dlf.Codec(threads=1)
        data, image = codec.encode(rgb), codec.decode(small.encode(rgb))
        child = os.fork()
        assert codec.encode(rgb) == small.encode(rgb) == dlf.encode(rgb) == data
        assert codec.decode(data) == image
        if child:
            assert os.waitpid(child, 0)[1] == 0
        else:
            {end}(0)
    """)


@pytest.mark.torch
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_used_codec_of_torch_survives_a_fork(tmp_path: Path) -> None:
    """The child has one thread, and may round differently."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    run(f"""
        import os, pathlib, sys, warnings
        import dlf, numpy
        from dlf.bundles.bundle_writer import BundleSpec
        from dlf.bundles.torch_bundle import write_torch_bundle
        from dlf.nn.build import TINY_L
        from dlf.nn.model import Dlf

        warnings.simplefilter("ignore")
        folder = pathlib.Path({str(tmp_path)!r})
        write_torch_bundle(TINY_L, Dlf(TINY_L).state_dict().__getitem__, folder, BundleSpec("x", 99))
        rgb = numpy.arange(6000, dtype=numpy.uint8).reshape(40, 50, 3)
        codec = dlf.Codec(folder, threads=2)
        data = codec.encode(rgb)
        before = codec.decode(data)
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        after = codec.decode(data)
        assert numpy.abs(numpy.asarray(before, int) - numpy.asarray(after, int)).max() <= 1
        sys.exit(0)
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_in_the_middle_of_loading() -> None:
    run("""
        import os, threading, warnings
        import numpy, dlf
        from dlf.codec.bundle import ModelBundle

        warnings.simplefilter("ignore")
        rgb = numpy.arange(6000, dtype=numpy.uint8).reshape(40, 50, 3)
        read, reading, forked = ModelBundle.read, threading.Event(), threading.Event()

        def slow(self, name):
            if name == "analysis.onnx":
                reading.set()
                assert forked.wait(60)
            return read(self, name)

        ModelBundle.read = slow
        codec = dlf.Codec(threads=1)
        thread = threading.Thread(target=codec.encode, args=(rgb,))
        thread.start()
        assert reading.wait(60)
        child = os.fork()
        forked.set()
        data = codec.encode(rgb)
        if child:
            thread.join()
            assert os.waitpid(child, 0)[1] == 0
        else:
            os._exit(data != dlf.encode(rgb))
    """)


def test_two_threads_may_be_the_first_to_use_a_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, start = dlf.Codec(threads=1), Barrier(4)
    built: list[str] = []
    read = bundle.ModelBundle.read

    def counted(self: bundle.ModelBundle, name: str) -> bytes:
        built.append(name)
        return read(self, name)

    monkeypatch.setattr(bundle.ModelBundle, "read", counted)

    def work(_: int) -> tuple[bytes, np.ndarray]:
        start.wait()
        data = codec.encode(RGB)
        return data, np.asarray(codec.decode(data))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert [built.count(name) for name in bundle.GRAPHS] == [1, 1, 1, 1]
    expected = dlf.encode(RGB)
    assert all(data == expected for data, _ in results)
    assert all((image == results[0][1]).all() for _, image in results)


USE = """
    import os, sys
    import numpy, dlf

    before = dict(os.environ)
    codec = dlf.Codec(engine=dlf.EngineOptions(engine=os.environ.get("ENGINE", "auto")))
    codec.decode(codec.encode(numpy.zeros((40, 50, 3), numpy.uint8)))
    assert os.environ == before
    assert os.environ.get("ORT_DISABLE_TELEMETRY") == os.environ.get("EXPECTED")
"""


with_each_engine = pytest.mark.parametrize(
    "engine",
    [
        "onnxruntime",
        pytest.param(
            "openvino",
            marks=pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed"),
        ),
    ],
)


@with_each_engine
def test_nothing_is_written_below_the_home_folder(engine: str, tmp_path: Path) -> None:
    run(
        USE,
        ENGINE=engine,
        HOME=str(tmp_path),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert list(tmp_path.iterdir()) == []


def test_what_the_host_says_about_telemetry_stays() -> None:
    run(USE, ORT_DISABLE_TELEMETRY="0", EXPECTED="0")


def test_a_home_folder_that_cannot_be_written_is_no_matter(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        run(USE, HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    finally:
        tmp_path.chmod(0o700)
    (tmp_path / "file").touch()  # not even the superuser can write below it
    run(USE, HOME=str(tmp_path / "file"), PYTHONDONTWRITEBYTECODE="1")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@with_each_engine
def test_no_host_is_looked_up(engine: str, tmp_path: Path) -> None:
    """No socket of the internet is opened, no name server is asked, and nothing but pipes is written to."""
    trace = tmp_path / "trace"
    calls = "trace=socket,connect,sendto,sendmsg,openat,open,creat,mkdir,mkdirat,rename,unlink"
    home = tmp_path / "home"
    home.mkdir()
    command = ("strace", "-f", "-qq", "-o", str(trace), "-e", calls)
    run(USE, *command, ENGINE=engine, HOME=str(home), PYTHONDONTWRITEBYTECODE="1")
    seen = trace.read_text()
    assert "openat(" in seen
    assert not re.findall(r"AF_INET.*|.*resolv\.conf.*", seen)
    written = re.findall(r'open(?:at)?\((?:AT_FDCWD, )?"([^"]*)", [A-Z_|]*O_(?:WRONLY|RDWR|CREAT)', seen)
    assert {path for path in written if not path.startswith(("/dev/", "/proc/"))} == set()
    assert not re.findall(r"^\d+ +(?:mkdir|creat|rename|unlink).* = 0$", seen, re.MULTILINE)
