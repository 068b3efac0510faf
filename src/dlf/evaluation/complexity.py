"""What our codec costs: parameters, bytes and seconds of each network."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from dlf.codec import bundle
from dlf.codec.backend import Backend
from dlf.codec.bundle import GRAPHS, ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.evaluation.candidates import Coder
from dlf.evaluation.dataset import Picture
from dlf.evaluation.formats import OwnFormat
from dlf.evaluation.ledger import Row
from dlf.evaluation.report import Table
from dlf.evaluation.runner import Bench, Experiment
from dlf.extras import need
from dlf.records import Float32, Int32, Latents, Prior, StepParams, UInt8


@dataclass(frozen=True)
class Stage:
    """One network; or "the rest", entropy coding and what is around it; or "all".

    parameters: None where they cannot be counted.  size: bytes of its file, 0 if it has none.
    encode_s, decode_s: seconds for one picture.
    """

    name: str
    parameters: int | None
    size: int
    encode_s: float
    decode_s: float


class Stopwatch:
    """A `Backend` that notes how long another one takes; seconds: by the name of the network."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.seconds: dict[str, float] = {}

    def analyse(self, rgb: UInt8, quality: int) -> Latents:
        """Pixels to latents."""
        with self._timed("analysis"):
            return self._backend.analyse(rgb, quality)

    def prior(self, rows: int, cols: int, quality: int) -> Prior:
        """Parameters that depend on size and quality only."""
        with self._timed("prior"):
            return self._backend.prior(rows, cols, quality)

    def context(self, step: int, y_hat: Int32, common: Float32) -> StepParams:
        """Parameters of a step."""
        with self._timed("context"):
            return self._backend.context(step, y_hat, common)

    def synthesise(self, tokens: Int32, y_hat: Float32, quality: int) -> UInt8:
        """Latents to pixels."""
        with self._timed("synthesis"):
            return self._backend.synthesise(tokens, y_hat, quality)

    def measured(self, whole: float) -> dict[str, float]:
        """Return the seconds since the last call, with "the rest" of `whole`, and forget them."""
        found = self.seconds | {"the rest": whole - sum(self.seconds.values()), "all": whole}
        self.seconds = {}
        return found

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + perf_counter() - start


def stages(
    model: str | os.PathLike[str] | None, rgb: UInt8, quality: int, threads: int | None = None
) -> list[Stage]:
    """Code uint8 (H, W, 3) twice and return what the second time took; the first one warms up.

    Raises:
        UnknownModel, BundleError: the model cannot be used.
    """
    from dlf.codec.onnx_backend import OnnxBackend

    found = bundle.find(model)
    tables = found.tables()
    watch = Stopwatch(OnnxBackend(found, tables, threads))
    codec = StreamCodec(found.manifest.id, tables, watch)
    for _ in range(2):
        start = perf_counter()
        stream = codec.encode_rgb(rgb, quality)
        encode = watch.measured(perf_counter() - start)
        start = perf_counter()
        codec.decode_stream(stream)
        decode = watch.measured(perf_counter() - start)
    sizes = {name.partition(".")[0]: _size(found, name) for name in GRAPHS}
    counts = [count for count, _ in sizes.values()]
    known = [count for count in counts if count is not None]
    sizes["the rest"] = None, 0
    total = sum(known) if len(known) == len(counts) else None
    sizes["all"] = total, sum(size for _, size in sizes.values())
    return [Stage(name, *size, encode.get(name, 0), decode.get(name, 0)) for name, size in sizes.items()]


def _size(found: ModelBundle, name: str) -> tuple[int | None, int]:
    """Return parameters (None without the package onnx) and bytes of a graph."""
    data = found.read(name)
    try:
        graph = need("onnx", "torch").load_from_string(data).graph
    except Exception:  # not installed; or no graph, as in tests
        return None, len(data)
    return sum(math.prod(tensor.dims) for tensor in graph.initializer), len(data)


def complexity_table(by_codec: dict[str, list[Stage]]) -> Table:
    """Return the table of all codecs, a line for each stage."""
    lines = []
    for codec, found in by_codec.items():
        for stage in found:
            parameters = "" if stage.parameters is None else f"{stage.parameters:,}"
            size = f"{stage.size / 1e6:.2f}" if stage.size else ""
            times = [f"{s:.3f}" if s else "" for s in (stage.encode_s, stage.decode_s)]
            lines.append([codec, stage.name, parameters, size, *times])
    titles = ["codec", "stage", "parameters", "MB", "encode s", "decode s"]
    return Table(titles, lines, words=2)


def measured(
    experiment: Experiment, pictures: Sequence[Picture], rows: Sequence[Row], threads: int | None = None
) -> Table | None:
    """Return the table of our codecs, on the first picture that went well, at the middle target.

    None if there is no such picture.  Raises as `stages`.
    """
    own = {c.name: c.format for c in experiment.candidates if isinstance(c, Coder)}
    models = {name: form.model for name, form in own.items() if isinstance(form, OwnFormat)}
    target = experiment.targets[len(experiment.targets) // 2].label
    good = [row for row in rows if row.codec in models and row.target == target and not row.error]
    if not good:
        return None
    first = next(picture for picture in pictures if picture.name == good[0].picture)
    rgb = Bench(experiment, first).original
    settings = {row.codec: row.setting for row in good if row.picture == first.name}
    return complexity_table({name: stages(models[name], rgb, q, threads) for name, q in settings.items()})
