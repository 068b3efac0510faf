"""Large weights of the big networks in 8 bits: whole numbers, and a scale for each output channel.

Only weights of linear layers and convolutions are packed.  Code books, positions, and the context network,
whose numbers decide symbols, are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.nn.levels import from_levels
from dlf.nn.model import Dlf
from dlf.nn.schedule import sent_mask
from dlf.records import UInt8

SMALLEST = 4096  # elements; fewer are not worth two more nodes
FAN_IN = 32  # with fewer inputs to a channel its scale would be a large share of what is stored
LIMIT = 127
# shares of a channel's largest weight that may become the largest number
CLIPS = (1.0, 0.99, 0.98, 0.96, 0.93, 0.9, 0.8)

CONTEXT = "details.context."
# through these goes all that the details get to know of the image and give back, and nothing beside them
# makes up for their rounding; in 16 bits they add 1 MB to `base`
SINGLE = (
    *("encoder.down.", "encoder.down_proj.", "encoder.conv_out.", ".downsample.conv."),
    "decoder.init_feat_up.",
)
ENCODER_SIDE = ("encoder.", "details.enc_")
DECODER_SIDE = ("details.dec_", "decoder.", "fusion.", "vqgan.")


Feed = Callable[[UInt8], None]
"""Runs an image, uint8 (H, W, 3), through layers of a model."""


@dataclass(frozen=True)
class Packed:
    """codes: int8, -127..127, of the weight's shape.  scale: float32, its shape but 1 where it repeats."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def restore(self) -> NDArray[np.float32]:
        """The weight in float32, as Cast and Mul make it."""
        weight: NDArray[np.float32] = self.codes.astype(np.float32) * self.scale
        return weight

    def forms(self) -> Iterator[Packed]:
        """As torch has it, and as a graph may: a matrix is transposed for MatMul."""
        yield self
        if self.codes.ndim == 2:
            yield Packed(np.ascontiguousarray(self.codes.T), np.ascontiguousarray(self.scale.T))


def pack(weight: NDArray[np.float32]) -> Packed:
    """Round a weight (out, ...): each output channel by the clipping of least squared error."""
    rows = weight.reshape(len(weight), -1)
    most = np.abs(rows).max(1, keepdims=True)
    codes, scale = np.zeros_like(rows), np.ones_like(most)
    least = np.full_like(most, np.inf)
    for clip in CLIPS:
        tried = np.where(most > 0, most * np.float32(clip / LIMIT), 1).astype(np.float32)
        rounded = np.clip(np.rint(rows / tried), -LIMIT, LIMIT)
        error = np.square(rounded * tried - rows).sum(1, keepdims=True)
        better = error < least
        codes, scale = np.where(better, rounded, codes), np.where(better, tried, scale)
        least = np.minimum(error, least)
    shape = (len(weight), *(1,) * (weight.ndim - 1))
    return Packed(codes.astype(np.int8).reshape(weight.shape), scale.reshape(shape))


@torch.no_grad()
def round_to_eight(
    model: Dlf, images: Sequence[UInt8] = (), keep: Sequence[str] = (), feed: Feed | None = None
) -> dict[str, Packed]:
    """Round the weights of a model that are to be stored so, and return them by name.

    A layer's bias then takes what rounding adds to its output on the mean of `images`: inputs that hardly
    vary, such as constants that make a LayerNorm linear, would else turn rounding into an offset.
    images: uint8 (H, W, 3), sides multiples of 32.
    keep: prefixes of names to leave as they are, beside the context network.
    feed: gives the layers what they get of an image; as they are coded at quality 50 if not named.
    """
    layers = dict(_worth_it(model, keep))
    means = _input_means(layers, images, feed or partial(_code, model))
    packed = {}
    for name, layer in layers.items():
        packed[f"{name}.weight"] = rounded = pack(layer.weight.numpy())
        restored = torch.from_numpy(rounded.restore())
        if layer.bias is not None and name in means:
            change = (layer.weight - restored).reshape(*restored.shape[:2], -1).sum(2)
            layer.bias += change @ means[name]
        layer.weight.copy_(restored)
    return packed


def _worth_it(model: Dlf, keep: Sequence[str]) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    for name, module in model.named_modules():
        left = is_sensitive(name) or f"{name}.".startswith(tuple(keep))
        if isinstance(module, nn.Linear | nn.Conv2d) and not left:
            weight = module.weight
            if weight.numel() >= SMALLEST and weight[0].numel() >= FAN_IN:
                yield name, module


def is_sensitive(layer: str) -> bool:
    """Whether the layer of that name must keep its weights as they are."""
    return f"{layer}.".startswith(CONTEXT) or f"{layer}.".endswith(SINGLE)


def _code(model: Dlf, image: UInt8) -> None:
    pixels = from_levels(torch.tensor(image))
    count = model.config.tokens.count
    sent = sent_mask(torch.tensor([count]), count, model.grid(*pixels.shape[2:]).token)
    model(pixels, torch.tensor([50.0]), sent)


def _input_means(
    layers: Mapping[str, nn.Linear | nn.Conv2d], images: Sequence[UInt8], feed: Feed
) -> dict[str, Tensor]:
    """Means of the layers' inputs over all places of images, channel by channel."""
    means: dict[str, list[Tensor]] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        axis = -1 if isinstance(layer, nn.Linear) else 1
        means.setdefault(name, []).append(inputs[0].movedim(axis, -1).flatten(0, -2).mean(0))

    hooks = [
        layer.register_forward_pre_hook(partial(note, name))
        for name, layer in layers.items()
        if not isinstance(layer, nn.Conv2d) or layer.groups == 1
    ]
    for image in images:
        feed(image)
    for hook in hooks:
        hook.remove()
    return {name: torch.stack(rows).mean(0) for name, rows in means.items()}
