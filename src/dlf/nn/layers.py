"""Attention, transformer blocks and the Swin and ConvNeXt blocks of the detail path."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.nn.windows import Grid, Windows, cut, pair_bias, paste


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Multi-head attention: q, k, v (B, n, width) to (B, n, width); bias broadcasts to (B, heads, n, n)."""
    batch, n, width = q.shape
    q, k, v = (t.reshape(batch, n, heads, width // heads).transpose(1, 2) for t in (q, k, v))
    if bias is not None:
        bias = bias.to(q.dtype)
    train_on_cpu = q.requires_grad and q.device.type == "cpu"
    out = _by_products(q, k, v, bias) if train_on_cpu else F.scaled_dot_product_attention(q, k, v, bias)
    return out.transpose(1, 2).reshape(batch, n, width)


def _by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention as two matrix products: torch's own on a CPU takes twice as long with the way back."""
    with torch.autocast(q.device.type, enabled=False):  # softmax works in float32, whatever goes in and out
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return (logits if bias is None else logits + bias).softmax(-1) @ v


class Mlp(nn.Module):
    """Linear, exact GELU, Linear: (..., width) to (..., width)."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, ratio * width)
        self.c_proj = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class TransformerBlock(nn.Module):
    """Pre-norm transformer block with packed in-projection (the TiTok block)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x: (B, n, width), as what is returned.  bias: added to the attention's products, or None."""
        q, k, v = self.in_proj(self.ln_1(x)).chunk(3, -1)
        x = x + self.out_proj(attend(q, k, v, self.heads, bias))
        return x + self.mlp(self.ln_2(x))


class SwinBlock(nn.Module):
    """Window attention and MLP on a grid: (B, rows, cols, width) to the same shape.

    The position table is shared by all heads: relative, indexed by (key - query) offset, or absolute,
    one entry for each pair of places in a window.
    """

    def __init__(self, width: int, head_width: int, window: int, *, absolute: bool) -> None:
        super().__init__()
        self.heads, self.window, self.absolute = width // head_width, window, absolute
        side = window * window if absolute else 2 * window - 1
        self.pos_embedding = nn.Parameter(0.02 * torch.randn(side, side))
        self.norm_attn, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width)
        self.mlp = Mlp(width, 4)

    def position_bias(self, slot: Tensor) -> Tensor:
        """Table entries (n, n) for places at these slots of a window, int64 (n,)."""
        if self.absolute:
            return self.pos_embedding[slot][:, slot]
        row, col = slot // self.window, slot % self.window
        rows = row[None, :] - row[:, None] + self.window - 1
        cols = col[None, :] - col[:, None] + self.window - 1
        return self.pos_embedding[rows, cols]

    def forward(self, x: Tensor, win: Windows) -> Tensor:
        batch = x.shape[0]
        bias = self.position_bias(win.slot)[None, None]
        mask = pair_bias(win, batch)
        bias = bias if mask is None else bias + mask
        q, k, v = self.to_qkv(cut(self.norm_attn(x), win)).chunk(3, -1)
        x = x + paste(self.to_out(attend(q, k, v, self.heads, bias)), win, batch)
        return x + self.mlp(self.norm_mlp(x))


class SwinStack(nn.Module):
    """Swin blocks on a grid (B, rows, cols, width), every second one on shifted windows (Liu et al. 2021).

    before: Swin blocks that the input has passed already; shifts alternate over all of them.
    """

    def __init__(
        self, count: int, width: int, head_width: int, window: int, *, absolute: bool, before: int = 0
    ) -> None:
        super().__init__()
        self.before = before
        self.blocks = nn.ModuleList(
            SwinBlock(width, head_width, window, absolute=absolute and i > 0) for i in range(count)
        )

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x, grid.shifted if (self.before + i) % 2 else grid.swin)
        return x


class ConvNextBlock(nn.Module):
    """Depthwise 5x5, LayerNorm, MLP, plus identity (Liu et al. 2022).

    input_scale: `layer_scale` multiplies the block's input, as the released weights need; otherwise
    the branch's output.
    """

    def __init__(self, width: int, ratio: int, *, input_scale: bool) -> None:
        super().__init__()
        self.input_scale = input_scale
        self.layer_scale = nn.Parameter(torch.full((width,), 1.0 if input_scale else 0.5))
        self.conv = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, ratio)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, rows, cols, width), as what is returned."""
        h = x * self.layer_scale if self.input_scale else x
        h = self.conv(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        h = self.mlp(self.norm(h))
        return x + (h if self.input_scale else h * self.layer_scale)


class DetailMix(nn.Module):
    """A Swin stack, then ConvNeXt blocks: what the detail path does after each interaction.

    (B, rows, cols, width) to the same shape.
    """

    def __init__(self, swin: SwinStack, convnext: list[ConvNextBlock]) -> None:
        super().__init__()
        self.swin = swin
        self.convnext = nn.ModuleList(convnext)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        x = self.swin(x, grid)
        for block in self.convnext:
            x = block(x)
        return x
