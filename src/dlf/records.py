"""Frozen records that cross the borders between the container, the codec and its backends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Latents:
    """What the encoder network says about an image, before anything is quantised by rate.

    tokens: int32 (windows, tokens a window), codebook indices in [0, codes).
    y: float32 (channels, rows, cols) on the latent grid (1/32 of the image), not divided by the step.
    """

    tokens: Int32
    y: Float32


@dataclass(frozen=True)
class StepParams:
    """Integer output of the context network for one of the four steps, for the whole grid.

    scale: int32 (channels, rows, cols), fixed-point log-scale; compared with the bundle's integer bounds.
    mean: int32 (channels, rows, cols), in units of 1/16.
    """

    scale: Int32
    mean: Int32


@dataclass(frozen=True)
class Prior:
    """What the context network knows before any symbol is coded.

    first: parameters of step 0.
    common: float32 (channels, rows, cols), integer-valued features that steps 1 to 3 see.
    step: int32 (channels, rows, cols), quantisation step in units of 1/64.
    """

    first: StepParams
    common: Float32
    step: Int32


@dataclass(frozen=True)
class Metadata:
    """What came with the source image besides its pixels; None where absent, never empty.

    icc: colour profile of the source, which its decoded pixels (sRGB) no longer need.
    exif: the EXIF block, a TIFF structure without the mark that some containers put before it.
    xmp: the XMP packet.
    dpi: resolution across and down, dots per inch, where EXIF does not say it.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True)
class InstalledModel:
    """A model that can encode and decode here.

    Attributes:
        name: how people name it.
        id: how streams name it.
        roles: what it is for, where it comes with the package ("default", "fast", "base").
        engine: what runs its networks: "onnx", or "torch" with the torch extra.
        default_quality: 0..100, taken where none is asked for.
        folder: where its files are.
        file_bytes: how large these are together.
    """

    name: str
    id: int
    roles: tuple[str, ...]
    engine: str
    default_quality: int
    folder: Path
    file_bytes: int


@dataclass(frozen=True)
class StreamInfo:
    """What a ``.dlf`` file says about itself.

    Attributes:
        version: of the format.
        model: id of the model that wrote it.
        model_name: None if the model is not installed.
        quality: 0..100.
        width: pixels.
        height: pixels.
        header_bytes: with the three below they are `file_bytes`.
        metadata_bytes: 0 without metadata.
        payload_bytes: all symbols.
        checksum_bytes: 4.
        file_bytes: of the whole file.
        token_bits: information content of the tokens, in bits; None unless the symbols were read, which
            takes the model.
        detail_bits: the same of the details.  The payload has about a byte more than their sum,
            and four more where the model's symbols carry a checksum.
        token_sha256: of the tokens as little-endian int32, window by window, -1 where not sent; in hex, and
            None unless the symbols were read.
        detail_sha256: the same of the detail symbols by (channel, row, column), 0 where not sent.
        checked: whether the file's checksum was compared, which takes the model; False if it is not
            installed.
    """

    version: int
    model: int
    model_name: str | None
    quality: int
    width: int
    height: int
    header_bytes: int
    metadata_bytes: int
    payload_bytes: int
    checksum_bytes: int
    file_bytes: int
    token_bits: float | None
    detail_bits: float | None
    token_sha256: str | None
    detail_sha256: str | None
    checked: bool

    @property
    def bpp(self) -> float:
        """Bits of the whole file for each pixel."""
        return self.bits_per_pixel(8 * self.file_bytes)

    def bits_per_pixel(self, bits: float) -> float:
        """Bits of some part for each pixel."""
        return bits / (self.width * self.height)
