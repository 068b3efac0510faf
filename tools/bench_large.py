"""Time and memory of a model that torch runs: ``python tools/bench_large.py MODEL [--precision int8]``.

Times are medians after a warm-up, beside a 2048x2048x2048 float32 matrix product that torch and numpy
compute in the same run; the rate counts the multiply-adds of the networks as published, two operations
each, whatever was saved of them.

``--against float32`` loads the model a second time and runs both by turns: how much faster the first is,
and how far their pictures and latents are apart.  ``--single`` runs one window by turns with all of them.
Peak memory means something without these two only.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlf.codec.bundle import ANALYSIS, ModelBundle, find
from dlf.codec.codec import Received, StreamCodec
from dlf.codec.engine import EngineOptions
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig, from_dict
from dlf.records import UInt8
from dlf.torch_engine.torch_backend import TorchBackend

PICTURE = Path(__file__).parent.parent / "tests" / "data" / "astronaut.jpg"
QUALITY = 50
SIDE = 2048  # of the matrices that are multiplied

Work = Callable[[], object]


def medians(works: Mapping[str, Work], repeats: int) -> dict[str, float]:
    """Median seconds of each; they take turns, so that a slower minute is one for all."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


@cache
def operations(config: ModelConfig, height: int, width: int) -> tuple[float, float]:
    """Operations of the networks of pixels to encode and to decode, by torch's own counter."""
    totals = []
    with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model = Dlf(config).requires_grad_(False)
        grid, quality = model.grid(height, width), torch.tensor([50.0])
        pixels = torch.zeros(1, 3, height, width)
        codes = torch.zeros(grid.token.gather.shape[0], config.tokens.count, config.tokens.code_dim)
        y = torch.zeros(1, config.quant.channels, height // 32, width // 32)

        def encode() -> None:
            model.analyse(pixels, quality, grid)

        def decode() -> None:
            model.synthesise(codes, torch.ones(codes.shape[:2], dtype=torch.bool), y, quality, grid)

        for work in (encode, decode):
            with FlopCounterMode(display=False) as counter:
                work()
            totals.append(float(counter.get_total_flops()))
    return totals[0], totals[1]


def product() -> dict[str, float]:
    """Operations a second of the matrix product, in torch and in numpy."""
    a = torch.rand(SIDE, SIDE)
    works: dict[str, Work] = {"torch": lambda: a @ a, "numpy": lambda: a.numpy() @ a.numpy()}
    medians(works, 1)
    return {name: 2 * SIDE**3 / seconds for name, seconds in medians(works, 5).items()}


def memory() -> str:
    """Peak memory of this process so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at most so far"


def age() -> str:
    """Seconds since the process was started, imports included; Linux only."""
    ticks = int(Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()[19])
    return f"{time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK'):8.2f} s"


@dataclass(frozen=True)
class Subject:
    """An image of whole windows in one precision, and what the codec made of it."""

    backend: TorchBackend
    rgb: UInt8
    symbols: Received

    def analyse(self) -> object:
        """Run the networks of encoding."""
        return self.backend.latents(self.rgb, QUALITY)

    def synthesise(self) -> object:
        """Run the networks of decoding."""
        return self.backend.decode(self.symbols.tokens, self.symbols.y_hat, QUALITY)


def subjects(
    args: argparse.Namespace, bundle: ModelBundle, backend: TorchBackend, codec: StreamCodec, rgb: UInt8
) -> dict[str, Subject]:
    """What is timed, by name; the first is what all others are compared with."""
    symbols = codec.receive(codec.encode_rgb(rgb, QUALITY))
    one = rgb[:256, :256]
    all_of_them = {args.precision or "as stored": Subject(backend, rgb, symbols)}
    if args.against:
        options = EngineOptions(threads=args.threads, precision=args.against)
        all_of_them[args.against] = Subject(TorchBackend(bundle, bundle.tables(), options), rgb, symbols)
    if args.single:
        of_one = codec.receive(codec.encode_rgb(one, QUALITY))
        all_of_them["one window"] = Subject(backend, one, of_one)
    for subject in list(all_of_them.values())[1:]:  # the first has run before
        subject.analyse()
        subject.synthesise()
    return all_of_them


def compare_times(all_of_them: dict[str, Subject], config: ModelConfig, repeats: int) -> None:
    """Print seconds, rates and ratios of both directions."""
    for i, direction in enumerate(("analyse", "synthesise")):
        works: dict[str, Work] = {name: getattr(s, direction) for name, s in all_of_them.items()}
        before, seconds, after = product(), medians(works, repeats), product()
        rates = {name: (before[name] + after[name]) / 2 for name in before}
        for name in rates:
            print(f"product in {name}: {before[name] / 1e9:.0f} GFLOPS before, {after[name] / 1e9:.0f} after")
        first, *_ = all_of_them
        for name, subject in all_of_them.items():
            height, width = subject.rgb.shape[:2]
            windows, count = height * width // 256**2, operations(config, height, width)[i]
            took = seconds[name] / windows
            print(
                f"{direction:<10} {name:<12} {seconds[name]:8.2f} s, {took:.2f} s a window, "
                f"{count / 2e9:.0f} GMAC, {count / seconds[name] / 1e9:.0f} GFLOPS: "
                + ", ".join(f"{count / seconds[name] / rates[k]:.0%} of {k}'s" for k in rates)
            )
            if name != first:
                own = seconds[first] / (all_of_them[first].rgb[..., 0].size // 256**2)
                print(f"{direction:<10} {first} is {took / own:.2f} times faster a window than {name}")


def compare_pictures(subject: Subject, other: Subject, title: str) -> None:
    """Print how far two precisions are apart."""
    levels = [
        s.backend.synthesise(subject.symbols.tokens, subject.symbols.y_hat, QUALITY).astype(float)
        for s in (subject, other)
    ]
    psnr = 10 * np.log10(255**2 / np.mean((levels[0] - levels[1]) ** 2))
    latents = [s.backend.analyse(s.rgb, QUALITY) for s in (subject, other)]
    error = np.linalg.norm(latents[0].y - latents[1].y) / np.linalg.norm(latents[1].y)
    other_tokens = np.count_nonzero(latents[0].tokens != latents[1].tokens)
    print(
        f"to {title}: pictures of the same symbols {psnr:.1f} dB PSNR; {other_tokens} of "
        f"{latents[0].tokens.size} tokens are others, the detail latent differs by {error:.1e}"
    )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--precision")
    parser.add_argument("--against", metavar="PRECISION", help="compare with this one in the same run")
    parser.add_argument("--single", action="store_true", help="compare with one window in the same run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=1, help="windows of 256 pixels across (default: 1)")
    parser.add_argument("--down", type=int, default=1, help="windows down (default: 1)")
    parser.add_argument("--repeats", type=int, default=4, help="0: only the first encoding and decoding")
    return parser.parse_args()


def main() -> None:
    """Print one line a figure."""
    args = arguments()
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as `dlf` does, before torch makes a tensor
    if args.threads:
        torch.set_num_threads(args.threads)
    height, width = 256 * args.down, 256 * args.windows
    with Image.open(PICTURE) as image:
        rgb: UInt8 = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    bundle = find(args.model)
    tables = bundle.tables()
    backend = TorchBackend(bundle, tables, EngineOptions(threads=args.threads, precision=args.precision))
    codec = StreamCodec(bundle.manifest, tables, backend)
    backend.load(ANALYSIS, rgb.shape[0] * rgb.shape[1])
    backend.prior(1, 1, QUALITY, np.zeros((1, tables.tokens), np.int32))
    print(f"ready to encode       {age()} after the start of the process; {memory()}")
    start = time.perf_counter()
    stream = codec.encode_rgb(rgb, QUALITY)
    print(f"first encoding        {time.perf_counter() - start:8.2f} s; {memory()}")
    start = time.perf_counter()
    codec.decode_stream(stream)
    print(f"first decoding        {time.perf_counter() - start:8.2f} s, with loading; {memory()}")
    if not args.repeats:
        return
    if not args.against and not args.single:
        whole: dict[str, Work] = {
            "encoding": lambda: codec.encode_rgb(rgb, QUALITY),
            "decoding": lambda: codec.decode_stream(stream),
        }
        for name, seconds in medians(whole, max(1, args.repeats // 2)).items():
            print(f"{name}, whole       {seconds:8.2f} s; {memory()}")
    all_of_them = subjects(args, bundle, backend, codec, rgb)
    compare_times(all_of_them, from_dict(ModelConfig, bundle.manifest.network), args.repeats)
    if args.against:
        first, second, *_ = all_of_them
        compare_pictures(all_of_them[first], all_of_them[second], second)


if __name__ == "__main__":
    main()
