"""Make the folder that travels to a machine with a GPU: photos, networks, plans, and weights to start from.

python tools/gpu_pack.py --data photos/train more/photos --val photos/val --networks DIR [--start DIR]

The folder (runs/carry, which git ignores) and the files that git knows, which travel as well, may take
62 MiB together.  Photos get what the rest leaves.  See docs/one_gpu.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 62 * 2**20  # bytes of all that travels
PHOTOS = 38_000_000  # bytes at most
QUALITY = 75  # of WebP at least: below, a discriminator would learn what WebP leaves of textures
FEWEST = 2_000_000  # bytes below which there are too few photos to train on
SLACK = 2**18  # bytes left free
LIBRARIES = ("click",)  # pure Python, which a machine made for torch need not have
STEM, FEATURES = NETWORKS = ("inception_v3_stem.safetensors", "efficientnet_lite0.safetensors")
PLANS = ("gpu10_base", "gpu10_more", "gpu_ablation", "gpu_large")
VAL_PICTURES, VAL_SIDE, VAL_BYTES = 6, 384, 1_500_000


def main(argv: list[str] | None = None) -> int:
    """Pack; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of training photos")
    parser.add_argument("--val", type=Path, required=True, help="folder of validation photos")
    parser.add_argument("--networks", type=Path, required=True, help=f"folder of {' and '.join(NETWORKS)}")
    parser.add_argument("--start", type=Path, help="checkpoint, or folder of weights, to go on from")
    parser.add_argument("--plans", type=Path, nargs="+", default=[ROOT / f"configs/{n}.json" for n in PLANS])
    parser.add_argument("--short-side", type=int, default=288, help="of photos (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another choice of photos where not all fit")
    parser.add_argument("--skip", type=int, default=0, help="photos that another pack of this seed has")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "carry")
    args = parser.parse_args(argv)
    from dlf.errors import DlfError

    try:
        fill(args)
    except (DlfError, ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"gpu_pack: {error}", file=sys.stderr)
        return 1
    return 0


def fill(args: argparse.Namespace) -> None:
    """Write everything beside the folder, then let it take the folder's place."""
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.output.parent, prefix="carry-") as name:
        part = Path(name) / "carry"
        part.mkdir()
        tracked = tracked_bytes()
        print(f"files that git knows: {tracked / 2**20:.1f} MiB")
        write_plans(args.plans, part)
        write_networks(args.networks, part)
        write_libraries(part / "lib")
        if args.start:
            write_start(args.start, part / "start")
        write_photos(args, part, tracked)
        whole = size_of(part) + tracked
        for path in sorted(part.rglob("*")):
            if path.is_file():
                print(f"{path.stat().st_size / 2**20:6.2f} MiB  {path.relative_to(part)}")
        if whole > LIMIT:
            msg = f"all that travels takes {whole / 2**20:.1f} MiB, above {LIMIT >> 20} MiB"
            raise ValueError(msg)
        shutil.rmtree(args.output, ignore_errors=True)
        part.rename(args.output)
    print(
        f"{args.output}: {size_of(args.output) / 2**20:.1f} MiB, {whole / 2**20:.1f} MiB with what git knows"
    )


def tracked_bytes() -> int:
    """Size of the files of the checkout that git knows or would add."""
    line = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(line, capture_output=True, check=True).stdout.decode().split("\0")
    return sum(path.stat().st_size for name in names if name and (path := ROOT / name).is_file())


def write_plans(paths: list[Path], folder: Path) -> None:
    """Plans with all their values, for a machine that reads no YAML."""
    from dlf.train.plan import as_json, load_plan

    for path in paths:
        (folder / path.name).write_text(as_json(load_plan(path)), encoding="utf-8")


def write_networks(source: Path, folder: Path) -> None:
    """The networks that judge; of the second, what lies behind its last tap would take three quarters."""
    from safetensors.torch import load_file, save

    from dlf.losses.discriminators import LiteFeatures

    shutil.copyfile(source / STEM, folder / STEM)
    LiteFeatures(source / FEATURES)  # raises where it is another network
    read = ("stem.", *(f"blocks.{i}." for i in range(len(LiteFeatures.STRIDES))))
    tensors = {k: v for k, v in load_file(source / FEATURES).items() if k.startswith(read)}
    (folder / FEATURES).write_bytes(save(tensors))  # readable to all, as `save_file` makes none


def write_libraries(folder: Path) -> None:
    """Packages that the command line imports, for PYTHONPATH."""
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            msg = f"{name} is not installed, and the other machine needs it"
            raise ValueError(msg)
        shutil.copytree(Path(spec.origin).parent, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def write_start(source: Path, folder: Path) -> None:
    """Weights in 8 bits: training goes on from them, and 16 would leave no room for photos."""
    from dlf.train.weights import load_labelled, save_parts

    weights, about = load_labelled(source)
    save_parts(folder, weights, int(about.pop("step", "0")), about, eight_bits=True)


def write_photos(args: argparse.Namespace, folder: Path, tracked: int) -> None:
    """Validation pictures, and training photos in what room is left."""
    from dlf.train.pack import pack

    packed = pack(
        [args.val],
        folder / "val.tar",
        max_bytes=VAL_BYTES,
        short_side=VAL_SIDE,
        most=VAL_PICTURES,
    )
    print(packed)
    room = min(PHOTOS, LIMIT - SLACK - tracked - size_of(folder))
    if room < FEWEST:
        msg = (
            f"only {room / 2**20:.1f} MiB of {LIMIT >> 20} are left for photos: commit fewer large files, "
            "or go without --start"
        )
        raise ValueError(msg)
    print(
        pack(
            args.data,
            folder / "photos.tar",
            max_bytes=room,
            short_side=args.short_side,
            seed=args.seed,
            skip=args.skip,
            lowest=QUALITY,
        )
    )


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
