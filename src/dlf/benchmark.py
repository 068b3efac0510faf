"""How fast this machine encodes and decodes, and in how much memory: what ``dlf bench`` prints.

A time means little on a machine that does other things as well, or is not described.  So everything is timed
by turns with a product of two 2048x2048 float32 matrices, and given as a multiple of it too, and beside the
time by the clock stands the time of the processors, which other programs hardly change.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlf.bitstream import container
from dlf.codec import bundle
from dlf.codec.backend import Backend
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import EngineOptions, make_backend
from dlf.codec.machine import Machine
from dlf.errors import DlfError
from dlf.imageio import Source, load_rgb
from dlf.records import UInt8

PRODUCT_SIDE = 2048
"""Rows and columns of the matrices that everything is compared with."""

NETWORKS = {
    "analyse": "analysis",
    "prior": "prior and context",
    "context": "prior and context",
    "synthesise": "synthesis",
}
"""Stage of `Row.stages` that each method of a backend belongs to; what is left is "coding"."""


_NAP = 0.02  # seconds


class BenchmarkError(DlfError):
    """Something that was to be measured did not run."""


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock and of the processors, all threads together."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Row:
    """One direction of one model on one size of image, in a process that keeps running.

    task: "encode" or "decode".  first: of the first image, with loading the model; the rest are medians.
    product: a matrix product, timed by turns with it.  stages: of it, see `NETWORKS`.
    operators: seconds of each kind of operator, if they were asked for, by network.
    """

    task: str
    model: str
    width: int
    height: int
    threads: int | None
    bytes: int
    first: Spent
    median: Spent
    product: Spent
    stages: dict[str, Spent]
    operators: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def products(self) -> float:
        """Matrix products that take as much processor time."""
        return self.median.processor / self.product.processor


@dataclass(frozen=True)
class ProcessRow:
    """One whole process: ours, or an encoder or decoder of another format.

    program: such as "dlf" or "cwebp".  peak: bytes of memory at most; None where the system does not tell.
    bytes: of the file on its way.
    """

    program: str
    task: str
    model: str
    width: int
    height: int
    bytes: int
    median: Spent
    peak: int | None


@dataclass(frozen=True)
class Settings:
    """What is measured: each model at each size with each number of threads.

    engine: see `EngineOptions`.  repeats: runs after the first; at least 1.
    operators: profile each network once more, after all else.
    """

    models: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    threads: tuple[int | None, ...] = (None,)
    engine: str = "onnxruntime"
    quality: int = 50
    repeats: int = 5
    operators: bool = False


def made_up(width: int, height: int) -> UInt8:
    """Return a picture that is smooth with a little noise, the same each time, uint8 (height, width, 3)."""
    rng = np.random.default_rng(0)
    rows, cols = np.linspace(0, 9, height, dtype=np.float32), np.linspace(0, 9, width, dtype=np.float32)
    waves = np.sin(rows)[:, None, None] * np.cos(cols)[None, :, None] * np.array([90, 70, 50], np.float32)
    noise = rng.standard_normal((height, width, 1), np.float32) * 9
    return np.clip(128 + waves + noise, 0, 255).astype(np.uint8)


def picture(source: Source | None, width: int, height: int) -> UInt8:
    """Return an image at that size, by Lanczos' filter, or the made-up one; raises as `load_rgb`."""
    if source is None:
        return made_up(width, height)
    rgb, _ = load_rgb(source)
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))


def measure(settings: Settings, source: Source | None = None) -> Iterator[Row]:
    """Yield two rows, encode and decode, for each model, size and number of threads."""
    matrix = np.random.default_rng(0).random((PRODUCT_SIDE, PRODUCT_SIDE), dtype=np.float32)
    for model in settings.models:
        for width, height in settings.sizes:
            rgb = picture(source, width, height)
            for threads in settings.threads:
                yield from _Bench(model, threads, settings).rows(rgb, lambda: matrix @ matrix)


class _Bench:
    """One model with a number of threads, whose networks are timed."""

    def __init__(self, model: str, threads: int | None, settings: Settings) -> None:
        self._model, self._threads, self._settings = model, threads, settings
        self._stages: dict[str, list[Spent]] = {}

    def rows(self, rgb: UInt8, product: Callable[[], object]) -> Iterator[Row]:
        """Yield both directions."""
        quality = self._settings.quality
        codec, first = _timed(self._open)
        stream, encoding = _timed(lambda: codec.encode_rgb(rgb, quality))
        yield self._row("encode", rgb, _sum(first, encoding), lambda: codec.encode_rgb(rgb, quality), product)
        fresh, first = _timed(self._open)
        _, decoding = _timed(lambda: fresh.decode_stream(stream))
        yield self._row("decode", rgb, _sum(first, decoding), lambda: fresh.decode_stream(stream), product)

    def _open(self) -> StreamCodec:
        found = bundle.find(self._model)
        tables = found.tables()
        self._backend = make_backend(
            found, tables, EngineOptions(self._threads, engine=self._settings.engine)
        )
        return StreamCodec(found.manifest, tables, cast("Backend", _Watched(self._backend, self._note)))

    def _note(self, method: str, spent: Spent) -> None:
        self._stages.setdefault(NETWORKS[method], []).append(spent)

    def _row(
        self, task: str, rgb: UInt8, first: Spent, work: Callable[[], object], product: Callable[[], object]
    ) -> Row:
        works, products, stages = [], [], []
        product()
        for _ in range(self._settings.repeats):
            products.append(_timed(product)[1])
            _wait_for_idle_threads()
            self._stages = {}
            result, spent = _timed(work)
            works.append(spent)
            networks = {name: _sum(*parts) for name, parts in self._stages.items()}
            known = _sum(*networks.values())
            coding = Spent(spent.wall - known.wall, spent.processor - known.processor)
            stages.append({**networks, "coding": coding})
        operators = self._operators(work) if self._settings.operators else {}
        return Row(
            task=task,
            model=self._model,
            width=rgb.shape[1],
            height=rgb.shape[0],
            threads=self._threads,
            bytes=len(container.dump(result)) if isinstance(result, container.Stream) else 0,
            first=first,
            median=_median(works),
            product=_median(products),
            stages={name: _median([each[name] for each in stages]) for name in stages[0]},
            operators=operators,
        )

    def _operators(self, work: Callable[[], object]) -> dict[str, dict[str, float]]:
        """Run each network once more on what it is given, and return the seconds of its operators."""
        from dlf.codec.onnx_backend import OnnxBackend, operator_times

        if not isinstance(self._backend, OnnxBackend):
            msg = f"the operators of the model '{self._model}' are not known: ONNX Runtime does not run it"
            raise BenchmarkError(msg)
        seen: dict[str, Mapping[str, NDArray[Any]]] = {}
        self._backend.watch = lambda graph, feeds: seen.update({graph: dict(feeds)})
        work()
        self._backend.watch = None
        return {
            graph: operator_times(self._backend.graph_as_run(graph), feeds, self._threads)
            for graph, feeds in seen.items()
        }


class _Watched:
    """A backend that tells what each call of its networks took."""

    def __init__(self, backend: Backend, note: Callable[[str, Spent], None]) -> None:
        self._backend, self._note = backend, note

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._backend, name)

        def run(*arguments: object) -> object:
            result, spent = _timed(lambda: method(*arguments))
            self._note(name, spent)
            return result

        return run


def _timed(work: Callable[[], Any]) -> tuple[Any, Spent]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, Spent(time.perf_counter() - wall, time.process_time() - processor)


def _wait_for_idle_threads() -> None:
    """Wait until no thread of this process works any more, at most a second.

    After a product the threads of numpy's library wait for the next one in a loop, with OpenBLAS for a tenth
    of a second: that would count as processor time of what comes next, and keep its threads from a core.
    """
    for _ in range(50):
        before = time.process_time()
        time.sleep(_NAP)
        if time.process_time() - before < _NAP / 10:
            return


def _sum(*parts: Spent) -> Spent:
    return Spent(sum(part.wall for part in parts), sum(part.processor for part in parts))


def _median(parts: Sequence[Spent]) -> Spent:
    return Spent(median(part.wall for part in parts), median(part.processor for part in parts))


def measure_processes(settings: Settings, source: Source | None = None) -> Iterator[ProcessRow]:
    """Yield rows of ``dlf encode`` and ``dlf decode`` as whole processes, for each model and size.

    The first number of threads counts.

    Raises:
        BenchmarkError: a process failed.
    """
    threads = settings.threads[0]
    options = ["--engine", settings.engine, "--overwrite", "--quiet"]
    options += [] if threads is None else ["--threads", str(threads)]
    dlf = [sys.executable, "-m", "dlf"]
    for size in settings.sizes:
        with _png(source, *size) as png:
            coded, painted = png.with_suffix(".dlf"), png.with_name("painted.png")
            for model in settings.models:
                common = ["--model", model, *options]
                quality = ["--quality", str(settings.quality)]
                encode = [*dlf, "encode", str(png), "-o", str(coded), *quality, *common]
                decode = [*dlf, "decode", str(coded), "-o", str(painted), *common]
                for task, command in (("encode", encode), ("decode", decode)):
                    spent, peak = _processes(command, settings.repeats)
                    yield ProcessRow("dlf", task, model, *size, coded.stat().st_size, spent, peak)


OTHERS = {
    "cwebp": (
        ".webp",
        ["cwebp", "-quiet", "-q", "10", "IN", "-o", "OUT"],
        ["dwebp", "-quiet", "IN", "-o", "OUT"],
    ),
    "avifenc": (".avif", ["avifenc", "-q", "20", "IN", "OUT"], ["avifdec", "IN", "OUT"]),
    "cjxl": (".jxl", ["cjxl", "--quiet", "-q", "20", "IN", "OUT"], ["djxl", "--quiet", "IN", "OUT"]),
}
"""Programs of other formats by the encoder's name: the ending of their files, and both commands."""


def measure_others(settings: Settings, source: Source | None = None) -> Iterator[ProcessRow]:
    """Yield rows of those of `OTHERS` that are installed, at a low quality; sizes are not matched."""
    for size in settings.sizes:
        with _png(source, *size) as png:
            for name, (suffix, encode, decode) in OTHERS.items():
                coded, painted = png.with_suffix(suffix), png.with_name("painted.png")
                for task, command, names in (
                    ("encode", encode, {"IN": str(png), "OUT": str(coded)}),
                    ("decode", decode, {"IN": str(coded), "OUT": str(painted)}),
                ):
                    if shutil.which(command[0]) is None or (task == "decode" and not coded.exists()):
                        continue
                    line = [names.get(word, word) for word in command]
                    spent, peak = _processes(line, settings.repeats)
                    yield ProcessRow(name, task, "", *size, coded.stat().st_size, spent, peak)


@contextmanager
def _png(source: Source | None, width: int, height: int) -> Iterator[Path]:
    """Give an image as a file in a folder that is there for as long."""
    with tempfile.TemporaryDirectory(prefix="dlf-bench-") as folder:
        path = Path(folder, "image.png")
        Image.fromarray(picture(source, width, height)).save(path, compress_level=1)
        yield path


def _processes(command: Sequence[str], repeats: int) -> tuple[Spent, int | None]:
    """Run a command once to warm up and then for the median; return it and the highest peak of memory."""
    runs = [run_process(command) for _ in range(repeats + 1)]
    peaks = [peak for _, peak in runs if peak is not None]
    return _median([spent for spent, _ in runs[1:]]), max(peaks, default=None)


# The peak of a process counts from the one that started it, so that one has to be small.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
spent = time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss
print(json.dumps([*spent, os.waitstatus_to_exitcode(status)]))
"""


def run_process(command: Sequence[str]) -> tuple[Spent, int | None]:
    """Run a command; returns what it spent and its peak of memory, which Windows does not tell."""
    if hasattr(os, "wait4"):
        line = [sys.executable, "-S", "-c", _LAUNCHER, *command]
        done = subprocess.run(line, capture_output=True, check=True)
        wall, processor, most, code = json.loads(done.stdout)
        peak = most * (1 if sys.platform == "darwin" else 1024)
    else:
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True)
        wall, processor, peak, code = time.perf_counter() - start, float("nan"), None, done.returncode
    if code:
        text = done.stderr[:4096].decode("utf-8", "replace").strip().replace("\n", " ")
        msg = f"'{Path(command[0]).name}' failed with code {code}: {text}"
        raise BenchmarkError(msg)
    return Spent(wall, processor), peak


def to_json(row: Machine | Row | ProcessRow) -> str:
    """Return a row as one line of JSON, with the kind of row under "kind"."""
    from dataclasses import asdict

    kinds = {Machine: "machine", Row: "codec", ProcessRow: "process"}
    fields: dict[str, Any] = {"kind": kinds[type(row)], **asdict(row)}
    if isinstance(row, Row):
        fields["products"] = row.products
    return json.dumps(fields)
