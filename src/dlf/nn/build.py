"""Presets: the only place with numbers.

`dlf-l` is the published model (1.27 G parameters); `base` and `small` are those that the package ships;
`compact` and its ablations are for experiments on a processor; `tiny` and, in the published form, `tiny-l`
are for tests.
"""

from __future__ import annotations

from dataclasses import replace

from dlf.nn.model import Dlf
from dlf.nn.model_config import (
    DetailConfig,
    FusionConfig,
    InteractConfig,
    ModelConfig,
    QuantConfig,
    StemConfig,
    TokenConfig,
    VqganConfig,
)

DLF_L = ModelConfig(
    name="dlf-l",
    stem=StemConfig(),
    tokens=TokenConfig(
        count=32, codes=4096, code_dim=12, width=1024, heads=16, encoder_layers=24, decoder_layers=24,
        mlp_ratio=4, legacy_reshape=True, tail_drop=False, spread=False,
    ),
    detail=DetailConfig(
        width=768, head_width=64, swin_window=16, encoder_in_swin=4, encoder_out_swin=2, decoder_in_swin=4,
        mix=(2, 2), convnext_ratio=2, absolute_tables=True, input_scale=True,
    ),
    interact=InteractConfig(
        encoder_layers=(3, 7, 11, 15, 19), decoder_layers=(3, 7, 11, 15, 19), width=768, heads=12, depth=2,
        mlp_ratio=4,
    ),
    quant=QuantConfig(channels=64, hidden=768, blocks=2, qualities=1, integer=False, spatial_blocks=3),
    fusion=FusionConfig(width=1024, hidden=2048, detail_swin=2, token_swin=2, swin=4),
    vqgan=VqganConfig(
        patch=1, channels=(128, 128, 256, 256, 512), encoder_blocks=(2,) * 5, decoder_blocks=(3,) * 5,
        mid_blocks=2, attention=True, norm="group", activation="silu", resample="conv", codes=256,
        code_dim=256,
    ),
)  # fmt: skip

COMPACT = ModelConfig(
    name="compact",
    stem=StemConfig(tokenizer=True),
    tokens=TokenConfig(
        count=24, codes=1024, code_dim=12, width=96, heads=3, encoder_layers=4, decoder_layers=2,
        mlp_ratio=4, legacy_reshape=False, tail_drop=True, spread=True,
    ),
    detail=DetailConfig(
        width=128, head_width=32, swin_window=8, encoder_in_swin=1, encoder_out_swin=0, decoder_in_swin=0,
        mix=(1, 1), convnext_ratio=2, absolute_tables=False, input_scale=False,
    ),
    interact=InteractConfig(
        encoder_layers=(1, 2), decoder_layers=(0, 1), width=64, heads=2, depth=1, mlp_ratio=2,
    ),
    quant=QuantConfig(channels=48, hidden=256, blocks=1, qualities=5, integer=True, spatial_blocks=2),
    fusion=FusionConfig(width=128, hidden=176, detail_swin=0, token_swin=0, swin=0),
    vqgan=VqganConfig(
        patch=2, channels=(16, 48, 96, 192), encoder_blocks=(0, 1, 1, 1), decoder_blocks=(1, 1, 1, 1),
        mid_blocks=0, attention=False, norm="none", activation="leaky", resample="shuffle", codes=512,
        code_dim=64,
    ),
)  # fmt: skip

BASE = ModelConfig(
    name="base",
    stem=StemConfig(tokenizer=True),
    tokens=TokenConfig(
        count=24, codes=1024, code_dim=5, width=192, heads=6, encoder_layers=4, decoder_layers=3,
        mlp_ratio=4, legacy_reshape=False, tail_drop=True, spread=True, levels=4,
    ),
    detail=DetailConfig(
        width=256, head_width=32, swin_window=8, encoder_in_swin=1, encoder_out_swin=0, decoder_in_swin=0,
        mix=(1, 1), convnext_ratio=2, absolute_tables=False, input_scale=False,
    ),
    interact=InteractConfig(
        encoder_layers=(1, 3), decoder_layers=(0, 2), width=128, heads=4, depth=1, mlp_ratio=2,
    ),
    quant=QuantConfig(
        channels=64, hidden=256, blocks=1, qualities=5, integer=True, spatial_blocks=2, token_channels=32,
    ),
    fusion=FusionConfig(width=256, hidden=384, detail_swin=0, token_swin=0, swin=0),
    vqgan=VqganConfig(
        patch=2, channels=(32, 64, 128, 256), encoder_blocks=(0, 1, 1, 2), decoder_blocks=(1, 2, 2, 3),
        mid_blocks=0, attention=False, norm="none", activation="leaky", resample="shuffle", codes=0,
        code_dim=16, shortcut=True,
    ),
)  # fmt: skip

# Ends for the streams of `base`, of its widths and less deep, so that they start from its weights.
SMALL = replace(
    BASE,
    name="small",
    tokens=replace(BASE.tokens, encoder_layers=3, decoder_layers=2),
    interact=replace(BASE.interact, encoder_layers=(1,), decoder_layers=(0,)),
    vqgan=replace(BASE.vqgan, encoder_blocks=(0, 1, 1, 1), decoder_blocks=(1, 1, 1, 1)),
)

# Ablations of the paper (table 4), each a change of `compact`.
_APART = replace(COMPACT.interact, encoder_layers=(), decoder_layers=())
COMPACT_NO_DETAILS = replace(
    COMPACT,
    name="compact-no-details",
    detail=replace(COMPACT.detail, encoder_in_swin=0),
    interact=_APART,
    quant=replace(COMPACT.quant, kind="none"),
)
COMPACT_NO_INTERACTION = replace(
    COMPACT, name="compact-no-interaction", interact=replace(COMPACT.interact, depth=0)
)
COMPACT_VECTOR_DETAILS = replace(
    COMPACT,
    name="compact-vector-details",
    quant=replace(COMPACT.quant, channels=12, kind="vector", codes=256, code_dim=8),
)

TINY = ModelConfig(
    name="tiny",
    stem=StemConfig(channels=(8, 8, 8, 16), blocks=(0, 0, 0, 1)),
    tokens=TokenConfig(
        count=4, codes=16, code_dim=4, width=16, heads=2, encoder_layers=2, decoder_layers=2,
        mlp_ratio=2, legacy_reshape=False, tail_drop=True, spread=True,
    ),
    detail=DetailConfig(
        width=16, head_width=8, swin_window=8, encoder_in_swin=1, encoder_out_swin=1, decoder_in_swin=1,
        mix=(2, 1), convnext_ratio=2, absolute_tables=False, input_scale=False,
    ),
    interact=InteractConfig(
        encoder_layers=(0,), decoder_layers=(0,), width=16, heads=2, depth=1, mlp_ratio=2,
    ),
    quant=QuantConfig(channels=8, hidden=16, blocks=1, qualities=3, integer=True, spatial_blocks=1),
    fusion=FusionConfig(width=16, hidden=16, detail_swin=1, token_swin=1, swin=1),
    vqgan=VqganConfig(
        patch=2, channels=(8, 8, 8, 16), encoder_blocks=(0, 0, 0, 1), decoder_blocks=(0, 0, 0, 1),
        mid_blocks=0, attention=False, norm="none", activation="leaky", resample="shuffle", codes=16,
        code_dim=8,
    ),
)  # fmt: skip

TINY_V2 = replace(
    TINY,
    name="tiny-v2",
    tokens=replace(TINY.tokens, code_dim=2, levels=4),
    quant=replace(TINY.quant, token_channels=4),
    vqgan=replace(TINY.vqgan, codes=0, shortcut=True),
)

TINY_L = ModelConfig(
    name="tiny-l",
    stem=StemConfig(),
    tokens=TokenConfig(
        count=4, codes=16, code_dim=4, width=16, heads=2, encoder_layers=2, decoder_layers=2,
        mlp_ratio=4, legacy_reshape=True, tail_drop=False, spread=False,
    ),
    detail=DetailConfig(
        width=16, head_width=8, swin_window=16, encoder_in_swin=2, encoder_out_swin=2, decoder_in_swin=2,
        mix=(2, 1), convnext_ratio=2, absolute_tables=True, input_scale=True,
    ),
    interact=InteractConfig(
        encoder_layers=(0,), decoder_layers=(0,), width=16, heads=2, depth=1, mlp_ratio=2,
    ),
    quant=QuantConfig(channels=8, hidden=16, blocks=2, qualities=1, integer=False, spatial_blocks=1),
    fusion=FusionConfig(width=16, hidden=16, detail_swin=2, token_swin=2, swin=2),
    vqgan=VqganConfig(
        patch=1, channels=(32,) * 5, encoder_blocks=(1,) * 5, decoder_blocks=(1,) * 5,
        mid_blocks=2, attention=True, norm="group", activation="silu", resample="conv", codes=16,
        code_dim=8,
    ),
)  # fmt: skip

PRESETS = {
    config.name: config
    for config in (
        DLF_L,
        COMPACT,
        BASE,
        SMALL,
        COMPACT_NO_DETAILS,
        COMPACT_NO_INTERACTION,
        COMPACT_VECTOR_DETAILS,
        TINY,
        TINY_V2,
        TINY_L,
    )
}


def create_model(preset: str) -> Dlf:
    """An untrained model with the sizes of a preset.

    Raises:
        ValueError: there is no such preset; the message names those that there are.
    """
    if preset not in PRESETS:
        msg = f"there is no preset {preset}; there are {', '.join(PRESETS)}"
        raise ValueError(msg)
    return Dlf(PRESETS[preset])
