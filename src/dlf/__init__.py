"""Image compression at 0.003 to 0.1 bits per pixel.

>>> data = dlf.encode("photo.jpg", quality=50)  # bytes of a .dlf file, about a kilobyte
>>> dlf.decode(data).save("photo.png")
>>> dlf.info(data).bpp

`Codec` keeps its own model and settings, `models` lists what is installed.  The codec is loaded when first
used, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from dlf.errors import (
    BundleError,
    CheckpointError,
    ChecksumError,
    DlfError,
    EngineError,
    FormatError,
    ImageError,
    InvalidArgument,
    LimitExceeded,
    MissingExtra,
    TimeExceeded,
    UnknownModel,
    UnreachableSize,
    UnsupportedVersion,
)

# type checkers take it for true; to import it from `typing` would take longer than all this
TYPE_CHECKING = False

if TYPE_CHECKING:
    from dlf.api import (
        Codec,
        Damage,
        EngineOptions,
        InstalledModel,
        Salvaged,
        StreamInfo,
        Verdict,
        decode,
        encode,
        info,
        models,
        salvage,
        verify,
    )

    __version__: str

__all__ = [
    "BundleError",
    "CheckpointError",
    "ChecksumError",
    "Codec",
    "Damage",
    "DlfError",
    "EngineError",
    "EngineOptions",
    "FormatError",
    "ImageError",
    "InstalledModel",
    "InvalidArgument",
    "LimitExceeded",
    "MissingExtra",
    "Salvaged",
    "StreamInfo",
    "TimeExceeded",
    "UnknownModel",
    "UnreachableSize",
    "UnsupportedVersion",
    "Verdict",
    "__version__",
    "decode",
    "encode",
    "info",
    "models",
    "salvage",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import what is not loaded yet."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("dlf-codec")
        except PackageNotFoundError:  # run from a source folder
            return "0+unknown"
    if name not in __all__:
        msg = f"module 'dlf' has no attribute '{name}'"
        raise AttributeError(msg)
    from dlf import api

    value = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What is here, loaded or not."""
    return sorted({*globals(), *__all__})
