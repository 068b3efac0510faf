"""Linear layers for inference: weights laid out once for the processor, in 16 bits, or in 8.

`replace_linear` replaces the linear layers of a loaded model; what they take and give stays float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.nn.layers import Mlp
from dlf.torch_engine import resources

LinearFactory = Callable[..., nn.Module]
"""Called with weight, bias and gelu=...; returns what takes the place of a linear layer."""

# rows for which the layout is chosen: a window's tokens
_ROWS = 289


class BlockedLinear(nn.Module):
    """Float32 in the blocked layout of oneDNN, so that no call rearranges the weights.

    (..., inputs) to (..., outputs); weight (outputs, inputs), bias (outputs,) or None, as in all of them.

    gelu: apply an exact GELU to the result, in the same pass.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.float().contiguous(), _ROWS)
        self.bias = None if bias is None else bias.to(torch.float32, copy=True)
        self._after: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *self._after)


class HalfLinear(nn.Module):
    """Weights and products in bfloat16 or float16, sums in float32."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, gelu: bool = False
    ) -> None:
        super().__init__()
        self.weight = weight.to(dtype, copy=True)
        self.bias = None if bias is None else bias.to(dtype, copy=True)
        self._gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.to(self.weight.dtype), self.weight, self.bias)
        return (F.gelu(y) if self._gelu else y).to(x.dtype)


class ByteLinear(nn.Module):
    """Dynamic quantisation: 8-bit weights, a scale for each output; activations scaled at each call."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> None:
        super().__init__()
        weight = weight.float().contiguous()
        low, high = weight.aminmax(dim=1)
        scale = torch.maximum(-low, high).clamp(min=1e-12).double() / 127
        zero = torch.zeros(len(scale), dtype=torch.int64)
        whole = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        # a copy: the tensor of a file would keep all of it in memory
        bias = None if bias is None else bias.to(torch.float32, copy=True)
        self.packed = torch.ops.quantized.linear_prepack(whole, bias)
        self._gelu = gelu
        # without VNNI sums of two products saturate unless the activations keep to 7 bits
        self._seven_bits = not resources.processor_has("avx512_vnni")

    def forward(self, x: Tensor) -> Tensor:
        y = torch.ops.quantized.linear_dynamic(x, self.packed, self._seven_bits)
        return F.gelu(y) if self._gelu else y


class FusedMlp(nn.Module):
    """An `Mlp` whose first layer applies the GELU itself."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def linear_factory(precision: str, device: str) -> LinearFactory | None:
    """What replaces a linear layer; None to leave it alone."""
    if precision == "int8":
        return ByteLinear
    if precision in ("bfloat16", "float16"):
        dtype = getattr(torch, precision)
        return lambda weight, bias, *, gelu=False: HalfLinear(weight, bias, dtype, gelu=gelu)
    if device == "cpu" and torch.backends.mkldnn.is_available():
        return BlockedLinear
    return None


def replace_linear(module: nn.Module, make: LinearFactory) -> nn.Module:
    """Return what replaces `module`: itself with its linear layers replaced, or another one."""
    if isinstance(module, nn.Linear):
        return make(module.weight, module.bias)
    if isinstance(module, Mlp):
        first = make(module.c_fc.weight, module.c_fc.bias, gelu=True)
        return FusedMlp(first, make(module.c_proj.weight, module.c_proj.bias))
    for name, child in module.named_children():
        setattr(module, name, replace_linear(child, make))
    return module
