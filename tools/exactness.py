"""Decode the same streams in many ways and compare their symbols; print a table, exit with 1 on a difference.

    python tools/exactness.py                     ONNX Runtime at all levels, and the reference decoder
    python tools/exactness.py --torch --data kodak     torch too; and pictures of a folder at five rates
    python tools/exactness.py --python old/bin/python --python new/bin/python
    python tools/exactness.py --emulate 'qemu-x86_64 -cpu Nehalem' --emulate 'qemu-x86_64 -cpu Haswell'
    python tools/exactness.py --reference-python 'qemu-aarch64 -L arm64 arm64/usr/bin/python3.11'

The streams are those of the conformance folder, whose sums are committed, and with --data those of a folder
of pictures, as this machine writes them.  `--python` names interpreters whose ONNX Runtime decodes;
`--emulate` a command before this interpreter; `--reference-python` an interpreter with numpy and nothing
else.  What is emulated decodes a few small streams only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "conformance"
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
THREADS = (1, 2, 3, 4)
SMALL = ("face", "cup", "tower")
QUALITIES = (0, 25, 50, 75, 100)
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}

Sums = dict[str, list[str]]
"""SHA-256 of tokens and of details, by path."""


@dataclass(frozen=True)
class Row:
    """One way to decode.

    way: what decodes.  streams, wrong: how many there were, and how many gave other symbols.
    """

    way: str
    streams: int
    wrong: int


def reference_sums(paths: Sequence[str]) -> Iterator[tuple[str, Sums]]:
    """The reference decoder; needs numpy only."""
    import numpy as np

    sums = sums_of_reference(paths, lambda model, _: model)
    yield f"reference decoder, numpy {np.__version__}, {platform.machine()}", sums


def sums_of_reference(paths: Sequence[str], change: Callable[[Any, Path], Any]) -> Sums:
    """Sums by the reference decoder; change: what is done to a model that was read from a folder."""
    from dlf.bitstream import container
    from dlf.reference.decoder import decode_symbols, sha256_of
    from dlf.reference.model import ReferenceModel

    models: dict[int, ReferenceModel] = {}
    for manifest in sorted((ROOT / "src" / "dlf" / "assets").glob("*/manifest.json")):
        model = ReferenceModel.open(manifest.parent)
        models[model.id] = change(model, manifest.parent)
    sums: Sums = {}
    for path in paths:
        stream = container.load(Path(path).read_bytes())
        found = decode_symbols(stream, models[stream.header.model])
        sums[path] = [sha256_of(found.tokens), sha256_of(found.details)]
    return sums


def mixed_sums(paths: Sequence[str]) -> Iterator[tuple[str, Sums]]:
    """The walk of the reference decoder over networks in ONNX Runtime; needs no range coder of the codec."""
    import numpy as np
    import onnxruntime

    from dlf.reference.fixed import Fixed

    class Floats:
        def __init__(self, path: Path) -> None:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )

        def run(self, names: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
            feeds = {
                node.name: value.numbers.astype(np.float32) if isinstance(value, Fixed) else value
                for node in self.session.get_inputs()
                for value in [inputs[node.name]]
            }
            found = self.session.run(names, feeds)
            assert all((np.rint(each) == each).all() for each in found)
            return [each.astype(np.int32) for each in found]

    def change(model: Any, folder: Path) -> Any:
        graphs = {name: Floats(folder / f"{name}.onnx") for name in ("prior", "context")}
        return replace(model, **graphs)

    way = f"reference walk, ONNX Runtime {onnxruntime.__version__}, {platform.machine()}"
    yield way, sums_of_reference(paths, change)


def codec_sums(paths: Sequence[str], make: Callable[[Any, Any], Any]) -> Sums:
    """The package's own walk over what a backend computes; make: a backend from a bundle and its tables."""
    from dlf.bitstream import container
    from dlf.codec.bundle import find
    from dlf.codec.codec import StreamCodec
    from dlf.reference.decoder import sha256_of

    codecs: dict[int, StreamCodec] = {}
    sums: Sums = {}
    for path in paths:
        stream = container.load(Path(path).read_bytes())
        number = stream.header.model
        if number not in codecs:
            bundle = find(number)
            tables = bundle.tables()
            codecs[number] = StreamCodec(bundle.manifest, tables, make(bundle, tables))
        found = codecs[number].receive(stream)
        sums[path] = [sha256_of(found.tokens), sha256_of(found.details)]
    return sums


def onnxruntime_sums(
    paths: Sequence[str], levels: Sequence[str], threads: Sequence[int]
) -> Iterator[tuple[str, Sums]]:
    """ONNX Runtime at each level of optimisation with each number of threads."""
    import onnxruntime

    from dlf.codec.backend import Network
    from dlf.codec.onnx_backend import OnnxBackend

    for level in levels:
        for count in threads:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.intra_op_num_threads = count
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)

            def build(_: str, data: bytes, __: object, options: Any = options) -> Network:
                session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
                return Network(tuple(node.name for node in session.get_inputs()), session.run)

            way = f"ONNX Runtime {onnxruntime.__version__}, {level}, {count} threads, {platform.machine()}"
            yield way, codec_sums(paths, lambda b, t, build=build: OnnxBackend(b, t, build=build))


def torch_sums(paths: Sequence[str]) -> Iterator[tuple[str, Sums]]:
    """Torch modules with the weights that the bundles hold."""
    import numpy as np
    import torch

    from dlf.bundles import graphs
    from dlf.bundles.recover import recover
    from dlf.errors import BundleError
    from dlf.nn.build import PRESETS
    from dlf.nn.model import Dlf
    from dlf.records import Prior, StepParams

    def recovered(bundle: Any) -> Dlf:
        for preset in ("compact", "base"):
            try:
                tensors = recover(bundle, preset).tensors
            except BundleError:
                continue
            model = Dlf(PRESETS[preset]).eval()
            model.load_state_dict(tensors)
            return model
        msg = f"no preset has the weights of {bundle.manifest.name}"
        raise SystemExit(msg)

    class TorchBackend:
        def __init__(self, bundle: Any, tables: Any) -> None:
            model = recovered(bundle)
            self.tables, self.networks = tables, (graphs.Prior(model), graphs.Context(model))

        @torch.no_grad()
        def prior(self, rows: int, cols: int, quality: int, tokens: Any) -> Prior:
            vector = torch.from_numpy(self.tables.prior[quality].astype(np.float32))
            inputs = [vector[None, :, None, None].expand(1, -1, rows, cols)]
            if self.tables.token_prior:
                windows = -(-rows // 8), -(-cols // 8)
                inputs.append(torch.from_numpy(tokens.reshape(*windows, -1).astype(np.int64)))
            scale, mean, step, common = (each[0].numpy() for each in self.networks[0](*inputs))
            first = StepParams(scale.astype(np.int32), mean.astype(np.int32))
            return Prior(first, common, step.astype(np.int32))

        @torch.no_grad()
        def context(self, step: int, y_hat: Any, common: Any) -> StepParams:
            inputs = (torch.from_numpy(each[None].astype(np.float32)) for each in (y_hat, common))
            scale, mean = self.networks[1](*inputs, torch.tensor(step - 1))
            return StepParams(scale[0].numpy().astype(np.int32), mean[0].numpy().astype(np.int32))

    yield f"torch {torch.__version__}, recovered weights", codec_sums(paths, TorchBackend)


WORKERS: dict[str, Callable[[Sequence[str]], Iterator[tuple[str, Sums]]]] = {
    "reference": reference_sums,
    "onnxruntime": lambda paths: onnxruntime_sums(paths, LEVELS, THREADS),
    "onnxruntime-once": lambda paths: onnxruntime_sums(paths, LEVELS[::3], THREADS[:1]),
    "mixed": mixed_sums,
    "torch": torch_sums,
}


def ask(command: Sequence[str], worker: str, paths: Sequence[str]) -> Iterator[tuple[str, Sums]]:
    """Run a worker in a process of its own; yields what it prints as it comes."""
    words = [*command, str(Path(__file__).resolve()), "--worker", worker]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "ORT_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(list(paths)))
        process.stdin.close()
        for line in process.stdout:
            way, sums = json.loads(line)
            yield way, sums
    if process.returncode:
        yield f"{' '.join(words[:-2])} failed with code {process.returncode}", {}


def written(data: Path, folder: Path, limit: int | None) -> list[str]:
    """Streams of the pictures of a folder at five rates, of every model."""
    import numpy as np
    from PIL import Image

    from dlf.bitstream import container
    from dlf.bitstream.header import Header
    from dlf.codec.bundle import find, shipped_roles
    from dlf.codec.codec import StreamCodec
    from dlf.codec.onnx_backend import OnnxBackend

    paths = []
    pictures = [path for path in sorted(data.iterdir()) if path.suffix.lower() in SUFFIXES]
    for bundle in {find(role).folder: find(role) for role in shipped_roles()}.values():
        tables = bundle.tables()
        codec = StreamCodec(bundle.manifest, tables, OnnxBackend(bundle, tables))
        for picture in pictures[:limit]:
            with Image.open(picture) as image:
                rgb = np.asarray(image.convert("RGB"))
            latents = codec.analyse(rgb, 50)
            for quality in QUALITIES:
                header = Header(bundle.manifest.id, quality, rgb.shape[1], rgb.shape[0])
                path = folder / f"{picture.stem}-{bundle.folder.name}-q{quality}.dlf"
                path.write_bytes(container.dump(codec.write(latents, header)))
                paths.append(str(path))
    return paths


def ways(
    options: argparse.Namespace, streams: Sequence[str], small: Sequence[str], more: Sequence[str]
) -> Iterator[tuple[str, Sums]]:
    """Every way to decode that was asked for, with its sums.

    small: some of the streams.  more: those of the user's pictures, which are larger.
    """
    own = [sys.executable]
    yield from ask(own, "reference", [*streams, *more])
    yield from ask(own, "onnxruntime", streams)
    if more:
        yield from ask(own, "onnxruntime-once", more)
    if options.torch:
        yield from ask(own, "torch", [*streams, *more])
    for python in options.python:
        yield from ask(shlex.split(python), "onnxruntime", streams)
        yield from ask(shlex.split(python), "reference", small)
    for emulator in options.emulate:
        for way, sums in ask([*shlex.split(emulator), *own], "onnxruntime-once", small):
            yield f"{way}, {emulator}", sums
    for python in options.reference_python:
        yield from ask(shlex.split(python), "reference", small)
    for python in options.mixed_python:
        yield from ask(shlex.split(python), "mixed", small)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of pictures to encode as well")
    parser.add_argument("--pictures", type=int, help="how many of them; all if not given")
    parser.add_argument("--torch", action="store_true", help="torch too")
    parser.add_argument("--python", action="append", default=[], help="another interpreter")
    parser.add_argument("--emulate", action="append", default=[], help="an emulator before this interpreter")
    parser.add_argument("--reference-python", action="append", default=[], help="one that has numpy only")
    parser.add_argument(
        "--mixed-python", action="append", default=[], help="one that has numpy and ONNX Runtime only"
    )
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        for way, sums in WORKERS[options.worker](json.load(sys.stdin)):
            print(json.dumps([way, sums]), flush=True)
        return 0
    index = json.loads((FOLDER / "index.json").read_text("utf-8"))
    wanted: Sums = {
        str(FOLDER / entry["file"]): [entry["token_sha256"], entry["detail_sha256"]]
        for entry in index["streams"]
    }
    small = [path for path in wanted if Path(path).name.startswith(SMALL)]
    with tempfile.TemporaryDirectory() as folder:
        more = written(options.data, Path(folder), options.pictures) if options.data else []
        rows = []
        for way, sums in ways(options, list(wanted), small, more):
            for path in more:  # the first way says what the others must give
                wanted.setdefault(path, sums.get(path, []))
            rows.append(Row(way, len(sums), sum(sums[path] != wanted[path] for path in sums)))
            print(f"{way} | {rows[-1].streams} streams | {rows[-1].wrong} differ", flush=True)
    wrong = [row for row in rows if row.wrong or not row.streams]
    print(f"{len(rows)} ways to decode, {len(wrong)} of them wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
