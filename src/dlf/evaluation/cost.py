"""What one codec costs on one image; meant to run in a process that does nothing else (`alone`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray
from PIL import Image

from dlf.bitstream import container
from dlf.codec import bundle
from dlf.codec.backend import Backend
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import EngineOptions, make_backend
from dlf.errors import DlfError, MissingExtra
from dlf.evaluation.codecs.fitting import ScaledCodec
from dlf.evaluation.codecs.formats import DlfCodec
from dlf.evaluation.codecs.protocols import Codec
from dlf.evaluation.codecs.specs import CodecSpec, open_codec
from dlf.evaluation.macs import graph_macs, torch_macs
from dlf.records import WHOLE, Float32, Int32, Latents, Place, Prior, StepParams, UInt8

if TYPE_CHECKING:
    from dlf.codec.onnx_backend import Watch

P = ParamSpec("P")
T = TypeVar("T")


class CostError(DlfError):
    """The cost of a codec cannot be measured."""


@dataclass(frozen=True)
class Cost:
    """Of coding or decoding an image.

    seconds: of the second run, after one that warmed up.  stages: of these the seconds of each network, for
    our own codecs.  macs: multiply-accumulates of each network; None where they cannot be counted.
    peak: bytes of memory that the process had at most, with Python and all libraries; None where not known.
    """

    seconds: float
    peak: int | None
    stages: dict[str, float] = field(default_factory=dict)
    macs: dict[str, int] | None = None


@dataclass(frozen=True)
class EncodeCost:
    """Of coding an image; data: the file."""

    data: bytes
    cost: Cost


@dataclass(frozen=True)
class Work:
    """A codec at a setting; threads: for our own, None uses all."""

    spec: CodecSpec
    quality: int
    threads: int | None = None


def encode_cost(work: Work, rgb: UInt8) -> EncodeCost:
    """Code uint8 (H, W, 3).  Raises nearly anything."""
    codec = _codec(work)
    if isinstance(codec, DlfCodec):
        networks = _Networks(codec.model, work.threads)
        return EncodeCost(
            *networks.cost(lambda: container.dump(networks.codec.encode_rgb(rgb, work.quality)))
        )
    image = Image.fromarray(rgb)
    data, seconds = _second(lambda: codec.encode(image, work.quality))
    return EncodeCost(data, Cost(seconds, peak_memory()))


def decode_cost(work: Work, data: bytes) -> Cost:
    """Decode a file that `encode_cost` made.  Raises nearly anything."""
    codec = _codec(work)
    if isinstance(codec, DlfCodec):
        networks = _Networks(codec.model, work.threads)
        return networks.cost(lambda: networks.codec.decode_stream(container.load(data)))[1]
    _, seconds = _second(lambda: codec.decode(data).load())
    return Cost(seconds, peak_memory())


def idle_cost(rgb: UInt8) -> Cost:
    """Do nothing: what Python, the libraries and the pixels alone need."""
    return Cost(0, peak_memory())


def alone(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of this module in a fresh process; raises what it raises, or CostError."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            msg = "the process that measures ended before its time; is the memory too small?"
            raise CostError(msg) from error


def peak_memory() -> int | None:
    """Return the most bytes of memory that this process, or a program that it started, has had.

    None where the system does not tell.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    programs = unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():
        # what getrusage tells of a process itself counts the one that started it on Linux
        for line in status.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return max(programs, 1024 * int(line.split()[1]))
    return max(programs, unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _codec(work: Work) -> Codec:
    compared = open_codec(work.spec, work.threads)
    if not isinstance(compared, ScaledCodec):
        msg = f"{compared.name} is a folder of pictures, no codec that runs"
        raise CostError(msg)
    return compared.codec


def _second(do: Callable[[], T]) -> tuple[T, float]:
    """Do it twice; return the result and the seconds of the second time."""
    do()
    start = perf_counter()
    result = do()
    return result, perf_counter() - start


Around = Callable[[str], AbstractContextManager[None]]
"""Takes the name of a network and surrounds its run."""


class Surrounded:
    """A `Backend` that runs another one within something."""

    def __init__(self, backend: Backend, around: Around) -> None:
        self._backend, self._around = backend, around

    def analyse(self, rgb: UInt8, quality: int, place: Place = WHOLE) -> Latents:
        """Pixels to latents."""
        with self._around("analysis"):
            return self._backend.analyse(rgb, quality, place)

    def prior(self, rows: int, cols: int, quality: int, tokens: Int32) -> Prior:
        """Parameters that are known before any detail symbol."""
        with self._around("prior"):
            return self._backend.prior(rows, cols, quality, tokens)

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Parameters of a step."""
        with self._around("context"):
            return self._backend.context(step, y_hat, common)

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        """Latents to pixels."""
        with self._around("synthesis"):
            return self._backend.synthesise(tokens, y_hat, quality, place)


@runtime_checkable
class _Watchable(Protocol):
    """A backend of graphs, which tells their inputs."""

    watch: Watch | None


class _Networks:
    """One of our codecs, whose networks are timed and counted."""

    def __init__(self, model: str | None, threads: int | None) -> None:
        self._bundle: ModelBundle = bundle.find(model)
        tables = self._bundle.tables()
        self._backend = make_backend(self._bundle, tables, EngineOptions(threads, engine="onnxruntime"))
        self._around: Around = self._timed
        surrounded = Surrounded(self._backend, lambda name: self._around(name))
        self.codec = StreamCodec(self._bundle.manifest, tables, surrounded)
        self._seconds: dict[str, float] = {}
        self._macs: dict[str, int] = {}

    def cost(self, do: Callable[[], T]) -> tuple[T, Cost]:
        """Do it three times: once to warm up, once for the time, once to count."""
        do()
        self._seconds = {}
        start = perf_counter()
        result = do()
        seconds, peak = perf_counter() - start, peak_memory()
        return result, Cost(seconds, peak, dict(self._seconds), self._counted(do))

    def _counted(self, do: Callable[[], Any]) -> dict[str, int] | None:
        self._macs = {}
        if self._bundle.manifest.engine == "torch":
            self._around = self._by_torch
            do()
            return self._macs
        runs: dict[tuple[Any, ...], _Runs] = {}
        if not isinstance(self._backend, _Watchable):
            return None
        self._backend.watch = partial(_note, runs)
        do()
        try:
            for seen in runs.values():
                macs = seen.times * graph_macs(self._bundle.read(f"{seen.graph}.onnx"), seen.inputs)
                self._macs[seen.graph] = self._macs.get(seen.graph, 0) + macs
        except MissingExtra:
            return None
        return self._macs

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0) + perf_counter() - start

    @contextmanager
    def _by_torch(self, name: str) -> Iterator[None]:
        with torch_macs() as count:
            yield
        self._macs[name] = self._macs.get(name, 0) + count()


@dataclass
class _Runs:
    """Inputs of a graph, of one size, and how often it had that size."""

    graph: str
    inputs: dict[str, NDArray[Any]]
    times: int = 0


def _note(runs: dict[tuple[Any, ...], _Runs], graph: str, inputs: Mapping[str, NDArray[Any]]) -> None:
    """Keep the inputs of each graph, once for each size, and how often they had it."""
    key = graph, *((name, array.shape) for name, array in sorted(inputs.items()))
    runs.setdefault(key, _Runs(graph, dict(inputs))).times += 1
