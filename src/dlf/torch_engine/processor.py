"""What the processor can do, as far as it decides how the networks run on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch


def has(*names: str) -> bool:
    """Whether the processor has any of these features, named as torch names them ("avx512_bf16").

    A torch that does not tell gives False for all.
    """
    tell: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    found = tell()
    return any(bool(found.get(name)) for name in names)


def use_huge_pages() -> None:
    """Let torch ask Linux for pages of 2 MB for large tensors, unless the environment says otherwise.

    Maps at full size are made anew by every layer, and mapping them in pages of 4 KB takes a tenth of the
    time.  Torch reads the setting when it first makes a tensor; later it has no effect.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
