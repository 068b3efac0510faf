"""How fast the engines of this machine run the networks of pixels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import numpy as np

from dlf.codec.backend import Backend
from dlf.codec.bundle import ModelBundle
from dlf.codec.engine import ACCELERATORS, EngineOptions, make_backend
from dlf.errors import EngineError
from dlf.geometry import Plan

GRAPHS = ("analysis", "synthesis")


@dataclass(frozen=True)
class Timing:
    """One network on one image, in seconds: the best by the clock, and the median of processor time.

    Processor time counts all threads, and is not much disturbed by what else the machine does.
    """

    best: float
    processor: float


@dataclass(frozen=True)
class EngineTimes:
    """An engine in one of its precisions.

    version: of the library; None where it is not installed, and then there are no times.
    analysis, synthesis: of the two networks of pixels.
    missing: what keeps the engine from being used here.
    """

    engine: str
    precision: str
    version: str | None
    analysis: Timing | None = None
    synthesis: Timing | None = None
    missing: str | None = None


def measure(
    bundle: ModelBundle, width: int, height: int, *, threads: int | None = None, repeats: int = 5
) -> list[EngineTimes]:
    """Time all engines by turns on a made-up image, each after a first run that builds its networks.

    Raises:
        EngineError: the model is not one of ONNX graphs.
    """
    if bundle.manifest.engine != "onnx":
        msg = f"the model '{bundle.manifest.name}' is run by {bundle.manifest.engine} and by nothing else"
        raise EngineError(msg)
    from dlf.codec import onnx_backend, openvino_engine

    rows = [("onnxruntime", "float32")]
    absent = []
    for engine in ACCELERATORS:
        if (missing := onnx_backend.missing(engine)) is None:
            rows.append((engine, "float32"))
        else:
            absent.append(EngineTimes(engine, "float32", None, missing=missing))
    if openvino_engine.is_installed():
        rows += [("openvino", precision) for precision in openvino_engine.precisions()]
    tables = bundle.tables()
    works: list[dict[str, Callable[[], object]]] = []
    for engine, precision in rows:
        options = EngineOptions(threads, engine=engine, precision=precision if engine == "openvino" else None)
        works.append(_works(make_backend(bundle, tables, options), Plan(height, width, tables.padding)))
    seconds = {(row, graph): [_timed(works[row][graph])] for row in range(len(rows)) for graph in GRAPHS}
    for _ in range(repeats):
        for (row, graph), times in seconds.items():
            times.append(_timed(works[row][graph]))
    results = []
    for row, (engine, precision) in enumerate(rows):
        analysis, synthesis = (_timing(seconds[row, graph][1:]) for graph in GRAPHS)
        results.append(EngineTimes(engine, precision, _version(engine), analysis, synthesis))
    if not openvino_engine.is_installed():
        missing = "not installed; run: pip install 'dlf-codec[openvino]'"
        absent.insert(0, EngineTimes("openvino", "float32", None, missing=missing))
    return [*results, *absent]


def _works(backend: Backend, plan: Plan) -> dict[str, Callable[[], object]]:
    """Return what runs each network once on an image of that plan, smooth with a little noise."""
    rng = np.random.default_rng(0)
    rows, cols = (np.linspace(0, 3, size) for size in plan.padded)
    waves = np.sin(rows)[:, None, None] * np.cos(cols)[None, :, None] * np.ones(3)
    rgb = np.clip(128 + 90 * waves + rng.normal(0, 9, (*plan.padded, 3)), 0, 255).astype(np.uint8)
    latents = backend.analyse(rgb, 50)
    return {
        "analysis": lambda: backend.analyse(rgb, 50),
        "synthesis": lambda: backend.synthesise(latents.tokens, latents.y, 50),
    }


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def _timing(times: list[tuple[float, float]]) -> Timing:
    clock, processor = zip(*times, strict=True)
    return Timing(best=min(clock), processor=median(processor))


def _version(engine: str) -> str | None:
    library = "onnxruntime" if engine in ACCELERATORS else engine
    try:
        return version(library)
    except PackageNotFoundError:  # a build under another name, such as onnxruntime-gpu
        return "unknown"
