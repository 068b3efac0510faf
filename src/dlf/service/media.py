"""Formats in which pictures are given out, and what of them a client accepts."""

from __future__ import annotations

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "avif": "image/avif"}
"""Type of each format of `dlf.imageio` that browsers show; the first is taken where all are welcome."""


def accepted(accept: str) -> str | None:
    """Return the format that an Accept header prefers; None where it takes none of ours.

    Of equal ones the first of `MEDIA_TYPES` is taken, and an empty header takes anything.
    """
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    found, weight = None, 0.0
    for name, media_type in MEDIA_TYPES.items():
        fitting = [
            (len(pattern), q) for pattern, q in ranges if pattern in (media_type, "image/*", "*/*", "*")
        ]
        if fitting and (q := max(fitting)[1]) > weight:  # the most exact range counts
            found, weight = name, q
    return found


def _range(part: str) -> tuple[str, float]:
    """Return a media range and its weight."""
    pattern, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return pattern, float(value)
            except ValueError:
                return pattern, 0.0
    return pattern, 1.0
