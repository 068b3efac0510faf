"""The machine that all runs on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

LIBRARIES = ("dlf-codec", "numpy", "onnxruntime", "openvino", "Pillow")
FEATURES = ("X86_V3", "X86_V4", "AVX2", "AVX512F", "AVX512_ICL", "AVX512_SPR", "NEON", "ASIMDDP", "SVE")
"""Features of processors, by numpy's names, that networks run faster with."""


@dataclass(frozen=True)
class Machine:
    """What was measured on.

    features: of the processor, of `FEATURES`.  cores: that this process may use.
    libraries: versions of those that are installed.
    """

    system: str
    processor: str
    features: tuple[str, ...]
    cores: int
    python: str
    libraries: dict[str, str]


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> Machine:
    """Describe this machine."""
    import platform

    import numpy as np

    versions = {name: _version(name) for name in LIBRARIES}
    libraries = {name: number for name, number in versions.items() if number is not None}
    configuration = cast("dict[str, Any]", np.show_config(mode="dicts"))
    simd = configuration.get("SIMD Extensions", {})
    known = {*simd.get("baseline", ()), *simd.get("found", ())}
    return Machine(
        f"{platform.system()} {platform.machine()}",
        _processor() or platform.processor(),
        tuple(name for name in FEATURES if name in known),
        processors(),
        platform.python_version(),
        libraries,
    )


def _version(library: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Name that Linux gives the processor; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else ""
