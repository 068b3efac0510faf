"""Checks of the light install: `python .ci/light.py PHOTO`, run by the Python of that environment."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAX_MEGABYTES = 300
MAX_IMPORT_SECONDS = 0.3


def main() -> None:
    """Fail with an AssertionError unless all that the README promises about the install is true."""
    assert importlib.util.find_spec("torch") is None, "torch is installed"

    prefix = Path(sys.prefix)
    size = sum(path.stat().st_size for path in prefix.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"environment: {size / 1e6:.0f} MB")
    assert size < MAX_MEGABYTES * 1e6, "the environment is too large"

    # the best of three: the first start reads the files from disk
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import dlf"], check=True)
        times.append(time.perf_counter() - bare - (bare - start))
    print(f"import dlf: {min(times):.3f} s")
    assert min(times) < MAX_IMPORT_SECONDS, "importing dlf takes too long"

    round_trip(Path(sys.argv[1]))


def round_trip(photo: Path) -> None:
    """Encode and decode one photo with the installed command."""
    dlf = Path(sys.executable).with_name("dlf")
    with tempfile.TemporaryDirectory() as folder:
        coded, painted = Path(folder, "photo.dlf"), Path(folder, "photo.png")
        subprocess.run([dlf, "encode", photo, "-o", coded], check=True)
        subprocess.run([dlf, "info", coded], check=True)
        subprocess.run([dlf, "decode", coded, "-o", painted], check=True)

        from PIL import Image

        with Image.open(photo) as before, Image.open(painted) as after:
            assert before.size == after.size, "the size of the picture changed"
        assert coded.stat().st_size < photo.stat().st_size / 5, "the file is not small"


if __name__ == "__main__":
    main()
