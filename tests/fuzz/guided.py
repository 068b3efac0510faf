"""Inputs that coverage guides, by atheris: `pip install atheris && cd tests && python -m fuzz.guided coder`.

The input of a fault is left in a file crash-*; what reached new code is kept in build/fuzz for the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dlf"]):
    from fuzz.__main__ import SECONDS, one, quiet
    from fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[2] / "build" / "fuzz"


def main() -> None:
    """Run one target; atheris ends the process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    args = parser.parse_args()
    quiet()
    target = TARGETS[args.target]()

    def read(data: bytes) -> None:
        outcome = one(target, data)
        if outcome.startswith("FAULT"):
            raise RuntimeError(outcome)

    corpus = CORPUS / args.target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    limits = [
        f"-max_total_time={args.seconds}",
        f"-timeout={SECONDS}",
        "-rss_limit_mb=4096",
        "-max_len=65536",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
