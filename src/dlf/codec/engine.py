"""Which engine runs a model's networks; the one door from the light side to torch.

An engine is named by the bundle and imported by name when a bundle asks for it, so that nothing of it
is needed where no such bundle is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import cast

from dlf.codec.backend import Backend, Network
from dlf.codec.bundle import ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.entropy.tables import Tables
from dlf.errors import EngineError, InvalidArgument
from dlf.extras import need
from dlf.interrupts import postponed
from dlf.limits import whole_number

MAX_THREADS = 1024
"""Limit of threads, above which an engine may die of the lack of memory for them."""

PRECISIONS = ("float32", "bfloat16", "float16", "int8")

REFERENCE = "reference"

ACCELERATORS = {"cuda": "onnxruntime-gpu", "coreml": "onnxruntime", "directml": "onnxruntime-directml"}
"""Engines of ONNX Runtime beside the processor, each with the package that has it, on systems that do."""

ENGINES = ("auto", "onnxruntime", "openvino", *ACCELERATORS, REFERENCE)
"""What runs the networks of an ONNX model; see `EngineOptions`."""


TO_ENCODE = ("analysis", "prior", "context")
TO_DECODE = ("synthesis", "prior", "context")
"""Graphs that each direction runs, the one that takes longest to build first."""


@dataclass(frozen=True)
class EngineOptions:
    """How the networks of pixels are run; what decides the symbols of a stream does not depend on it.

    Attributes:
        threads: processor threads within one operation; None uses all.
        device: "cpu", or a device of torch such as "cuda" or "cuda:1".
        precision: of weights and products: float32, bfloat16, float16 or int8; None is what the bundle
            stores.
        compiled: let torch compile the networks, which takes minutes and pays for many pictures.
        progress: called while the networks run, with what runs and how much of it is done, 0..1.
        engine: what runs models of ONNX graphs, one of `ENGINES`; others heed "reference" alone.
            Accelerators run the networks of pixels; what decides symbols stays on the processor.
            OpenVINO computes in bfloat16 where the processor has it, unless the precision says float32.
            "auto" encodes with ONNX Runtime, so that an image always gives the same bytes, and decodes with
            it until so much is decoded that OpenVINO pays, if it is installed and the processor has bfloat16.
            "reference" reads symbols by the second decoder of `dlf.reference`, and does not encode.

    Raises:
        TypeError, InvalidArgument: values that are none of these; the latter is a ValueError.
    """

    threads: int | None = None
    device: str = "cpu"
    precision: str | None = None
    compiled: bool = False
    progress: Callable[[str, float], None] | None = field(default=None, compare=False)
    engine: str = "auto"

    def __post_init__(self) -> None:
        if self.threads is not None:
            number = whole_number(self.threads, "threads")
            if not 1 <= number <= MAX_THREADS:
                at_least = f"at least 1 and at most {MAX_THREADS}"
                msg = f"the number of threads is {number}, but must be {at_least}; None uses all"
                raise InvalidArgument(msg)
        device: object = self.device  # whatever the caller gave
        if not isinstance(device, str):
            msg = f"the device must be a text such as 'cpu' or 'cuda', not {type(device).__name__}"
            raise TypeError(msg)
        if self.precision not in (None, *PRECISIONS):
            msg = f"the precision '{self.precision}' is unknown: choose one of {', '.join(PRECISIONS)}"
            raise InvalidArgument(msg)
        if self.engine not in ENGINES:
            msg = f"the engine '{self.engine}' is unknown: choose one of {', '.join(ENGINES)}"
            raise InvalidArgument(msg)


def check_options(bundle: ModelBundle, options: EngineOptions) -> None:
    """Refuse options that a model cannot be run with here; reads nothing of the model.

    Raises:
        MissingExtra: the engine is not installed.
        EngineError: the engine cannot do what the options ask for.
    """
    if bundle.manifest.engine == "torch":
        if options.engine == REFERENCE:
            msg = f"the reference decoder does not read files of the model '{bundle.manifest.name}'"
            raise EngineError(msg)
        _torch_backend().usable_device(options)
        return
    is_open = options.engine == "openvino"
    precision = options.precision if is_open else None
    if options != EngineOptions(threads=options.threads, engine=options.engine, precision=precision):
        name = bundle.manifest.name
        msg = f"the model '{name}' runs on the processor{'' if is_open else ' in its own precision'} only"
        raise EngineError(msg)
    if is_open:
        from dlf.codec import openvino_engine

        openvino_engine.check(precision)
    if options.engine in ACCELERATORS:
        from dlf.codec import onnx_backend

        if (missing := onnx_backend.missing(options.engine)) is not None:
            raise EngineError(missing)


def make_codec(
    bundle: ModelBundle, tables: Tables, options: EngineOptions, soon: Iterable[str] = ()
) -> StreamCodec:
    """Return the codec of a bundle; soon: see `make_backend`; raises as `check_options`."""
    if options.engine != REFERENCE:
        return StreamCodec(bundle.manifest, tables, make_backend(bundle, tables, options, soon))
    check_options(bundle, options)
    from dlf.codec.reference_engine import ReferenceCodec

    painting = replace(options, engine="onnxruntime")
    return ReferenceCodec(bundle, tables, lambda: make_backend(bundle, tables, painting))


def make_backend(
    bundle: ModelBundle, tables: Tables, options: EngineOptions, soon: Iterable[str] = ()
) -> Backend:
    """Return what runs the networks of a bundle; raises as `check_options`.

    soon: graphs, such as `TO_DECODE`, to begin to build at once and beside each other, where the engine can.
    """
    check_options(bundle, options)
    if bundle.manifest.engine == "torch":
        return cast("Backend", _torch_backend().TorchBackend(bundle, tables, options))
    from dlf.codec.exactness import proving

    # imported here because ONNX Runtime takes as long to import as everything else together; once an import
    # of it was interrupted, every other one fails
    with postponed():
        from dlf.codec.onnx_backend import OnnxBackend
        from dlf.codec.openvino_engine import OpenVino, WhenItPays, is_installed

    threads = options.threads
    build: Callable[[str, bytes, Callable[[], Network]], Network] | None = None
    if options.engine == "openvino":
        build = OpenVino(threads, options.precision)
    elif options.engine in ACCELERATORS:
        from dlf.codec.onnx_backend import Accelerated

        build = Accelerated(options.engine, threads)
    elif options.engine == "auto" and is_installed():
        build = WhenItPays(threads, bundle.read)
    return OnnxBackend(bundle, tables, threads, proving(bundle, tables, build), soon)


def _torch_backend() -> ModuleType:
    need("torch", "torch")
    need("safetensors", "torch")
    return need("dlf.torch_engine.torch_backend", "torch")
