"""From what the numbers of a file mean to sRGB: ICC profiles, and curves with primaries."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dlf.errors import ImageError
from dlf.imageio.problems import Problems
from dlf.imageio.sidecar import Signal
from dlf.records import Float32, UInt8

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue."""

D65 = (0.3127, 0.3290)
SRGB: Chromaticities = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)

SIGNAL_PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""Of ITU-T H.273, table 2."""

SRGB_LIKE_TRANSFERS = (1, 6, 13, 14, 15)
"""sRGB's own curve and those of television, which viewers of still pictures show as if they were sRGB."""
SIGNAL_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
HDR_TRANSFERS = (16, 18)
UNSPECIFIED = 2

SRGB_GAMMA = 1 / 2.2
NEAR = 0.005
"""How far gAMA and cHRM may be from sRGB's and mean sRGB: writers round, and gAMA cannot say the curve."""

BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
BAND_PIXELS = 2**18


@dataclass(frozen=True)
class Encoding:
    """How samples are colours.

    gamma: exponent from a sample in [0, 1] to light; None is the curve of sRGB.
    primaries: None are those of sRGB.
    """

    gamma: float | None = None
    primaries: Chromaticities | None = None

    @property
    def is_srgb(self) -> bool:
        """Whether there is nothing to convert."""
        return self.gamma is None and self.primaries is None


def encoding_of_signal(signal: Signal) -> Encoding:
    """Return what code points of H.273 mean.

    Raises:
        ImageError: a signal of high dynamic range, or of an unknown kind.
    """
    if signal.transfer in HDR_TRANSFERS:
        msg = (
            "this is a picture of high dynamic range (PQ or HLG), which is not read; convert it to sRGB first"
        )
        raise ImageError(msg)
    known_transfer = signal.transfer in (*SRGB_LIKE_TRANSFERS, *SIGNAL_GAMMAS, UNSPECIFIED)
    if not known_transfer or signal.primaries not in (*SIGNAL_PRIMARIES, UNSPECIFIED):
        msg = f"colours by code points {signal.primaries}/{signal.transfer} are not read"
        raise ImageError(msg)
    primaries = SIGNAL_PRIMARIES.get(signal.primaries)
    return Encoding(SIGNAL_GAMMAS.get(signal.transfer), None if primaries == SRGB else primaries)


def encoding_of_info(info: dict[str | tuple[int, int], object], problems: Problems) -> Encoding:
    """Return what `info` holds of gAMA and cHRM of a PNG file; sRGB where that is said, or nothing."""
    if "srgb" in info:
        return Encoding()
    gamma, primaries = info.get("gamma"), info.get("chromaticity")
    exponent = None
    if isinstance(gamma, float):
        if not 0.01 <= gamma <= 10:
            problems.add(f"ignored a gAMA chunk that says {gamma}")
        elif abs(gamma - SRGB_GAMMA) > NEAR:
            exponent = 1 / gamma
    if not isinstance(primaries, tuple) or np.allclose(primaries, SRGB, atol=NEAR):
        return Encoding(exponent)
    try:
        _to_srgb_matrix(primaries)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        problems.add("ignored a cHRM chunk whose colours span no space")
        return Encoding(exponent)
    return Encoding(exponent, primaries)


def decode_curve(samples: NDArray[np.uint8] | NDArray[np.uint16], encoding: Encoding) -> UInt8:
    """Convert samples (H, W) or (H, W, 3) over the whole range of their type to sRGB, uint8 of that shape.

    Grey has no primaries; rows are converted in bands, so that memory stays bounded.
    """
    top = np.iinfo(samples.dtype).max
    levels = np.linspace(0, 1, top + 1)
    linear = (_from_srgb(levels) if encoding.gamma is None else levels**encoding.gamma).astype(np.float32)
    if encoding.primaries is None or samples.ndim == 2:
        return _to_bytes(linear)[samples]
    matrix = _to_srgb_matrix(encoding.primaries).astype(np.float32)
    out = np.empty(samples.shape, np.uint8)
    rows = max(BAND_PIXELS // samples.shape[1], 1)
    for at in range(0, len(samples), rows):
        out[at : at + rows] = _to_bytes(linear[samples[at : at + rows]] @ matrix.T)
    return out


def by_profile(image: Image.Image, profile: bytes, problems: Problems) -> Image.Image | None:
    """Convert an opaque picture to sRGB by its ICC profile; None where that cannot be done."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space == "RGB" and image.mode not in ("CMYK", "LAB"):
            image = image.convert("RGB")
        elif space == "GRAY" and image.mode == "1":
            image = image.convert("L")
        elif space == "Lab" and image.mode == "LAB":
            return None  # which is what Pillow converts from
        if image.mode == {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space):
            return ImageCms.profileToProfile(
                image,
                source,
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        problems.add(f"ignored a colour profile for {space} in a picture of mode {image.mode}")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        problems.add(f"ignored a broken colour profile: {error}")
    return None


def means_srgb(profile: bytes) -> bool:
    """Whether a profile leaves the numbers of sRGB as they are, within what 8 bits can tell."""
    steps = np.linspace(0, 255, 6).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(36, 6, 3)
    ignored = Problems()
    converted = by_profile(Image.fromarray(colours), profile, ignored)
    return converted is not None and int(np.abs(np.asarray(converted).astype(int) - colours).max()) <= 2


def srgb_profile() -> bytes:
    """Return a profile of sRGB, the same bytes at any time of day."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = b"\x07\xd0\0\x01\0\x01\0\0\0\0\0\0"  # the date of making: 2000-01-01
    profile[84:100] = bytes(16)  # the digest, which covers the date in some versions; 0 says "not calculated"
    return bytes(profile)


def _to_srgb_matrix(primaries: Chromaticities) -> NDArray[np.float64]:
    """Matrix from linear RGB of some primaries to linear sRGB, white to white.

    Raises LinAlgError or ZeroDivisionError if the primaries span no space.
    """
    source, target = _to_xyz(primaries), _to_xyz(SRGB)
    cones = (BRADFORD @ target.sum(axis=1)) / (BRADFORD @ source.sum(axis=1))
    adapt = np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD
    matrix: NDArray[np.float64] = np.linalg.inv(target) @ adapt @ source
    if not np.isfinite(matrix).all() or abs(np.linalg.det(source)) < 1e-6:
        msg = "the primaries lie on a line"
        raise np.linalg.LinAlgError(msg)
    return matrix


def _to_xyz(primaries: Chromaticities) -> NDArray[np.float64]:
    """Matrix from linear RGB to CIE XYZ."""
    white, *colours = (
        np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    )
    basis = np.stack(colours, axis=1)
    scaled: NDArray[np.float64] = basis * np.linalg.solve(basis, white)
    return scaled


def _from_srgb(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _to_bytes(linear: Float32) -> UInt8:
    """Encode light, clipped to [0, 1], with the curve of sRGB."""
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** np.float32(1 / 2.4) - 0.055)
    return (encoded * 255 + 0.5).astype(np.uint8)
