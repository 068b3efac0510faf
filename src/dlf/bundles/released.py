"""Released tensors to ours, strictly: each is used once, in its shape, and none is left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dlf.bundles.keymap import IGNORED, MASKS, Entry, entries, fit
from dlf.errors import CheckpointError
from dlf.nn.model import Dlf
from dlf.nn.model_config import ModelConfig


@dataclass(frozen=True)
class Origin:
    """A kind of checkpoint that authors released.

    prefix: what DLF checkpoints put before the names of this kind.  ignored: beginnings of names that
    the codec has no use for.
    """

    title: str
    prefix: str
    ignored: tuple[str, ...]

    def wants(self, entry: Entry) -> bool:
        """Whether such a checkpoint holds this tensor."""
        return entry.titok if self == TITOK else entry.theirs.startswith(self.prefix)

    def drops(self, name: str) -> bool:
        """Whether a tensor of such a checkpoint is left out on purpose."""
        return name.startswith(self.ignored)


DLF = Origin("DLF", "", IGNORED)
TITOK = Origin("TiTok", "hybrid_codec.", ("pixel_quantize.", "pixel_decoder.", "decoder.ffn."))
VQGAN = Origin("VQGAN", "vqgan.", ("loss.",))


def kind(names: Iterable[str]) -> Origin:
    """What a checkpoint with tensors of these names is; raises CheckpointError."""
    present = set(names)
    if any(name.startswith("hybrid_codec.") for name in present):
        return DLF
    if "latent_tokens" in present:
        return TITOK
    if "post_quant_conv.weight" in present:
        return VQGAN
    msg = "the checkpoint is none of DLF, TiTok and VQGAN: its tensors have other names"
    raise CheckpointError(msg)


def match(config: ModelConfig, released: Mapping[str, Tensor], origin: Origin) -> dict[str, Tensor]:
    """Tensors of a checkpoint under our names, in our shapes: all of a model, or the part that it holds.

    A file of a part that `dlf weights import` wrote, under our names already, is taken as well.

    Raises:
        CheckpointError: the checkpoint does not hold exactly what the model needs, or the model has
            not the published form.
    """
    shapes = _shapes(config)
    table = _table(config, shapes, origin)
    if origin != DLF and released.keys() == {entry.ours for entry in table.values()}:
        return {name: fit(name, tensor, shapes[name]) for name, tensor in released.items()}
    if missing := sorted(table.keys() - released.keys()):
        msg = f"the checkpoint lacks {len(missing)} tensors: {_some(missing)}"
        raise CheckpointError(msg)
    if unknown := [name for name in released if name not in table and not origin.drops(name)]:
        msg = f"the checkpoint has {len(unknown)} tensors that the model does not have: {_some(unknown)}"
        raise CheckpointError(msg)
    tensors = {}
    for theirs, entry in table.items():
        if entry.ours is None:
            _check_mask(theirs, released[theirs], config.detail.swin_window)
        else:
            tensors[entry.ours] = fit(theirs, released[theirs], shapes[entry.ours])
    return tensors


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Dlf(config).state_dict().items()}


def _table(config: ModelConfig, names: Iterable[str], origin: Origin) -> dict[str, Entry]:
    """Name in a checkpoint of this kind to what it is."""
    try:
        rows = entries(names)
    except KeyError as error:
        msg = f"the model '{config.name}' has not the published form: no released weights fit it"
        raise CheckpointError(msg) from error
    return {entry.theirs.removeprefix(origin.prefix): entry for entry in rows if origin.wants(entry)}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _check_mask(name: str, mask: Tensor, window: int) -> None:
    """A stored mask hides the last half of a window's rows (or columns) from the first, and the reverse."""
    late = (torch.arange(window) >= window // 2).repeat_interleave(window)
    if name.endswith(MASKS[1]):
        late = late.reshape(window, window).t().flatten()
    hidden = late[:, None] != late[None, :]
    if mask.shape != hidden.shape or not torch.equal(mask == -torch.inf, hidden) or mask[~hidden].any():
        msg = f"the attention mask {name} of the checkpoint is not the one that the model computes"
        raise CheckpointError(msg)
