"""Time and memory of the installed package: ``python tools/bench.py [--threads 2] [--model PATH]``.

Times are medians, given also as multiples of a 2048x2048x2048 float32 matrix product that is timed in
the same run, so that figures from different machines can be compared.  Memory is the peak of a process
of its own, libraries included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PICTURE = Path(__file__).parent.parent / "tests" / "data" / "astronaut.jpg"
PHOTO = (768, 512)
LARGE = (4000, 3000)
ENGINES = ("onnxruntime", "openvino")
REPEATS = 9


def median(work: Callable[[], object]) -> float:
    """Median seconds of `work` after a warm-up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model")
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    import dlf

    codec = dlf.Codec(args.model, engine=dlf.EngineOptions(args.threads, engine=args.engine))
    rgb = resized(PHOTO)
    data = codec.encode(rgb)
    matrix = np.random.default_rng(0).random((2048, 2048), dtype=np.float32)
    product = median(lambda: matrix @ matrix)
    print(f"matrix product       {product:8.3f} s")
    for name, work in (("encode", lambda: codec.encode(rgb)), ("decode", lambda: codec.decode(data))):
        seconds = median(work)
        print(f"{name} {PHOTO[0]}x{PHOTO[1]}       {seconds:8.3f} s  {seconds / product:6.2f} products")
    with tempfile.TemporaryDirectory() as folder:
        for size in (PHOTO, LARGE):
            measure_processes(Path(folder), size, args)


def resized(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The astronaut at (width, height)."""
    with Image.open(PICTURE) as image:
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))


def measure_processes(folder: Path, size: tuple[int, int], args: argparse.Namespace) -> None:
    """Run `dlf encode` and `dlf decode` as processes; print wall time and peak memory."""
    png, stream = folder / "in.png", folder / "out.dlf"
    Image.fromarray(resized(size)).save(png, compress_level=1)
    common = ["--threads", str(args.threads), "--engine", args.engine, "--overwrite", "--quiet"]
    common += ["--model", args.model] if args.model else []
    for name, source, target in (("encode", png, stream), ("decode", stream, folder / "back.png")):
        command = [sys.executable, "-m", "dlf", name, str(source), "-o", str(target), *common]
        subprocess.run(command, check=True)
        start = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        megabytes = usage.ru_maxrss / 1024
        print(f"dlf {name} {size[0]}x{size[1]}  {seconds:8.2f} s  {megabytes:8.0f} MB at most")


if __name__ == "__main__":
    main()
