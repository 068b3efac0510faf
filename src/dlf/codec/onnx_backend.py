"""The networks of a bundle in ONNX Runtime; the only import of onnxruntime."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.codec.backend import Network, library_errors
from dlf.codec.bundle import ModelBundle
from dlf.codec.engine import ACCELERATORS
from dlf.codec.heap import WORTH_IT, give_back
from dlf.codec.lean_graph import lean
from dlf.codec.network_outputs import check, integers
from dlf.codec.openvino_engine import PIXEL_GRAPHS
from dlf.entropy.tables import Tables
from dlf.errors import BundleError
from dlf.geometry import CELL, WINDOW_CELLS, Plan, border_places, ceil_div, window_maps
from dlf.records import WHOLE, Float32, Int32, Latents, Place, Prior, StepParams, UInt8

TELEMETRY_SWITCH = "ORT_DISABLE_TELEMETRY"


@contextmanager
def _telemetry_off() -> Iterator[None]:
    """Set the environment variable that ONNX Runtime reads when it is imported, and only then.

    Since 1.29 it otherwise writes a device id and a database below the home folder and sends events.  The
    environment belongs to the process that we are a guest of, so it is put back.
    """
    before = os.environ.get(TELEMETRY_SWITCH)
    os.environ[TELEMETRY_SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[TELEMETRY_SWITCH]
        else:
            os.environ[TELEMETRY_SWITCH] = before


if "onnxruntime" in sys.modules:  # the host imported it, and how it reports is the host's choice
    import onnxruntime
else:
    with _telemetry_off():
        import onnxruntime

    onnxruntime.disable_telemetry_events()  # Windows has a way of its own

_FATAL_ONLY = 4
_CPU = "CPUExecutionProvider"
# pixels of what a network is run on, from which on its memory is given back at once, for a tenth of the time
_LARGE = 1 << 19
# cells that the prior network, two 3x3 convolutions one after the other, looks to each side
_PRIOR_REACH = 2


Watch = Callable[[str, Mapping[str, NDArray[Any]]], None]
"""Called with the name and the inputs of a graph that is about to run."""


Build = Callable[[str, bytes, Callable[[], Network]], Network]
"""Called with the name of a graph, the bytes of its file, and what builds it in ONNX Runtime."""


class OnnxBackend:
    """Runs the four graphs on the CPU; each is read and built when first needed, by any thread.

    threads: threads within one operation; None leaves the choice to ONNX Runtime.
    build: builds a graph elsewhere, or calls back; None builds all in ONNX Runtime.
    soon: names of graphs to begin to build at once; see `prepare`.
    watch: may be set, to learn what each graph is given.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        tables: Tables,
        threads: int | None = None,
        build: Build | None = None,
        soon: Iterable[str] = (),
    ) -> None:
        self._bundle, self._tables, self._threads, self._build = bundle, tables, threads, build
        self.watch: Watch | None = None
        self._start()
        self.prepare(soon)

    def _start(self) -> None:
        """Begin with no graph built."""
        self._networks: dict[str, Future[Network]] = {}
        self._choosing = Lock()
        _backends.add(self)

    def prepare(self, graphs: Iterable[str]) -> None:
        """Begin to build graphs, each in a thread of its own, so that whoever needs one waits for less.

        What goes wrong is said when the graph is needed.  With one thread nothing is begun.
        """
        if self._threads == 1:
            return
        for graph in graphs:
            future, is_mine = self._claim(graph)
            if is_mine:
                # no daemon: the end of the process must not meet it at work
                thread = Thread(target=self._fill, args=(graph, future), name=f"dlf-{graph}")
                try:
                    thread.start()
                except RuntimeError:  # there is no room for one more; others may wait for the graph already
                    self._fill(graph, future)

    def analyse(self, rgb: UInt8, quality: int, place: Place = WHOLE) -> Latents:
        """Pixels to latents; see `Backend`."""
        plan = Plan(rgb.shape[0], rgb.shape[1], corner=place.corner)
        plans = window_maps(plan, self._bundle.manifest.swin_window)
        quality_input = np.array([quality], np.float32)
        tokens, y = self._run(
            "analysis", ("indices", "y"), plan, place.more, rgb=rgb, quality=quality_input, **plans
        )
        manifest = self._bundle.manifest
        windows = plan.windows[0] * plan.windows[1]
        check(tokens, (windows, manifest.tokens), np.int64, "analysis")
        check(y, (manifest.channels, *plan.cells), np.float32, "analysis")
        if tokens.min() < 0 or tokens.max() >= manifest.codes:
            msg = "the model's analysis network gave a token outside its codebook"
            raise BundleError(msg)
        return Latents(tokens.astype(np.int32), y)

    def prior(self, rows: int, cols: int, quality: int, tokens: Int32) -> Prior:
        """Parameters of the first step; see `Backend`.

        Without tokens the network sees the same vector at every cell, so that its results differ near the
        border only: they are computed on a grid of that much, and repeated.
        """
        place = np.arange if self._tables.token_prior else partial(border_places, reach=_PRIOR_REACH)
        places = place(rows)[:, None], place(cols)
        windows = ceil_div(rows, WINDOW_CELLS), ceil_div(cols, WINDOW_CELLS)
        vector = self._tables.prior[quality].astype(np.float32)[None, :, None, None]
        inputs = np.broadcast_to(vector, (1, vector.shape[1], places[0].max() + 1, places[1].max() + 1))
        outputs = ("scale", "mean", "step", "common")
        shape = (1, self._bundle.manifest.channels, *inputs.shape[2:])
        scale, mean, step, common = (
            integers(output, shape, "prior")[:, places[0], places[1]]
            for output in self._run(
                "prior",
                outputs,
                _plan_of(inputs),
                prior=inputs,
                tokens=tokens.reshape(*windows, -1).astype(np.int64),
            )
        )
        prior = Prior(first=StepParams(scale, mean), common=common.astype(np.float32), step=step)
        if prior.step.min() < 1:
            msg = "the model's prior network gave a quantisation step below 1/64"
            raise BundleError(msg)
        return prior

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Parameters of step 1, 2 or 3; see `Backend`."""
        scale, mean = self._run(
            "context",
            ("scale", "mean"),
            _plan_of(y_hat),
            y_hat=y_hat[None].astype(np.float32),
            common=common[None],
            index=np.array(step - 1, np.int64),
        )
        shape = (1, *y_hat.shape)
        return StepParams(integers(scale, shape, "context"), integers(mean, shape, "context"))

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int, place: Place = WHOLE) -> UInt8:
        """Latents to pixels; see `Backend`."""
        plan = _plan_of(y_hat, place.corner)
        (rgb,) = self._run(
            "synthesis",
            ("rgb",),
            plan,
            place.more,
            tokens=tokens.astype(np.int64),
            y_hat=y_hat[None],
            quality=np.array([quality], np.float32),
            **window_maps(plan, self._bundle.manifest.swin_window),
        )
        check(rgb, (*plan.padded, 3), np.uint8, "synthesis")
        pixels: UInt8 = rgb
        return pixels

    def _run(
        self,
        graph: str,
        outputs: tuple[str, ...],
        plan: Plan,
        more: bool | None = None,
        **inputs: NDArray[Any],
    ) -> list[NDArray[Any]]:
        """Run a graph on those of the inputs that it has; return the named outputs.

        more: see `Place`.
        """
        network = self._network(graph)
        feeds = {name: np.ascontiguousarray(inputs[name]) for name in network.inputs if name in inputs}
        if self.watch is not None:
            self.watch(graph, feeds)
        gives_back = plan.padded[0] * plan.padded[1] >= _LARGE if more is None else not more
        run = (network.run_large if gives_back else None) or network.run
        with library_errors(f"the model's {graph} network cannot be run on this picture"):
            return run(outputs, feeds)

    def _network(self, graph: str) -> Network:
        future, is_mine = self._claim(graph)
        if is_mine:
            self._fill(graph, future)
        return future.result()

    def _claim(self, graph: str) -> tuple[Future[Network], bool]:
        """Return what holds a graph when it is built, and whether it is the caller who has to build it."""
        with self._choosing:
            known = self._networks.get(graph)
            future = self._networks[graph] = known or Future()
            return future, known is None

    def _fill(self, graph: str, future: Future[Network]) -> None:
        """Build a graph; where that fails, those who wait are told, and the next one tries again."""
        networks = self._networks
        try:
            future.set_result(self._open(graph))
        except BaseException as error:  # even Ctrl-C must not leave others waiting
            networks.pop(graph, None)
            future.set_exception(error)

    def _open(self, graph: str) -> Network:
        """Read and build a graph; raises BundleError."""
        data = self.graph_as_run(graph)
        with library_errors(f"the model's {graph} network cannot be loaded"):
            return self._built(graph, data)

    def graph_as_run(self, graph: str) -> bytes:
        """Return the ONNX file of a graph: that of the bundle, or what computes the same faster.

        A prior network that reads no tokens computes a few cells only, so that nothing is to be gained.
        """
        data = self._bundle.read(f"{graph}.onnx")
        gains = graph == "context" or (graph == "prior" and self._tables.token_prior)
        return lean(data) if gains else data

    def _built(self, graph: str, data: bytes) -> Network:
        """Build a graph; raises whatever the library does."""

        def plain() -> Network:
            return _network_of(open_session(data, self._threads), _giving_back())

        return plain() if self._build is None else self._build(graph, data, plain)


_backends: weakref.WeakSet[OnnxBackend] = weakref.WeakSet()


def _start_again() -> None:
    """In the child of a fork: leave sessions alone, for their threads exist in the parent only.

    Even to free one would wait for these threads for ever, at the latest when the process ends; the extra
    reference keeps Python from it.
    """
    from ctypes import py_object, pythonapi

    for backend in list(_backends):
        pythonapi.Py_IncRef(py_object(backend._networks))
        backend._start()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_start_again)


@dataclass(frozen=True)
class Accelerated:
    """Builds the graphs of pixels for an accelerator, the others as they are, exact on the processor.

    engine: a key of `PROVIDERS`; what it cannot run of a graph runs on the processor, in `threads` threads.
    """

    engine: str
    threads: int | None

    def __call__(self, graph: str, data: bytes, plain: Callable[[], Network]) -> Network:
        """Build a graph; see `Build`."""
        if graph not in PIXEL_GRAPHS:
            return plain()
        return _network_of(open_session(data, self.threads, provider=PROVIDERS[self.engine]))


_NAMES = "CUDAExecutionProvider", "CoreMLExecutionProvider", "DmlExecutionProvider"
PROVIDERS = dict(zip(ACCELERATORS, _NAMES, strict=True))
"""ONNX Runtime's names of `ACCELERATORS`."""


def missing(engine: str) -> str | None:
    """Say why an accelerator cannot be used here; None if this build of ONNX Runtime has it."""
    name = PROVIDERS[engine]
    has = name in onnxruntime.get_available_providers()
    return None if has else f"ONNX Runtime has no {name} here; {ACCELERATORS[engine]} has it on some systems"


def _network_of(
    session: onnxruntime.InferenceSession, large: onnxruntime.RunOptions | None = None
) -> Network:
    """Return a session as a network; large: options of runs on large images, None as of others."""
    names = tuple(node.name for node in session.get_inputs())
    run_large = None if large is None else partial(session.run, run_options=large)
    return Network(names, session.run, run_large)


def _giving_back() -> onnxruntime.RunOptions:
    """Options of a run that leaves nothing of its memory to the next one."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def operator_times(
    data: bytes, feeds: Mapping[str, NDArray[Any]], threads: int | None = None
) -> dict[str, float]:
    """Run a graph twice; return the seconds of each kind of operator, as optimised, in the second run."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="dlf-profile-") as folder:
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = open_session(data, threads, options)
        for _ in range(2):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_bytes())
    ends = [event["ts"] + event["dur"] for event in events if event["name"] == "model_run"]
    seconds: dict[str, float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= ends[0]:
            kind = event["args"]["op_name"]
            seconds[kind] = seconds.get(kind, 0.0) + event["dur"] / 1e6
    return seconds


def open_session(
    data: bytes,
    threads: int | None = None,
    options: onnxruntime.SessionOptions | None = None,
    provider: str = _CPU,
) -> onnxruntime.InferenceSession:
    """Build a graph; raises whatever ONNX Runtime does.

    options: to begin with; None is those of the library.
    provider: what runs as much of it as it can, the CPU the rest.
    """
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads or 0
    # waiting threads of one graph must not keep the cores from the next one
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # sizes differ, and the plan for one of them would hold a block of memory beside the pieces of the others
    options.enable_mem_pattern = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=list(dict.fromkeys((provider, _CPU))))
    if provider == _CPU:
        session._model_bytes = None  # kept to build it again where an accelerator fails
    if len(data) >= WORTH_IT:
        give_back()
    return session


def _plan_of(latent: NDArray[Any], corner: tuple[int, int] = (0, 0)) -> Plan:
    """Plan of the image whose latent (..., rows, cols) is given."""
    rows, cols = latent.shape[-2:]
    return Plan(rows * CELL, cols * CELL, corner=corner)
