"""Our tensor names to those of the released checkpoints, as a table.

A row of `PLACES` says where a part of our model lies in theirs, a leaf table what the tensors inside such
a part are called.  `{}` stands for a number and `{+1}` for a number that they count from one.  Whatever
holds for all models is here; the shapes come from the model itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from torch import Tensor

from dlf.errors import CheckpointError

Leaves = tuple[tuple[str, str], ...]

SAME: Leaves = (("", ""),)
SWIN: Leaves = (
    ("pos_embedding", "attention_block.pos_embedding"),
    ("to_", "attention_block.to_"),
    ("norm_", "norm_"),
    ("mlp.c_fc.", "mlp_block.net.0."),
    ("mlp.c_proj.", "mlp_block.net.2."),
)
VIT: Leaves = (
    ("in_proj.", "attn.in_proj_"),
    ("out_proj.", "attn.out_proj."),
    ("ln_", "ln_"),
    ("mlp.", "mlp."),
)
CONVNEXT: Leaves = (
    ("layer_scale", "layer_scale"),
    ("conv.", "conv."),
    ("norm.", "norm."),
    ("mlp.c_fc.", "mlp.0."),
    ("mlp.c_proj.", "mlp.2."),
)
DEPTH: Leaves = (
    ("0.conv1.", "block.0.conv1.0."),
    ("0.", "block.0."),
    ("1.", "block.1."),
)
INTERACT: Leaves = (
    ("token_pos", "titok_pos_emb"),
    ("detail_pos", "feat_pos_emb"),
    ("token_in.", "titok_compress_proj."),
    ("token_out.", "titok_decompress_proj."),
    ("detail_add.", "feat_add."),
    ("token_add.", "zero_add."),
)

_HYBRID = "hybrid_codec."
_QUANT = "hybrid_codec.quantize_feat."


@dataclass(frozen=True)
class Place:
    """Tensors under `ours` are the released ones under `theirs`, renamed by `leaves`.

    titok: the part is also in a TiTok checkpoint, under the same name without `hybrid_codec.`.
    """

    ours: str
    theirs: str
    leaves: Leaves = SAME
    titok: bool = False


def _side(side: str) -> Iterator[Place]:
    """What encoder and decoder have alike."""
    ours, theirs = f"{side}.path.", f"{_HYBRID}{side}."
    for name in ("class_embedding", "positional_embedding", "latent_token_positional_embedding"):
        yield Place(ours + name, theirs + name, titok=True)
    yield Place(ours + "ln_", theirs + "ln_", titok=True)
    yield Place(ours + "transformer.{}.", theirs + "transformer.{}.", VIT, titok=True)
    yield Place(ours + "inter_blocks.{}.attn.{}.", theirs + "inter_blocks.{}.attn.{}.", VIT)
    yield Place(ours + "inter_blocks.{}.", theirs + "inter_blocks.{}.", INTERACT)
    yield Place(ours + "feat_blocks.{}.swin.blocks.{}.", theirs + "feat_blocks.{}.0.{+1}.", SWIN)
    yield Place(ours + "feat_blocks.{}.convnext.{}.", theirs + "feat_blocks.{}.{+1}.", CONVNEXT)


PLACES: tuple[Place, ...] = (
    *_side("encoder"),
    *_side("decoder"),
    Place("encoder.latent_tokens", _HYBRID + "latent_tokens", titok=True),
    Place("encoder.patch_embed.", _HYBRID + "encoder.patch_embed.", titok=True),
    Place("encoder.conv_out.", _HYBRID + "encoder.conv_out.", titok=True),
    Place("encoder.pix_emb_proj.", _HYBRID + "encoder.pix_emb_proj."),
    Place("encoder.feat_in.blocks.{}.", _HYBRID + "encoder.feat_in.{+1}.", SWIN),
    Place("encoder.feat_out.blocks.{}.", _HYBRID + "encoder.feat_out.0.{+1}.", SWIN),
    Place("encoder.down.", _HYBRID + "encoder.feat_out.1."),
    Place("encoder.down_norm.", _HYBRID + "encoder.feat_out.3."),
    Place("encoder.down_proj.", _HYBRID + "encoder.feat_out.4."),
    Place("decoder.decoder_embed.", _HYBRID + "decoder.decoder_embed.", titok=True),
    Place("decoder.mask_token", _HYBRID + "decoder.mask_token", titok=True),
    Place("decoder.init_feat_up.", _HYBRID + "decoder.init_feat_up.0."),
    Place("decoder.feat_in.blocks.{}.", _HYBRID + "decoder.init_feat_up.2.{+1}.", SWIN),
    Place("quantize.", _HYBRID + "quantize.", titok=True),
    Place("details.enc_q", _QUANT + "enc_q"),
    Place("details.dec_q", _QUANT + "dec_q"),
    Place("details.enc_trans_{}.{}.", _QUANT + "enc_trans_{}.{}.", DEPTH),
    Place("details.dec_trans_{}.{}.", _QUANT + "dec_trans_{}.{}.", DEPTH),
    Place("details.context.factorized_prior_vec", _QUANT + "factorized_prior_vec"),
    Place("details.context.y_prior_fusion.{}.", _QUANT + "y_prior_fusion.{}.", DEPTH),
    Place("details.context.y_spatial_prior_reduction.", _QUANT + "y_spatial_prior_reduction."),
    Place("details.context.y_spatial_prior_adaptor.{}.", _QUANT + "y_spatial_prior_adaptor_{+1}.", DEPTH),
    Place("details.context.y_spatial_prior.{}.", _QUANT + "y_spatial_prior.{}.", DEPTH),
    Place("fusion.feat_in.blocks.{}.", "prior_fusion.feat_in.1.{}.", SWIN),
    Place("fusion.titok_in.blocks.{}.", "prior_fusion.titok_in.1.{}.", SWIN),
    Place("fusion.merge.", "prior_fusion.merge."),
    Place("fusion.mix.blocks.{}.", "prior_fusion.merge.4.{}.", SWIN),
    Place("fusion.ffn.", "prior_fusion.ffn."),
    Place("vqgan.encoder.mid.stages.", "vqgan.encoder.mid."),
    Place("vqgan.decoder.mid.stages.", "vqgan.decoder.mid."),
    Place("vqgan.", "vqgan."),
)  # fmt: skip

MASKS = ("attention_block.upper_lower_mask", "attention_block.left_right_mask")
"""Stored by shifted Swin blocks; we compute them, and only check that they are the same."""

IGNORED = ("img_loss.", "epoch_for_strategy", "lmbda_idx", "lmbda_list")
"""Beginnings of released names that only training needs."""


@dataclass(frozen=True)
class Entry:
    """One tensor.  ours is None for a mask."""

    ours: str | None
    theirs: str
    titok: bool = False


def entries(names: Iterable[str]) -> list[Entry]:
    """The released tensors of a model whose own are called `names`, masks included.

    Raises KeyError for a name that the table does not know.
    """
    table = list(chain.from_iterable(_entry(name) for name in names))
    theirs = [entry.theirs for entry in table]
    if len(set(theirs)) != len(theirs):
        msg = "two of our tensors would be one of theirs"
        raise KeyError(msg)
    return table


def _entry(name: str) -> Iterator[Entry]:
    for pattern, place in _PATTERNS:
        match = pattern.match(name)
        if not match:
            continue
        prefix, rest = _fill(place.theirs, match.groups()), name[match.end() :]
        for ours, theirs in place.leaves:
            if rest.startswith(ours):
                yield Entry(name, prefix + theirs + rest[len(ours) :], place.titok)
                if place.leaves is SWIN and ours == "pos_embedding" and int(match.groups()[-1]) % 2:
                    yield from (Entry(None, prefix + mask) for mask in MASKS)
                return
    msg = f"no row of the table fits {name}"
    raise KeyError(msg)


def _fill(template: str, numbers: Iterable[str]) -> str:
    left = iter(numbers)
    return re.sub(r"\{(\+1)?\}", lambda hole: str(int(next(left)) + 1) if hole[1] else next(left), template)


def _pattern(ours: str) -> re.Pattern[str]:
    return re.compile(re.escape(ours).replace(r"\{\}", r"(\d+)"))


_PATTERNS = tuple((_pattern(place.ours), place) for place in PLACES)


def fit(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The released tensor in our shape; the two may differ in axes of length 1 only.

    Raises CheckpointError.
    """
    if [n for n in tensor.shape if n != 1] != [n for n in shape if n != 1]:
        msg = f"the tensor {name} of the checkpoint has shape {tuple(tensor.shape)} instead of {shape}"
        raise CheckpointError(msg)
    return tensor.reshape(shape)
