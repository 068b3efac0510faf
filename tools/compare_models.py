"""Two models on the same pictures: ``python tools/compare_models.py A B --data FOLDER``.

One line for each quality, means over the pictures.  "decoders": PSNR between what the two make of the
same symbols, those that A finds; they need not read each other's files, but must have latents of one size.
The other columns are of files that each model writes and reads itself, against the originals.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from dlf.codec import tiling
from dlf.codec.bundle import ModelBundle, find
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import ENGINES, EngineOptions, make_backend
from dlf.codec.onnx_backend import open_session
from dlf.evaluation.dataset import find_images
from dlf.evaluation.metrics.feature_distance import stem_metric
from dlf.evaluation.metrics.fidelity import PSNR
from dlf.evaluation.metrics.metric import Metric
from dlf.geometry import Plan
from dlf.imageio import load_rgb
from dlf.records import UInt8


class Model:
    """A bundle and what runs it."""

    def __init__(self, bundle: ModelBundle, engine: str) -> None:
        tables = bundle.tables()
        self.bundle, self.backend = bundle, make_backend(bundle, tables, EngineOptions(engine=engine))
        self.codec = StreamCodec(bundle.manifest, tables, self.backend)


def main() -> None:
    """Print sizes and times to load, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs=2, metavar="MODEL", help="folder, name or role")
    parser.add_argument(
        "--engines", nargs=2, choices=ENGINES[1:], default=[ENGINES[1]] * 2, help="what runs each of them"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--pictures", type=int, default=8, help="spread over the folder (default: %(default)s)"
    )
    parser.add_argument("--quality", type=int, nargs="+", default=[30, 50])
    parser.add_argument("--stem", type=Path, metavar="FILE", help="weights of the stem distance")
    args = parser.parse_args()
    models = [Model(find(name), engine) for name, engine in zip(args.models, args.engines, strict=True)]
    for model in models:
        sizes = {name: (model.bundle.folder / name).stat().st_size for name in model.bundle.manifest.files}
        seconds = load_seconds(model.bundle)
        print(
            f"{model.bundle.manifest.name}: {sum(sizes.values())} bytes, {sizes}, loaded in {seconds:.2f} s"
        )
    metrics = [PSNR, *([stem_metric(args.stem)] if args.stem else [])]
    files = find_images(args.data)
    count = min(args.pictures, len(files))
    pictures = [load_rgb(files[i * len(files) // count].path)[0] for i in range(count)]
    for quality in args.quality:
        rows = np.array([compare(models, picture, quality, metrics) for picture in pictures])
        judged = [*(metric.name for metric in metrics), "bytes"]
        names = ["decoders", *(f"{what} {model}" for model in "AB" for what in judged)]
        means = ", ".join(f"{n} {v:.4f}" for n, v in zip(names, rows.mean(0), strict=True))
        print(f"quality {quality}: {means}; least decoders {rows[:, 0].min():.2f}", flush=True)


def load_seconds(bundle: ModelBundle) -> float:
    """Processor time to make the sessions of the pixel networks."""
    graphs = [bundle.read(name) for name in ("analysis.onnx", "synthesis.onnx")]
    start = time.process_time()
    for data in graphs:
        open_session(data)
    return time.process_time() - start


def compare(models: list[Model], picture: UInt8, quality: int, metrics: list[Metric]) -> list[float]:
    """One picture's numbers: decoders, then those of A and those of B; bytes are of the payload."""
    first, second = models
    scores = [metric.against(picture) for metric in metrics]
    row = []
    for model in models:
        stream = model.codec.encode_rgb(picture, quality)
        painted = model.codec.decode_stream(stream)
        row += [*(score(painted) for score in scores), float(len(stream.payload))]
        if model is first:
            plan, received = Plan(*picture.shape[:2]), model.codec.receive(stream)
            again = tiling.synthesise(second.backend, plan, received.tokens, received.y_hat, quality)
            row.insert(0, PSNR.against(painted)(plan.crop(again)))
    return row


if __name__ == "__main__":
    main()
