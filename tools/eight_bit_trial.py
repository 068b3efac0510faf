"""8 bits in the synthesis: ``python tools/eight_bit_trial.py base --data FOLDER``.

Convolutions are quantised by ONNX Runtime (static, QDQ, weights by channel), with the ranges of activations
on every second picture of the folder.  The others are painted from the same symbols by both graphs.  One line
for each set of layers: how far the pictures are apart, how near each is to the original, and processor time
by turns.  It needs the extra `torch`, for the package onnx.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization

from dlf.codec.backend import Network
from dlf.codec.bundle import ModelBundle, find
from dlf.codec.codec import StreamCodec
from dlf.codec.onnx_backend import OnnxBackend, open_session
from dlf.evaluation.dataset import find_images
from dlf.evaluation.metrics.feature_distance import hed_metric, stem_metric
from dlf.evaluation.metrics.fidelity import PSNR
from dlf.imageio import load_rgb
from dlf.records import UInt8

LAYERS = {"3x3": lambda dims: dims[2] == 3 and dims[1] > 1, "all": lambda dims: True}
"""Convolutions by the sizes of their weights (outputs, inputs of a group, rows, columns)."""


class Ranges(quantization.CalibrationDataReader):
    """What the graph is given for the ranges of its activations."""

    def __init__(self, feeds: Sequence[dict[str, Any]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next inputs."""
        return next(self._feeds, None)


def codec(bundle: ModelBundle, synthesis: bytes, threads: int) -> tuple[StreamCodec, OnnxBackend]:
    """Return the model with another graph in the place of its synthesis."""

    def build(graph: str, data: bytes, _: object) -> Network:
        session = open_session(synthesis if graph == "synthesis" else data, threads)
        return Network(tuple(node.name for node in session.get_inputs()), session.run)

    tables = bundle.tables()
    backend = OnnxBackend(bundle, tables, threads, build)
    return StreamCodec(bundle.manifest, tables, backend), backend


def given(bundle: ModelBundle, pictures: Sequence[UInt8], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what the synthesis is given for each picture."""
    plain, backend = codec(bundle, bundle.read("synthesis.onnx"), args.threads)
    feeds = []
    for picture in pictures:
        seen: dict[str, dict[str, Any]] = {}
        backend.watch = lambda graph, inputs, seen=seen: seen.update({graph: dict(inputs)})
        plain.decode_stream(plain.encode_rgb(picture, args.quality))
        feeds.append(seen["synthesis"])
    return feeds


def quantised(data: bytes, layers: str, feeds: Sequence[dict[str, Any]]) -> tuple[bytes, int]:
    """Return the graph with those convolutions in 8 bits, and how many these are."""
    with tempfile.TemporaryDirectory() as folder:
        flat, path = Path(folder, "flat.onnx"), Path(folder, "quantised.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(flat)
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        model = onnx.load(flat)
        for number, node in enumerate(model.graph.node):
            node.name = f"node{number}"
        onnx.save(model, flat)
        sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        names = [node.name for node in convolutions if LAYERS[layers](sizes[node.input[1]])]
        quantization.quantize_static(
            flat,
            path,
            Ranges(feeds),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            nodes_to_quantize=names,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return path.read_bytes(), len(names)


def main() -> None:
    """Print a line for each set of layers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="folder, name or role")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--pictures", type=int, default=16, help="half of them for the ranges")
    parser.add_argument("--quality", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stem", type=Path, metavar="FILE", help="weights of the stem distance")
    parser.add_argument("--hed", action="store_true", help="measure the HED distance as well")
    args = parser.parse_args()
    bundle, files = find(args.model), find_images(args.data)
    count = min(args.pictures, len(files))
    pictures = [load_rgb(files[i * len(files) // count].path)[0][:512, :768] for i in range(count)]
    data, feeds = bundle.read("synthesis.onnx"), given(bundle, pictures[::2], args)
    metrics = [PSNR, *([stem_metric(args.stem)] if args.stem else []), *([hed_metric()] if args.hed else [])]
    plain, _ = codec(bundle, data, args.threads)
    for layers in LAYERS:
        graph, number = quantised(data, layers, feeds)
        other, _ = codec(bundle, graph, args.threads)
        rows, seconds = [], []
        for picture in pictures[1::2]:
            stream = plain.encode_rgb(picture, args.quality)
            received = plain.receive(stream)
            painted, spent = [], []
            for each in (plain, other):
                each.paint(received, stream.header)
                start = time.process_time()
                painted.append(each.paint(received, stream.header))
                spent.append(time.process_time() - start)
            apart = np.subtract(*painted, dtype=np.float64)
            scores = [metric.against(picture)(image) for metric in metrics for image in painted]
            rows.append([np.sqrt((apart**2).mean()), np.abs(apart).max(), *scores])
            seconds.append(spent)
        apart, most, *scores = np.mean(rows, 0)
        judged = [
            f"{m.name} {a:.4f} and {b:.4f}"
            for m, a, b in zip(metrics, scores[::2], scores[1::2], strict=True)
        ]
        before, after = (median(each) for each in zip(*seconds, strict=True))
        print(
            f"{layers}, {number} convolutions: {apart:.2f} levels rms, {most:.0f} at most, "
            f"{', '.join(judged)}; "
            f"{before:.3f} s and {after:.3f} s, {before / after:.2f} times faster",
            flush=True,
        )


if __name__ == "__main__":
    main()
