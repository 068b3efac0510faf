"""The networks of pixels in OpenVINO; the only import of openvino.

The networks that decide symbols stay where they are exact, in ONNX Runtime.  One network of open shape is
compiled for each graph: one for every image size would be a tenth faster, but costs as much to compile as
fifty images gain by it.  Nothing is kept on disk.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from dlf.codec.backend import Network, Run
from dlf.errors import EngineError
from dlf.extras import need

log = logging.getLogger(__name__)

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
"""Those that OpenVINO computes in here, and its own names of them."""

PIXEL_GRAPHS = ("analysis", "synthesis")

PAYS_AFTER = 5_000_000
"""Pixels that a codec paints, a dozen images of 768x512, until importing and compiling would have paid."""

_TELEMETRY = "openvino_telemetry"
# compiled kernels that are kept for sizes that come again; without a limit every new size adds 4 MB or more
_KERNELS = 100


def is_installed() -> bool:
    """Tell whether there is an OpenVINO to import; it is not imported."""
    return find_spec("openvino") is not None


@lru_cache(maxsize=1)
def precisions() -> tuple[str, ...]:
    """Return those of `PRECISIONS` that this processor has instructions for; raises MissingExtra."""
    able = _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name in PRECISIONS if name == "float32" or PRECISIONS[name].upper() in able)


def check(precision: str | None) -> None:
    """Refuse a precision that images cannot be computed in here.

    Raises:
        MissingExtra: OpenVINO is not installed.
        EngineError: OpenVINO, or this processor, does not have the precision.
    """
    here = precisions()
    if precision is not None and precision not in here:
        msg = f"OpenVINO computes in {' or '.join(here)} on this processor, not in {precision}"
        raise EngineError(msg)


@dataclass(frozen=True)
class OpenVino:
    """Builds the graphs of pixels in OpenVINO from the start, the others as they are.

    threads: threads within one operation; None leaves the choice to OpenVINO.
    precision: of products, one of `PRECISIONS`; None is bfloat16 where the processor has it.
    """

    threads: int | None
    precision: str | None = None

    def __call__(self, graph: str, data: bytes, plain: Callable[[], Network]) -> Network:
        """Build a graph; see `dlf.codec.onnx_backend.Build`."""
        if graph in PIXEL_GRAPHS and _is_ours():
            return _compile(data, self.threads, self.precision)
        return plain()


@dataclass(frozen=True)
class WhenItPays:
    """Leaves all graphs as they are until so much is painted that compiling the synthesis pays.

    The analysis stays, so that an image gives the same bytes whatever came before it.

    read: gives the file of a graph, which is read once more when it is needed rather than held until then.
    """

    threads: int | None
    read: Callable[[str], bytes]

    def __call__(self, graph: str, data: bytes, plain: Callable[[], Network]) -> Network:
        """Build a graph; see `dlf.codec.onnx_backend.Build`."""
        network = plain()
        if graph != "synthesis":
            return network
        switch = _Switch(network, partial(self.read, f"{graph}.onnx"), self.threads)
        return Network(network.inputs, switch.run, switch.run_large)


class _Switch:
    """Runs the synthesis in one network until `PAYS_AFTER` pixels are painted, then in OpenVINO.

    It stays where OpenVINO fails, or the processor has no bfloat16, without which hardly anything is gained.
    """

    def __init__(self, network: Network, read: Callable[[], bytes], threads: int | None) -> None:
        self._network, self._threads = network, threads
        self._read: Callable[[], bytes] | None = read  # None when the choice is made
        self._painted = 0
        self._choosing = Lock()

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the network; see `Network`."""
        return self._counted(self._network.run, outputs, feeds)

    def run_large(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the network; see `Network`."""
        return self._counted(self._network.run_large or self._network.run, outputs, feeds)

    def _counted(
        self, run: Run, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        results = run(outputs, feeds)
        if self._read is not None:
            self._painted += results[0].size // 3
            if self._painted >= PAYS_AFTER:
                self._choose()
        return results

    def _choose(self) -> None:
        with self._choosing:
            read, self._read = self._read, None
            if read is None or not _is_ours():
                return
            try:
                if "bfloat16" in precisions():
                    self._network = _compile(read(), self._threads, "bfloat16")
            except Exception as error:  # OpenVINO's have no common base; or the file is gone
                log.debug("the synthesis stays in ONNX Runtime (%s)", error)


def _compile(data: bytes, threads: int | None, precision: str | None) -> Network:
    """Build a graph for the CPU; raises whatever OpenVINO does."""
    core = _openvino().Core()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision or precisions()[-1]],
        # several codecs, and ONNX Runtime, share the processors with it
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
        # weights of 8 bits would otherwise make it round activations to 8 bits, to 0.5 grey levels
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(core.read_model(data), "CPU", settings)

    # A request is for one thread at a time.  A new one gets all its memory anew, a quarter of the time of a
    # run on 768x512, so those that are done wait here.
    idle: deque[Any] = deque()

    def request() -> Any:
        try:
            return idle.pop()
        except IndexError:
            return compiled.create_infer_request()

    def run(outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        used = request()
        results = used.infer(dict(feeds))
        idle.append(used)
        return [results[name] for name in outputs]

    def run_large(outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        results = request().infer(dict(feeds))  # which goes with all its memory
        return [results[name] for name in outputs]

    return Network(tuple(port.any_name for port in compiled.inputs), run, run_large)


_importing = Lock()

_process: int | None = None
"""The process that has imported it through `_openvino`."""


def _is_ours() -> bool:
    """Tell whether OpenVINO can be used in this process.

    Its threads do not follow into the child of a fork, which it would abort at exit.
    """
    return _process in (None, os.getpid())


@contextmanager
def _telemetry_off() -> Iterator[None]:
    """Hide a library that writes an id below the home folder and reports to a host.

    OpenVINO does so as soon as it is imported; without the library it does its work all the same.
    """
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before


def _openvino() -> ModuleType:
    """Import and return the library; raises MissingExtra."""
    global _process
    if _process is None:
        _process = os.getpid()
    with _importing:  # two networks may be built at a time
        if "openvino" in sys.modules:  # the host imported it, and how it reports is the host's choice
            return need("openvino", "openvino")
        with _telemetry_off():
            return need("openvino", "openvino")
