"""The one door to the plugins that teach Pillow HEIC and JPEG XL."""

from __future__ import annotations

from functools import cache

from dlf.errors import MissingExtra
from dlf.extras import need

EXTRA = "formats"
INSTALL = f"pip install 'dlf-codec[{EXTRA}]'"


@cache
def need_heic() -> None:
    """Let Pillow read and write HEIC.

    Raises:
        MissingExtra: the plugin is not installed, or does not work here.
    """
    _import("pillow_heif").register_heif_opener()  # type: ignore[attr-defined]


@cache
def need_jxl() -> None:
    """Let Pillow read and write JPEG XL.

    Raises:
        MissingExtra: the plugin is not installed, or does not work here.
    """
    _import("pillow_jxl")  # registers itself


def need_avif() -> None:
    """Make sure that Pillow reads and writes AVIF.

    Raises:
        MissingExtra: this build of Pillow does not.
    """
    if not _has("avif"):
        msg = f"this build of Pillow has no AVIF; run: {INSTALL}"
        raise MissingExtra(msg)


def need_webp() -> None:
    """Make sure that Pillow reads and writes WebP.

    Raises:
        MissingExtra: this build of Pillow does not.
    """
    if not _has("webp"):
        msg = f"this build of Pillow has no WebP; run: {INSTALL}"
        raise MissingExtra(msg)


def _has(feature: str) -> bool:
    from PIL import features  # which the parser of commands does not need

    return bool(features.check(feature))


def _import(module: str) -> object:
    try:
        return need(module, EXTRA)
    except ImportError as error:  # it is there but does not fit the system, or lacks something of its own
        msg = f"{module} does not work here ({error}); run: {INSTALL}"
        raise MissingExtra(msg) from error
