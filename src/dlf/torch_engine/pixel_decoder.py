"""The VQGAN decoder for inference: fewer products, in the type and the memory order that are fastest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.nn.vqgan import Decoder, Upsample
from dlf.torch_engine import resources


def decoder_dtype(precision: str, device: str) -> torch.dtype:
    """What the VQGAN decoder computes in.

    Its convolutions have no 8-bit form worth having, but bfloat16 takes less than half the time where the
    processor multiplies it, and half the memory.  Elsewhere it would be slower than float32.
    """
    if precision != "float32" and device == "cpu" and resources.processor_has("avx512_bf16", "amx_bf16"):
        return torch.bfloat16
    return torch.float32


class PhaseUpsample(nn.Module):
    """Nearest upsampling and 3x3 convolution as four 2x2 convolutions, one for each corner of a pixel.

    (B, c_in, h, w) to (B, c_out, 2h, 2w).

    Of the nine places that such a convolution sees, only four differ, so that 4/9 of the products remain.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        # rows (and columns) of the kernel that fall on the same pixel, for the first corner and the second
        weight = conv.weight.float()
        merge = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], device=weight.device)
        self.bias = conv.bias
        self.corners = nn.ParameterDict(
            {
                f"{i}{j}": nn.Parameter(
                    torch.einsum("ocyx,py,qx->ocpq", weight, merge[i], merge[j]), requires_grad=False
                )
                for i in (0, 1)
                for j in (0, 1)
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        padded = F.pad(x, (1, 1, 1, 1))
        channels = len(self.corners["00"])
        doubled = x.new_empty(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        for key, weight in self.corners.items():
            i, j = int(key[0]), int(key[1])
            seen = padded[:, :, i : i + height + 1, j : j + width + 1]
            doubled[:, :, i::2, j::2] = F.conv2d(seen, weight, self.bias)
        return doubled


def prepare_decoder(decoder: Decoder, dtype: torch.dtype) -> None:
    """Let a loaded decoder compute in `dtype`, in the memory order that is fastest.

    It takes what it took, in any type, and gives `dtype`.
    """
    for level in decoder.modules():
        upsample = getattr(level, "upsample", None)
        if isinstance(upsample, Upsample) and upsample.kind == "conv":
            level.upsample = PhaseUpsample(upsample.conv)
    for parameter in decoder.parameters():
        order = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
        parameter.data = parameter.data.to(dtype).contiguous(memory_format=order)
    decoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
