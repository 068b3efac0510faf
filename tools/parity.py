"""Compare the preset dlf-l with reference numbers: ``python tools/parity.py FIXTURE.npz [--salt N]``.

The fixture holds a picture and what the released implementation made of it, under weights that follow from
the tensors' names.  This tool makes the same weights, writes them as a model folder (5 GB, in the
temporary folder unless --model names one, which is then used again), and runs the codec on the picture.
It prints a line for each array and, last, "parity: ok" or "parity: FAILED" (exit code 1).
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.bitstream import container
from dlf.bundles.bundle_writer import BundleSpec
from dlf.bundles.keymap import entries, fit
from dlf.bundles.torch_bundle import write_torch_bundle
from dlf.codec import tiling
from dlf.codec.bundle import MANIFEST, ModelBundle
from dlf.codec.codec import StreamCodec
from dlf.codec.detail import Sender, Side, walk
from dlf.codec.engine import EngineOptions
from dlf.codec.semantic import exchange_tokens
from dlf.entropy.coder import Exchanged, SymbolWriter
from dlf.entropy.gaussian import exchange_symbols
from dlf.entropy.tables import UNSENT, Tables
from dlf.geometry import Plan
from dlf.nn.build import DLF_L
from dlf.nn.model import Dlf
from dlf.records import Int32, UInt8
from dlf.torch_engine.torch_backend import TorchBackend

Array = NDArray[np.generic]
QUALITY = 50  # without meaning for this model
MODEL_ID = 2**20  # of no published model

NEAR = 0.02  # of a symbol: how far from a rounding border a place may be that differs
LARGER = 1.01  # how much larger than the reference's a stream may be; a smaller one loses nothing


def recipe(name: str, shape: tuple[int, ...], salt: int) -> NDArray[np.float32]:
    """The value that the reference gives to the released tensor of this name."""
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode()) ^ salt))
    noise = rng.standard_normal(size=shape, dtype=np.float32)
    last = name.rsplit(".", 1)[-1]
    if len(shape) <= 1:
        return 1 + 0.1 * noise if last == "weight" else 0.02 * noise
    if name.endswith("embedding.weight"):
        return noise
    if last in ("weight", "in_proj_weight"):
        return noise * np.float32(1 / math.sqrt(math.prod(shape[1:])))
    if name.endswith(("enc_q", "dec_q", "factorized_prior_vec", "layer_scale")):
        return 1 + 0.1 * noise
    return 0.1 * noise


def released_shape(theirs: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a released tensor from that of ours, which may lack axes of length 1."""
    if theirs.endswith(("pos_emb",)):
        return (shape[0], 1, shape[1])
    if theirs.endswith(("enc_q", "dec_q", "factorized_prior_vec")):
        return (*shape, 1, 1)
    if theirs.endswith("layer_scale"):
        return (1, *shape, 1, 1)
    return shape


def model_name(salt: int) -> str:
    """What the model with these weights is called."""
    return f"parity-{salt}"


def make_model(folder: Path, salt: int) -> None:
    """Write a model folder with the reference's weights."""
    with torch.device("meta"):
        ours = {name: tuple(tensor.shape) for name, tensor in Dlf(DLF_L).state_dict().items()}
    theirs = {entry.ours: entry.theirs for entry in entries(ours)}

    def get(name: str) -> Tensor:
        value = recipe(theirs[name], released_shape(theirs[name], ours[name]), salt)
        return fit(theirs[name], torch.from_numpy(value), ours[name])

    write_torch_bundle(DLF_L, get, folder, BundleSpec(model_name(salt), MODEL_ID))


@dataclass
class Report:
    """Prints one line for each array and remembers whether all were good."""

    good: bool = field(default=True)

    def line(self, name: str, what: str, *, good: bool) -> None:
        """Print one line."""
        self.good &= good
        print(f"{name:<22} {what:<60} {'ok' if good else 'FAILED'}", flush=True)

    def close(self, name: str, ours: Array, reference: Array, tolerance: float) -> None:
        """Compare in relative norm."""
        a, b = ours.astype(np.float64), reference.astype(np.float64)
        error = float(np.linalg.norm(a - b) / np.linalg.norm(b)) if a.shape == b.shape else math.inf
        self.line(name, f"relative error {error:.2e}, at most {tolerance:.0e}", good=error <= tolerance)

    def size(self, name: str, ours: int, reference: int) -> None:
        """Compare two streams of the same symbols, in bytes."""
        what = f"{ours} instead of {reference}, at most {LARGER - 1:.0%} more"
        self.line(name, what, good=ours <= LARGER * reference)


class Recorder:
    """A side that keeps the symbols that pass, on the latent grid."""

    def __init__(self, side: Side, shape: tuple[int, ...]) -> None:
        self._side = side
        self.symbols = np.zeros(shape, np.int32)

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Pass the symbols of one step; see `Side`."""
        exchanged = self._side.exchange(mask, index, mean, step)
        self.symbols[mask] = exchanged.symbols
        return exchanged


class Given:
    """A side that writes given symbols, and keeps what the model would have rounded at these places."""

    def __init__(self, symbols: Int32, y: NDArray[np.float32], tables: Tables) -> None:
        self._symbols, self._y, self._tables = symbols, y, tables
        self.residual = np.zeros(symbols.shape)
        self.writer = SymbolWriter()

    def exchange(
        self, mask: NDArray[np.bool_], index: NDArray[np.int16], mean: Int32, step: Int32
    ) -> Exchanged:
        """Write the symbols of one step; see `Side`."""
        tables = self._tables
        residual = self._y[mask] * (tables.step_unit / step) - mean / tables.mean_unit
        self.residual[mask] = np.where(index < UNSENT, 0, residual)
        return exchange_symbols(self.writer, self._symbols[mask], index, tables)


def compare_symbols(report: Report, given: Given, reference: Array, free: Array) -> None:
    """Few symbols may differ, each by one and next to a rounding border.

    A symbol that fell on the other side of a border changes what all later steps see, and under random
    weights much of what they say.  So each step is compared with the reference's symbols of the steps
    before; how many differ when each step sees our own is only told.
    """
    rounded = np.rint(given.residual).astype(np.int64)
    apart = np.abs(rounded - reference)
    places = apart > 0
    far = float(np.abs(np.abs(given.residual - np.floor(given.residual)) - 0.5)[places].max(initial=0))
    what = f"{places.sum()} of {places.size} differ, at most 0.1 %; by {apart.max()}, {far:.5f} from a border"
    good = places.sum() <= places.size / 1000 and apart.max() <= 1 and far <= NEAR
    report.line("y_q", what, good=bool(good))
    print(f"{'':<22} {int((free != reference).sum())} where later steps see our own symbols")


def check(backend: TorchBackend, bundle: ModelBundle, fixture: dict[str, Array]) -> bool:
    """Encode and decode the fixture's picture; returns whether all is as it should be."""
    report, tables = Report(), bundle.tables()
    rgb: UInt8 = fixture["pixels"].astype(np.uint8)
    z, y_batch = backend.latents(rgb, QUALITY)
    y = y_batch[0].numpy()
    report.close("z", z.transpose(1, 2).numpy(), fixture["z"], 1e-4)
    tokens = backend.analyse(rgb, QUALITY).tokens
    wrong = int((tokens != fixture["indices"]).sum())
    report.line("indices", f"{wrong} of {tokens.size} differ, none may", good=wrong == 0)
    report.close("y", y, fixture["y"], 1e-4)

    reference = fixture["y_q"].astype(np.int32)
    prior = backend.prior(y.shape[1], y.shape[2], QUALITY, tokens)
    free = Recorder(Sender(y, SymbolWriter(), tables), y.shape)
    walk(backend, tables, prior, free)
    given = Given(reference, y, tables)
    y_hat = walk(backend, tables, prior, given).y_hat
    compare_symbols(report, given, reference, free.symbols)
    report.size("detail_stream_bytes", len(given.writer.finish()), int(fixture["detail_stream_bytes"]))
    token_writer = SymbolWriter()
    counts = np.full(len(tokens), tables.tokens, np.int64)
    exchange_tokens(token_writer, tokens, counts, tables)
    size, exact = len(token_writer.finish()), len(tokens) * tables.tokens * 12 // 8
    report.line("token_stream_bytes", f"{size}, at most {exact}", good=size <= exact)

    report.close("y_hat", y_hat, fixture["y_hat"], 1e-4)
    synthesis = backend.decode(fixture["indices"].astype(np.int32), y_hat, QUALITY)
    report.close("logits", synthesis.fused.logits[0].permute(2, 0, 1).numpy(), fixture["logits"], 2e-3)
    report.close("x_hat", synthesis.image[0].numpy(), fixture["x_hat"], 2e-3)
    check_file(report, backend, bundle, rgb)
    return report.good


def check_file(report: Report, backend: TorchBackend, bundle: ModelBundle, rgb: UInt8) -> None:
    """A real file gives back the symbols, and the picture that the networks make of them.

    The networks see a picture in tiles here (`dlf.codec.tiling`), as the codec shows it to them: the only
    difference to the arrays above, and only for pictures that are larger than a tile.
    """
    tables = bundle.tables()
    codec = StreamCodec(bundle.manifest, tables, backend)
    data = container.dump(codec.encode_rgb(rgb, QUALITY))
    stream = container.load(data)
    received = codec.receive(stream)
    plan = Plan(rgb.shape[0], rgb.shape[1], tables.padding)
    latents = tiling.analyse(backend, plan, rgb, QUALITY)
    prior = tiling.prior(backend, tables, plan, latents.tokens, QUALITY)
    y_hat = walk(backend, tables, prior, Sender(latents.y, SymbolWriter(), tables)).y_hat
    same = np.array_equal(received.tokens, latents.tokens) and np.array_equal(received.y_hat, y_hat)
    report.line("file: symbols", f"{len(data)} bytes, {'as' if same else 'not as'} encoded", good=same)
    direct = tiling.synthesise(backend, plan, latents.tokens, y_hat, QUALITY).astype(int)
    apart = int(np.abs(codec.decode_stream(stream) - direct).max())
    report.line("file: picture", f"{apart} levels from the direct way", good=apart == 0)


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("fixture", type=Path)
    parser.add_argument("--salt", type=int, default=0, help="of the weights, 0 or more (default: 0)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder; made if it is not there")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.salt < 0:
        parser.error("the salt must not be negative")
    with np.load(args.fixture, allow_pickle=False) as file:
        fixture = dict(file)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.model or Path(temporary)
        if not (folder / MANIFEST).is_file():
            make_model(folder, args.salt)
        bundle = ModelBundle.open(folder)
        if bundle.manifest.name != model_name(args.salt):
            parser.error(f"the model in {folder} is {bundle.manifest.name}, not {model_name(args.salt)}")
        backend = TorchBackend(bundle, bundle.tables(), EngineOptions(threads=args.threads))
        good = check(backend, bundle, fixture)
    print(f"parity: {'ok' if good else 'FAILED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
