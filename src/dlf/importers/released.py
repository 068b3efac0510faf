"""Released tensors to ours, strictly: each is used once, in its shape, and none is left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dlf.errors import CheckpointError
from dlf.importers.keymap import IGNORED, MASKS, Entry, entries, fit
from dlf.nn.config import ModelConfig
from dlf.nn.model import Dlf

# what TiTok and VQGAN checkpoints hold beside what DLF takes over
TITOK_IGNORED = ("pixel_quantize.", "pixel_decoder.", "decoder.ffn.")
VQGAN_IGNORED = ("loss.",)


def codec(config: ModelConfig, released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a DLF checkpoint under our names, in our shapes; raises CheckpointError."""
    return _match(config, _entries(config), released, IGNORED)


def titok(config: ModelConfig, released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The token path from a TiTok checkpoint, to start training from; raises CheckpointError."""
    known = [
        Entry(entry.ours, entry.theirs.removeprefix("hybrid_codec."))
        for entry in _entries(config)
        if entry.titok
    ]
    return _match(config, known, released, TITOK_IGNORED)


def vqgan(config: ModelConfig, released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tokenizer from a VQGAN checkpoint, to start training from; raises CheckpointError."""
    known = [
        Entry(entry.ours, entry.theirs.removeprefix("vqgan."))
        for entry in _entries(config)
        if entry.theirs.startswith("vqgan.")
    ]
    return _match(config, known, released, VQGAN_IGNORED)


def kind(names: Iterable[str]) -> str:
    """What a checkpoint with tensors of these names is: "codec", "titok" or "vqgan"; CheckpointError."""
    found = set(names)
    if any(name.startswith("hybrid_codec.") for name in found):
        return "codec"
    if "latent_tokens" in found:
        return "titok"
    if "post_quant_conv.weight" in found:
        return "vqgan"
    msg = "the checkpoint is none of DLF, TiTok and VQGAN: its tensors have other names"
    raise CheckpointError(msg)


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Dlf(config).state_dict().items()}


def _entries(config: ModelConfig) -> list[Entry]:
    return entries(_shapes(config))


def _match(
    config: ModelConfig, known: Iterable[Entry], released: Mapping[str, Tensor], ignored: tuple[str, ...]
) -> dict[str, Tensor]:
    table = {entry.theirs: entry for entry in known}
    if missing := sorted(table.keys() - released.keys()):
        msg = f"the checkpoint lacks {len(missing)} tensors: {_some(missing)}"
        raise CheckpointError(msg)
    unknown = [name for name in released if name not in table and not name.startswith(ignored)]
    if unknown:
        msg = f"the checkpoint has {len(unknown)} tensors that the model does not have: {_some(unknown)}"
        raise CheckpointError(msg)
    shapes, found = _shapes(config), {}
    for theirs, entry in table.items():
        if entry.ours is None:
            _check_mask(theirs, released[theirs], config.detail.swin_window)
        else:
            found[entry.ours] = fit(theirs, released[theirs], shapes[entry.ours])
    return found


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
