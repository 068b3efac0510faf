"""Frozen records that cross the borders between the container, the codec and its backends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """Where pixels that a network gets lie in their image.

    corner: of a tile, where its first pixel lies in its first window; see `dlf.geometry.Plan`.
    more: of a tile, whether another one of the image follows, for which memory is kept; after the last one it
        is given back.  None is an image in one piece, whose size decides.
    """

    corner: tuple[int, int] = (0, 0)
    more: bool | None = None


WHOLE = Place()
"""That of an image in one piece."""


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
        header_bytes: of all packets, if there are any; with the three below they are `file_bytes`.
        metadata_bytes: 0 without metadata.
        payload_bytes: all symbols.
        checksum_bytes: 4, of each packet.
        file_bytes: of the whole file.
        token_bits: information content of the tokens, in bits; None unless the symbols were read, which
            takes the model.
        detail_bits: the same of the details.  The payload has about a byte more than their sum,
            and four more where the model's symbols carry a checksum.
        token_sha256: of the tokens as little-endian int32, window by window, -1 where not sent; in hex, and
            None unless the symbols of one payload were read.
        detail_sha256: the same of the detail symbols by (channel, row, column), 0 where not sent.
        checked: whether the file's checksum was compared, which takes the model; False if it is not
            installed.
        settled: bytes of the file after which its tokens, then each of the four steps of details, are
            complete, whatever is cut off behind them; None unless the symbols were read, and for packets.
        packets: number of packets, 0 where the file has one payload instead.
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
    settled: tuple[int, ...] | None = None
    packets: int = 0

    @property
    def bpp(self) -> float:
        """Bits of the whole file for each pixel."""
        return self.bits_per_pixel(8 * self.file_bytes)

    def bits_per_pixel(self, bits: float) -> float:
        """Bits of some part for each pixel."""
        return bits / (self.width * self.height)


STEPS_OF_DETAILS = 4
_SHOWN = 12  # numbers of windows in a sentence


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file, and what was read of it all the same.

    Attributes:
        kind: "cut": the end is missing, and what was read is what was sent unless the file is damaged as
            well, which nobody can tell without the checksum.  "damaged": of what was read nothing is sure,
            for all that follows the first wrong bit is invented, and nothing tells where that is.  "lost":
            packets of the file are missing or damaged, and what the others hold is right.
        reason: the sentence with which strict decoding refuses the file.
        tokens_read: of `tokens_sent`.
        tokens_sent: by all windows.
        steps_read: steps of details read in full, 0 to 4.
        symbols_read: details of the step after these, of `symbols_sent`.
        symbols_sent: 0 if all steps were read in full.
        windows: of 256x256 pixels that the picture has; 0 unless the file is one of packets.
        windows_lost: numbers of those that no packet holds, row by row from 0.
    """

    kind: Literal["cut", "damaged", "lost"]
    reason: str
    tokens_read: int
    tokens_sent: int
    steps_read: int
    symbols_read: int
    symbols_sent: int
    windows: int = 0
    windows_lost: tuple[int, ...] = ()

    @property
    def summary(self) -> str:
        """One sentence for a user."""
        if self.kind == "lost":
            if not self.windows_lost:
                return f"{self.reason}; all of the picture came through all the same"
            numbers = ", ".join(map(str, self.windows_lost[:_SHOWN]))
            more = ", ..." if len(self.windows_lost) > _SHOWN else ""
            return (
                f"packets are lost: {len(self.windows_lost)} of {self.windows} windows of 256x256 pixels are "
                f"missing and painted from what is beside them (row by row from 0: {numbers}{more})"
            )
        read = f"{self.tokens_read} of {self.tokens_sent} tokens"
        if self.tokens_read == self.tokens_sent:
            read += f", {self.steps_read} of {STEPS_OF_DETAILS} steps of details"
            if self.symbols_read:
                read += f" and {self.symbols_read} of {self.symbols_sent} symbols of the next"
        if self.kind == "cut":
            return (
                f"the file is cut: {read} came through; without its checksum, damage in these would not be "
                "seen, and the model is taken by its number alone"
            )
        return (
            f"{self.reason}; {read} were read all the same, but behind the first wrong bit all is invented, "
            "and nothing tells where that is"
        )


@dataclass(frozen=True)
class Salvaged:
    """A picture that was painted from as much of a file as could be read.

    Attributes:
        image: in RGB, of the size that the file names.
        damage: None if the file is whole and good.
    """

    image: Image.Image
    damage: Damage | None


@dataclass(frozen=True)
class Verdict:
    """What a check of a whole ``.dlf`` file found.

    The parts are looked at in this order: each is True where it is good, False where it is wrong, and None
    where a fault before it kept it from being looked at, or something that says nothing of the file: a model
    that is not installed or cannot be run, or a limit of time.

    Attributes:
        problem: what is wrong, in a sentence; None if nothing is.
        file_bytes: of the file, as far as it was read; None if not even the header could be.
        model_name: the model that fits, None if there is none or it was not looked for.
        header: the header and the length that it allows.
        metadata: they are well formed, or there are none.
        checksum: a model that is installed fits.
        symbols: the payload is exactly the symbols of a picture of this size.
        painted: the picture was painted; None where that was not asked for.
    """

    problem: str | None
    file_bytes: int | None = None
    model_name: str | None = None
    header: bool | None = None
    metadata: bool | None = None
    checksum: bool | None = None
    symbols: bool | None = None
    painted: bool | None = None

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None
