"""Frozen specifications of every network part; the numbers themselves are in `dlf.nn.build`."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class VqganConfig:
    """VQGAN tokenizer with 16x downsampling (Esser et al. 2021); levels go from 1/patch to 1/16.

    patch: pixels of a patch x patch square are the channels of one place of the first level (Shi et al.
        2016); 1 is the published form.  channels: width of each level, each half the size of the one before.
    encoder_blocks, decoder_blocks: residual blocks of each level.
    mid_blocks: residual blocks at 1/16 beside the level's own (the paper: 2, with attention between).
    attention: self-attention after each block at 1/16.
    resample: "conv" is nearest upsampling with a 3x3 convolution at the larger size, "shuffle" a 1x1
        convolution with PixelShuffle (a sixth of the work; the 3x3 blocks that follow smooth it).
    shortcut: every "shuffle" change of size starts as means of groups of channels on the way down, and
        as repeated channels on the way up, plus something random (see `dlf.nn.vqgan.start_shortcuts`);
        widths must divide those beside them, times 4.
    codes: of the codebook; 0 for a model that takes latents as they are, without one.
    """

    patch: int
    channels: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    mid_blocks: int
    attention: bool
    norm: Literal["group", "none"]
    activation: Literal["silu", "leaky"]
    resample: Literal["conv", "shuffle"]
    codes: int
    code_dim: int
    shortcut: bool = False


@dataclass(frozen=True)
class StemConfig:
    """From pixels to the patch grid.

    A conv 16x16 of stride 16 if `channels` is empty, else strided 3x3 convolutions with `blocks`
    residual blocks a level (sizes 1/2, 1/4, 1/8, 1/16).  tokenizer: an encoder of the VQGAN's shape
    instead, so that training can start from the tokenizer's own (see `dlf.train.warmstart`).
    """

    channels: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    tokenizer: bool = False


@dataclass(frozen=True)
class TokenConfig:
    """1-D tokens of a window (TiTok, Yu et al. 2024).

    count: tokens a window.  legacy_reshape: the released weights reshape (tokens, width) to
    (width, tokens) without a transpose before the output projection.  tail_drop: the model was trained
    with fewer tokens than `count`, missing ones replaced by a learned vector.  spread: token vectors are
    standardised by running statistics before they are quantised; without it, and without pretrained
    tokens, all pictures soon share one code (see `dlf.nn.hybrid.RunningStandard`).  levels: above 0, the
    codes are the lattice of so many levels in each of `code_dim` numbers (FSQ, Mentzer et al. 2024), which
    nothing has to learn and of which none can die; levels ** code_dim must be `codes`, and `spread` on.
    """

    count: int
    codes: int
    code_dim: int
    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    mlp_ratio: int
    legacy_reshape: bool
    tail_drop: bool
    spread: bool
    levels: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a lattice of another size, or of numbers without a scale."""
        if self.levels and (self.levels**self.code_dim != self.codes or not self.spread):
            msg = f"{self.levels} levels of {self.code_dim} numbers are not {self.codes} codes with spread"
            raise ValueError(msg)


@dataclass(frozen=True)
class DetailConfig:
    """Detail branch: Swin and ConvNeXt blocks at 1/16, scalar-quantised latent at 1/32.

    *_swin: Swin blocks of the stack of that name.  mix: (Swin, ConvNeXt) blocks after each IT block.
    absolute_tables: Swin blocks after the first of a stack use a full slot-by-slot position table
    instead of a relative one.  input_scale: the ConvNeXt layer scale multiplies the block's input.
    """

    width: int
    head_width: int
    swin_window: int
    encoder_in_swin: int
    encoder_out_swin: int
    decoder_in_swin: int
    mix: tuple[int, int]
    convnext_ratio: int
    absolute_tables: bool
    input_scale: bool


@dataclass(frozen=True)
class InteractConfig:
    """Interactive transform between the branches: after which layers, how deep, how wide."""

    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    width: int
    heads: int
    depth: int
    mlp_ratio: int


@dataclass(frozen=True)
class QuantConfig:
    """Scalar quantiser of the details and its four-step context network.

    hidden: width of the transform between detail features and latent; blocks: depth blocks on each
    side of the quality gain.  qualities: anchors of the quality gain (1: fixed rate).
    integer: the context network computes in exact integers (see `dlf.nn.context`).
    kind: for ablations, "vector" (see `dlf.nn.ablation`; `channels` are then digits of codes) or "none",
        which leaves out the detail branch.  codes, code_dim: of each codebook of "vector".
    token_channels: numbers that the tokens tell the prior network at each cell, 0: none (see
        `dlf.nn.token_prior`); "scalar" and integers only, the other kinds have no use for them.
    """

    channels: int
    hidden: int
    blocks: int
    qualities: int
    integer: bool
    spatial_blocks: int
    kind: Literal["scalar", "vector", "none"] = "scalar"
    codes: int = 0
    code_dim: int = 0
    token_channels: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError where tokens would have to be exact in floats."""
        if self.token_channels and not self.integer:
            msg = "token_channels need the integer context network: set integer"
            raise ValueError(msg)


@dataclass(frozen=True)
class FusionConfig:
    """Fusion of both branches into a latent: a mixture of the VQGAN's codes, or free where it has none.

    width, hidden: of the layers; *_swin: Swin blocks before and after the branches are merged.
    """

    width: int
    hidden: int
    detail_swin: int
    token_swin: int
    swin: int


@dataclass(frozen=True)
class ModelConfig:
    """One whole model."""

    name: str
    stem: StemConfig
    tokens: TokenConfig
    detail: DetailConfig
    interact: InteractConfig
    quant: QuantConfig
    fusion: FusionConfig
    vqgan: VqganConfig


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dict (lists, numbers, strings) of a config dataclass, for checkpoints and manifests."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], data: dict[str, Any]) -> T:
    """Build a config dataclass from a plain dict.

    Unknown and missing keys and values of another type raise ValueError.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        msg = f"unknown key(s) {', '.join(unknown)} in {cls.__name__}; known: {', '.join(fields)}"
        raise ValueError(msg)
    try:
        return cls(**{key: _convert(key, hints[key], value) for key, value in data.items()})
    except TypeError as error:
        msg = f"{cls.__name__}: {error}"
        raise ValueError(msg) from error


def _convert(key: str, hint: Any, value: Any) -> Any:
    """Value as the type that the hint asks for; ValueError where it is of another."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast("type[Any]", hint), value)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [options[0]] * len(value) if options[-1] is ... else options
        if len(kinds) == len(value):
            return tuple(_convert(key, kind, part) for kind, part in zip(kinds, value, strict=True))
    if origin is Literal and value in options:
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    # YAML reads 1e-3 as text: a float needs a point
    msg = f"{key} cannot be {value!r}"
    raise ValueError(msg)
