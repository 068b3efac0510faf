"""Time and memory of a model that torch runs: ``python tools/bench_large.py MODEL [--precision int8]``.

Times are medians after a warm-up, beside a 2048x2048x2048 float32 matrix product that torch and numpy
compute in the same run; the rate counts the multiply-adds of the networks as published, two operations
each, whatever was saved of them.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlf.codec.bundle import find
from dlf.codec.codec import StreamCodec
from dlf.codec.engine import EngineOptions
from dlf.nn.config import ModelConfig, from_dict
from dlf.nn.model import Dlf
from dlf.nn.torch_backend import TorchBackend
from dlf.records import UInt8

PICTURE = Path(__file__).parent.parent / "tests" / "data" / "astronaut.jpg"
QUALITY = 50


def median(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of `work`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def operations(config: ModelConfig, height: int, width: int) -> tuple[float, float]:
    """Operations of the networks of pixels to encode and to decode, by torch's own counter."""
    totals = []
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model = Dlf(config).requires_grad_(False)
        grid, quality = model.grid(height, width), torch.tensor([50.0])
        pixels = torch.zeros(1, 3, height, width)
        codes = torch.zeros(grid.token.gather.shape[0], config.tokens.count, config.tokens.code_dim)
        y = torch.zeros(1, config.quant.channels, height // 32, width // 32)

        def encode() -> None:
            model.details.analyse(model.encoder(pixels, grid)[1], quality)

        def decode() -> None:
            fused = model.fuse(codes, torch.ones(codes.shape[:2], dtype=torch.bool), y, quality, grid)
            model.vqgan.decode(fused.latent)

        for work in (encode, decode):
            with FlopCounterMode(display=False) as counter:
                work()
            totals.append(float(counter.get_total_flops()))
    return totals[0], totals[1]


def products(repeats: int = 5) -> float:
    """Operations a second of the matrix product in torch; prints numpy's as well."""
    a = torch.rand(2048, 2048)
    rates = {}
    for name, work in (("torch", lambda: a @ a), ("numpy", lambda: a.numpy() @ a.numpy())):
        work()
        rates[name] = 2 * 2048**3 / median(work, repeats)
        print(f"product in {name}      {rates[name] / 1e9:8.0f} GFLOPS")
    return rates["torch"]


def memory() -> str:
    """Peak memory of this process so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at most so far"


def main() -> None:
    """Print one line a figure."""
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--precision")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=1, help="windows of 256 pixels across (default: 1)")
    parser.add_argument("--down", type=int, default=1, help="windows down (default: 1)")
    parser.add_argument("--repeats", type=int, default=4)
    args = parser.parse_args()
    height, width = 256 * args.down, 256 * args.windows
    with Image.open(PICTURE) as image:
        rgb: UInt8 = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    bundle = find(args.model)
    tables = bundle.tables()
    backend = TorchBackend(bundle, tables, EngineOptions(threads=args.threads, precision=args.precision))
    codec = StreamCodec(bundle.manifest.id, tables, backend)
    start = time.perf_counter()
    backend.latents(rgb, QUALITY)
    print(f"first analysis        {time.perf_counter() - start:8.2f} s, with loading; {memory()}")
    stream = codec.encode_rgb(rgb, QUALITY)
    start = time.perf_counter()
    codec.decode_stream(stream)
    print(f"first decoding        {time.perf_counter() - start:8.2f} s, with loading; {memory()}")
    found = codec.receive(stream)
    counts = operations(from_dict(ModelConfig, bundle.manifest.network), height, width)
    works: tuple[Callable[[], object], ...] = (
        lambda: backend.latents(rgb, QUALITY),
        lambda: backend.paint(found.tokens, found.y_hat, QUALITY),
    )
    for name, count, work in zip(("analysis", "painting"), counts, works, strict=True):
        rate = products()
        seconds = median(work, args.repeats)
        print(
            f"{name} {width}x{height}     {seconds:8.2f} s, {count / 2e9:.0f} GMAC, "
            f"{count / seconds / 1e9:.0f} GFLOPS, {count / seconds / rate:.0%} of the product in torch"
        )
    print(f"encoding, whole       {median(lambda: codec.encode_rgb(rgb, QUALITY), 2):8.2f} s")
    print(f"decoding, whole       {median(lambda: codec.decode_stream(stream), 2):8.2f} s")
    print(f"since the start       {time.perf_counter() - begin:8.2f} s; {memory()}")


if __name__ == "__main__":
    main()
