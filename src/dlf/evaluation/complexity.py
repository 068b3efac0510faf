"""What codecs cost: parameters, bytes, multiply-accumulates, seconds and memory, by network for our own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from dlf.codec import bundle
from dlf.codec.bundle import ModelBundle
from dlf.evaluation.codecs.fitting import ScaledCodec
from dlf.evaluation.codecs.formats import DlfCodec
from dlf.evaluation.codecs.protocols import Codec
from dlf.evaluation.codecs.specs import CodecSpec
from dlf.evaluation.comparison import Comparison
from dlf.evaluation.cost import Cost, Work, alone, decode_cost, encode_cost, idle_cost
from dlf.evaluation.dataset import ImageFile
from dlf.evaluation.image_bench import ImageBench
from dlf.evaluation.ledger import Row
from dlf.extras import need
from dlf.records import UInt8

NETWORKS = ("analysis", "prior", "context", "synthesis")
IDLE = "(none)"
"""Name of the line that tells what a process needs which does not code at all."""


@dataclass(frozen=True)
class Stage:
    """One network; or "the rest", entropy coding and what is around it; or "all".

    parameters: None where they cannot be counted.  size: bytes of its file, 0 if it has none.
    encode_s, decode_s: seconds for one image.  encode_macs, decode_macs: multiply-accumulates; None where
    they are not known.  encode_peak, decode_peak: bytes of memory, of "all" only.
    """

    name: str
    parameters: int | None = None
    size: int = 0
    encode_s: float = 0
    decode_s: float = 0
    encode_macs: int | None = None
    decode_macs: int | None = None
    encode_peak: int | None = None
    decode_peak: int | None = None


@dataclass(frozen=True)
class CodecComplexity:
    """What one codec costs, by stage; the last stage is "all"."""

    codec: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Complexity:
    """What the codecs cost; notes: a sentence for each codec that could not be measured."""

    codecs: tuple[CodecComplexity, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkSize:
    """Parameters, None where they cannot be counted, and bytes of a network's file."""

    parameters: int | None = None
    size: int = 0


def stages(sizes: Mapping[str, NetworkSize], encode: Cost, decode: Cost) -> list[Stage]:
    """Return the networks of one of our codecs, the rest and all; sizes: by network."""
    both = (encode, decode)
    networks = []
    for name in NETWORKS:
        size = sizes.get(name, NetworkSize())
        encode_s, decode_s = (cost.stages.get(name, 0) for cost in both)
        encode_macs, decode_macs = (None if cost.macs is None else cost.macs.get(name, 0) for cost in both)
        cells = size.parameters, size.size, encode_s, decode_s, encode_macs, decode_macs
        networks.append(Stage(name, *cells))
    rest = [cost.seconds - sum(cost.stages.values()) for cost in both]
    counts = [size.parameters for size in sizes.values() if size.parameters is not None]
    total = sum(counts) if len(counts) == len(sizes) else None
    encode_macs, decode_macs = (None if cost.macs is None else sum(cost.macs.values()) for cost in both)
    whole = replace(
        _whole(encode, decode),
        parameters=total,
        size=sum(size.size for size in sizes.values()),
        encode_macs=encode_macs,
        decode_macs=decode_macs,
    )
    return [*networks, Stage("the rest", encode_s=rest[0], decode_s=rest[1]), whole]


def network_sizes(model: ModelBundle) -> dict[str, NetworkSize]:
    """Return the size of each of a model's networks.

    In a model that torch runs the file of the context network holds the prior network too.
    """
    sizes: dict[str, NetworkSize] = {}
    for file in sorted(model.manifest.files):
        name, _, kind = file.partition(".")
        if name in NETWORKS:
            count = _graph_parameters(model.read(file)) if kind == "onnx" else _tensor_parameters(model, file)
            sizes[name] = NetworkSize(count, (model.folder / file).stat().st_size)
    return sizes


def _graph_parameters(data: bytes) -> int | None:
    try:
        graph = need("onnx", "torch").load_from_string(data).graph
    except Exception:  # not installed; or no graph, as in tests
        return None
    return sum(int(math.prod(tensor.dims)) for tensor in graph.initializer)


def _tensor_parameters(model: ModelBundle, file: str) -> int:
    """Sum up the sizes in the head of a safetensors file, without its tensors."""
    with (model.folder / file).open("rb") as stream:
        head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")


def measured(
    comparison: Comparison,
    specs: Sequence[CodecSpec],
    images: Sequence[ImageFile],
    rows: Sequence[Row],
    threads: int | None = None,
) -> Complexity:
    """Return what all codecs cost, on the first image that went well, at the middle target.

    Each codec codes and decodes with the setting and the scale of its row, in processes of its own.
    specs: of the codecs, by their names.  There are no costs if there is no such image.
    """
    target = comparison.targets[len(comparison.targets) // 2].label
    running = {c.name: c for c in comparison.codecs if isinstance(c, ScaledCodec)}
    good = [row for row in rows if row.codec in running and row.target == target and not row.error]
    if not good:
        return Complexity()
    first = next(image for image in images if image.name == good[0].picture)
    rgb = ImageBench(comparison, first).original
    by_name = {spec.name: spec for spec in specs}
    idle = alone(idle_cost, rgb)
    costs = [CodecComplexity(IDLE, (Stage("all", encode_peak=idle.peak, decode_peak=idle.peak),))]
    notes = []
    for row in good:
        if row.picture == first.name:
            compared = running[row.codec]
            work = Work(by_name[row.codec], row.setting, threads)
            small = np.asarray(compared.start(first.name, rgb).scaled(Fraction(row.scale)))
            try:
                costs.append(CodecComplexity(row.codec, tuple(_of(compared.codec, work, small))))
            except Exception as error:  # a codec that cannot be measured does not stop the others
                notes.append(f"{row.codec}: its complexity could not be measured ({error})")
    return Complexity(tuple(costs), tuple(notes))


def _of(codec: Codec, work: Work, rgb: UInt8) -> list[Stage]:
    encode = alone(encode_cost, work, rgb)
    decode = alone(decode_cost, work, encode.data)
    if isinstance(codec, DlfCodec):
        return stages(network_sizes(bundle.find(codec.model)), encode.cost, decode)
    return [_whole(encode.cost, decode)]


def _whole(encode: Cost, decode: Cost) -> Stage:
    """Return what is known of every codec."""
    return Stage(
        "all",
        encode_s=encode.seconds,
        decode_s=decode.seconds,
        encode_peak=encode.peak,
        decode_peak=decode.peak,
    )
