"""The four graphs of a bundle as torch modules that only call `dlf.nn`; names are those in the files."""

from __future__ import annotations

from torch import Tensor, nn

from dlf.nn.exact import with_whole_weights
from dlf.nn.levels import from_levels, to_levels
from dlf.nn.model import Dlf
from dlf.nn.token_prior import whole_codes
from dlf.nn.windows import Grid, Windows


def _grid(plans: tuple[Tensor, ...]) -> Grid:
    """Twelve plan inputs, in the order of `PLAN_INPUTS`, as window plans whose masks are computed."""
    windows = []
    for i in range(0, len(plans), 4):
        gather, region, slot, scatter = plans[i : i + 4]
        windows.append(Windows(gather, region, slot, scatter, whole=False))
    return Grid(*windows)


PLAN_INPUTS = tuple(
    f"{plan}_{part}"
    for plan in ("token", "swin", "shift")
    for part in ("gather", "region", "slot", "scatter")
)


class Analysis(nn.Module):
    """rgb uint8 (H, W, 3), quality (1,), plans -> indices int64 (windows, tokens), y (C, rows, cols)."""

    def __init__(self, model: Dlf) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: Tensor, quality: Tensor, *plans: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        z, feature = self.model.encoder(from_levels(rgb), _grid(plans))
        # tokens first, as in all bundles so far: `dlf.bundles.recover` goes by the order of operations
        return self.model.quantize.nearest(z), self.model.details.analyse(feature, quality)[0]


class Prior(nn.Module):
    """prior (1, P, rows, cols) -> scale, mean, step, common; all integer-valued.

    Where tokens tell something of the details there is a second input: tokens int64 (rows and columns of
    windows, tokens), -1 where not sent.
    """

    codes: Tensor

    def __init__(self, model: Dlf) -> None:
        super().__init__()
        # as the files hold it
        self.context = with_whole_weights(model.details.context)
        self.register_buffer("codes", whole_codes(model.quantize.codebook()))

    def forward(self, prior: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        told = None
        if tokens is not None:
            assert self.context.token_prior is not None
            told = self.context.token_prior.read(self.codes, tokens[None])
        first, step, common = self.context.prior(prior, told)
        return first.scale, first.mean, step, common


class Context(nn.Module):
    """y_hat, common (1, C, rows, cols), index int64 () -> scale, mean; all integer-valued."""

    def __init__(self, model: Dlf) -> None:
        super().__init__()
        self.context = with_whole_weights(model.details.context)

    def forward(self, y_hat: Tensor, common: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        scale, mean = self.context.context(index, y_hat, common)
        return scale, mean


class Synthesis(nn.Module):
    """tokens int64 (windows, tokens), -1 where not sent, y_hat, quality, plans -> rgb uint8 (H, W, 3)."""

    def __init__(self, model: Dlf) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, y_hat: Tensor, quality: Tensor, *plans: Tensor) -> Tensor:
        """See the class."""
        codes = self.model.lookup(tokens)
        synthesis = self.model.synthesise(codes, tokens >= 0, y_hat, quality, _grid(plans))
        patches = to_levels(synthesis.patches[0])
        # patches to pixels and colours to the end in one move, of bytes: a float PixelShuffle takes longer
        patch, rows, cols = self.model.vqgan.decoder.patch, patches.shape[1], patches.shape[2]
        split = patches.reshape(3, patch, patch, rows, cols).permute(3, 1, 4, 2, 0)
        return split.reshape(rows * patch, cols * patch, 3)
