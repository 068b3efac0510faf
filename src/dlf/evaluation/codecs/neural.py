"""Published learned codecs, through the packages that hold them; torch is imported when one is made.

CompressAI (Begaint et al. 2020) and MS-ILLM (Muckley et al. 2023).  Their weights are downloaded by these
packages when first used, under the packages' own licences; there is one model for each rate.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from dlf.errors import FormatError, SpecError
from dlf.extras import loaded, need

if TYPE_CHECKING:
    from torch import Tensor

SIZE = struct.Struct("<HH")
LENGTH = struct.Struct("<I")
ALIGN = 64
ILLM = "facebookresearch/NeuralCompression"
COMPRESSAI_INSTALL = "pip install compressai"
ILLM_INSTALL = "pip install neuralcompression compressai"


class StringsModel(Protocol):
    """A learned codec of one rate."""

    def compress(self, x: Tensor) -> list[bytes]:
        """Code RGB float32 (1, 3, H, W) in [0, 1], sides multiples of ALIGN."""
        ...

    def decompress(self, strings: list[bytes], height: int, width: int) -> Tensor:
        """Decode to (1, 3, height, width)."""
        ...


@dataclass(frozen=True)
class NeuralCodec:
    """A `Codec` over one model for each quality; load: makes one, called once for each."""

    identity: str
    load: Callable[[int], StringsModel]
    qualities: range

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """Return quality, size, and the strings of the model, each after its length but the last."""
        import torch

        rgb = np.asarray(image)
        down, right = (-side % ALIGN for side in rgb.shape[:2])
        wide = np.pad(rgb, ((0, down), (0, right), (0, 0)), mode="edge")
        x = torch.tensor(wide).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            strings = self.load(quality).compress(x)
        parts = [LENGTH.pack(len(string)) + string for string in strings[:-1]]
        return bytes([quality, len(strings)]) + SIZE.pack(*image.size) + b"".join(parts) + strings[-1]

    def decode(self, data: bytes) -> Image.Image:
        """Return the RGB image; raises FormatError."""
        import torch

        quality, count = data[:2]
        width, height = SIZE.unpack_from(data, 2)
        with torch.inference_mode():
            strings = _strings(data[2 + SIZE.size :], count)
            x = self.load(quality).decompress(strings, height + -height % ALIGN, width + -width % ALIGN)
        pixels = (x[0, :, :height, :width].clamp(0, 1) * 255).round().to(torch.uint8)
        return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _strings(data: bytes, count: int) -> list[bytes]:
    strings, place = [], 0
    for _ in range(count - 1):
        if place + LENGTH.size > len(data):
            msg = "the file of a learned codec is cut off"
            raise FormatError(msg)
        (length,) = LENGTH.unpack_from(data, place)
        place += LENGTH.size
        strings.append(data[place : place + length])
        place += length
    return [*strings, data[place:]]


@dataclass(frozen=True)
class CompressAiModel:
    """A `StringsModel` of CompressAI."""

    model: Any

    def compress(self, x: Tensor) -> list[bytes]:
        """Code an image."""
        return [strings[0] for strings in self.model.compress(x)["strings"]]

    def decompress(self, strings: list[bytes], height: int, width: int) -> Tensor:
        """Decode an image; the smallest latent has a 64th of each side, the factorised one a 16th."""
        stride = 64 if len(strings) > 1 else 16
        output = self.model.decompress([[s] for s in strings], (height // stride, width // stride))
        image: Tensor = output["x_hat"]
        return image


@dataclass(frozen=True)
class IllmModel:
    """A `StringsModel` of NeuralCompression."""

    model: Any

    def compress(self, x: Tensor) -> list[bytes]:
        """Code an image."""
        compressed = self.model.compress(x)
        return [compressed.hyper_latent_strings[0], compressed.latent_strings[0]]

    def decompress(self, strings: list[bytes], height: int, width: int) -> Tensor:
        """Decode an image."""
        size = height, width
        parts = SimpleNamespace(
            hyper_latent_strings=strings[:1], latent_strings=strings[1:], image_size=size, padded_size=size
        )
        image: Tensor = self.model.decompress(parts)
        return image


def open_compressai(name: str | None, *, pretrained: bool = True) -> NeuralCodec:
    """Make a codec of CompressAI's zoo, such as mbt2018-mean.

    Raises:
        SpecError: there is none of that name.
        MissingExtra: the package is not installed.
    """
    need("torch", "torch")
    zoo = loaded("compressai.zoo", COMPRESSAI_INSTALL)
    if name is None or name not in zoo.image_models:
        msg = f"compressai:{name or ''} is not one of compressai:{', compressai:'.join(zoo.image_models)}"
        raise SpecError(msg)
    best = 6 if name.startswith("cheng2020") else 8

    @lru_cache(maxsize=2)
    def load(quality: int) -> StringsModel:
        model = zoo.image_models[name](quality=quality, pretrained=pretrained).eval()
        model.update()
        return CompressAiModel(model)

    return NeuralCodec(f"compressai {version('compressai')} {name}", load, range(1, best + 1))


def open_illm(name: str | None) -> NeuralCodec:
    """Make MS-ILLM, or another codec of that hub without its quality, such as noganms.

    Raises:
        MissingExtra: the packages are not installed.
    """
    need("torch", "torch")
    loaded("neuralcompression", ILLM_INSTALL)
    kind = name or "msillm"

    @lru_cache(maxsize=2)
    def load(quality: int) -> StringsModel:
        import torch

        model = torch.hub.load(ILLM, f"{kind}_quality_{quality}").eval()  # type: ignore[no-untyped-call]
        model.update()
        return IllmModel(model)

    return NeuralCodec(f"{kind} {version('neuralcompression')}", load, range(1, 7))
