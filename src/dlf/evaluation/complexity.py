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
from dlf.evaluation.candidates import Coder, Spec
from dlf.evaluation.cost import Cost, Work, alone, decode_cost, encode_cost, idle_cost
from dlf.evaluation.dataset import Picture
from dlf.evaluation.formats import OwnFormat
from dlf.evaluation.ledger import Row
from dlf.evaluation.report import Table
from dlf.evaluation.runner import Bench, Experiment
from dlf.extras import need
from dlf.records import UInt8

NETWORKS = ("analysis", "prior", "context", "synthesis")
IDLE = "(none)"
"""Name of the line that tells what a process needs which does not code at all."""


@dataclass(frozen=True)
class Stage:
    """One network; or "the rest", entropy coding and what is around it; or "all".

    parameters: None where they cannot be counted.  size: bytes of its file, 0 if it has none.
    encode_s, decode_s: seconds for one picture.  encode_macs, decode_macs: multiply-accumulates; None where
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


def stages(sizes: Mapping[str, tuple[int | None, int]], encode: Cost, decode: Cost) -> list[Stage]:
    """Return the networks of one of our codecs, the rest and all; sizes: parameters and bytes of each."""
    both = (encode, decode)
    found = []
    for name in NETWORKS:
        count, size = sizes.get(name, (None, 0))
        encode_s, decode_s = (cost.stages.get(name, 0) for cost in both)
        encode_macs, decode_macs = (None if cost.macs is None else cost.macs.get(name, 0) for cost in both)
        found.append(Stage(name, count, size, encode_s, decode_s, encode_macs, decode_macs))
    rest = [cost.seconds - sum(cost.stages.values()) for cost in both]
    counts = [count for count, _ in sizes.values()]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(counts) else None
    encode_macs, decode_macs = (None if cost.macs is None else sum(cost.macs.values()) for cost in both)
    whole = replace(
        _whole(encode, decode),
        parameters=total,
        size=sum(size for _, size in sizes.values()),
        encode_macs=encode_macs,
        decode_macs=decode_macs,
    )
    return [*found, Stage("the rest", encode_s=rest[0], decode_s=rest[1]), whole]


def network_sizes(found: ModelBundle) -> dict[str, tuple[int | None, int]]:
    """Return parameters (None where they cannot be counted) and bytes of each file of a model's networks.

    In a model that torch runs the file of the context network holds the prior network too.
    """
    sizes: dict[str, tuple[int | None, int]] = {}
    for file in sorted(found.manifest.files):
        name, _, kind = file.partition(".")
        if name in NETWORKS:
            count = _graph_parameters(found.read(file)) if kind == "onnx" else _tensor_parameters(found, file)
            sizes[name] = count, (found.folder / file).stat().st_size
    return sizes


def _graph_parameters(data: bytes) -> int | None:
    try:
        graph = need("onnx", "torch").load_from_string(data).graph
    except Exception:  # not installed; or no graph, as in tests
        return None
    return sum(int(math.prod(tensor.dims)) for tensor in graph.initializer)


def _tensor_parameters(found: ModelBundle, file: str) -> int:
    """Sum up the sizes in the head of a safetensors file, without its tensors."""
    with (found.folder / file).open("rb") as stream:
        head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in head.items() if name != "__metadata__")


def complexity_table(by_codec: Mapping[str, Sequence[Stage]]) -> Table:
    """Return the table of all codecs, a line for each stage."""
    lines = []
    for codec, found in by_codec.items():
        for stage in found:
            parameters = "" if stage.parameters is None else f"{stage.parameters:,}"
            size = f"{stage.size / 1e6:.2f}" if stage.size else ""
            macs = [f"{m / 1e9:.3f}" if m else "" for m in (stage.encode_macs, stage.decode_macs)]
            times = [f"{s:.4f}" if s else "" for s in (stage.encode_s, stage.decode_s)]
            peaks = [f"{p / 1e6:.0f}" if p else "" for p in (stage.encode_peak, stage.decode_peak)]
            lines.append([codec, stage.name, parameters, size, *macs, *times, *peaks])
    titles = ["codec", "stage", "parameters", "file MB", "encode GMAC", "decode GMAC"]
    titles += ["encode s", "decode s", "encode peak MB", "decode peak MB"]
    return Table(titles, lines, words=2)


def measured(
    experiment: Experiment,
    specs: Sequence[Spec],
    pictures: Sequence[Picture],
    rows: Sequence[Row],
    threads: int | None = None,
) -> tuple[Table | None, list[str]]:
    """Return the table of all codecs, on the first picture that went well, at the middle target.

    Each codec codes and decodes with the setting and the scale of its row, in processes of its own.
    specs: of the candidates, by their names.  Also returned: a sentence for each codec that could not be
    measured.  The table is None if there is no such picture.
    """
    target = experiment.targets[len(experiment.targets) // 2].label
    coders = {c.name: c for c in experiment.candidates if isinstance(c, Coder)}
    good = [row for row in rows if row.codec in coders and row.target == target and not row.error]
    if not good:
        return None, []
    first = next(picture for picture in pictures if picture.name == good[0].picture)
    rgb = Bench(experiment, first).original
    by_name = {spec.name: spec for spec in specs}
    idle = alone(idle_cost, rgb)
    found = {IDLE: [Stage("all", encode_peak=idle.peak, decode_peak=idle.peak)]}
    failed = []
    for row in good:
        if row.picture == first.name:
            coder = coders[row.codec]
            work = Work(by_name[row.codec], row.setting, threads)
            small = np.asarray(coder.start(first.name, rgb).scaled(Fraction(row.scale)))
            try:
                found[row.codec] = _of(coder, work, small)
            except Exception as error:  # a codec that cannot be measured does not stop the others
                failed.append(f"{row.codec}: its complexity could not be measured ({error})")
    return complexity_table(found), failed


def _of(coder: Coder, work: Work, rgb: UInt8) -> list[Stage]:
    data, encode = alone(encode_cost, work, rgb)
    decode = alone(decode_cost, work, data)
    if isinstance(coder.format, OwnFormat):
        return stages(network_sizes(bundle.find(coder.format.model)), encode, decode)
    return [_whole(encode, decode)]


def _whole(encode: Cost, decode: Cost) -> Stage:
    """Return what is known of every codec."""
    return Stage(
        "all",
        encode_s=encode.seconds,
        decode_s=decode.seconds,
        encode_peak=encode.peak,
        decode_peak=decode.peak,
    )
