"""Details without their scalar quantiser: vector-quantised, or none at all.

What the paper compares its design with (DLF, section 4.3).  Each is a `DetailBranch`: both speak the codec's
language of symbols, scales and means, so that such models train, export and are evaluated in real files like
any other.  The networks beside a branch that is not there are here, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlf.nn.context import SCALE_LOG_STEP, SCALE_LOW, STEP_UNIT, Context, Params, PriorParams
from dlf.nn.detail_branch import DetailBranch, Quantised, Transforms, gaussian_bits
from dlf.nn.hybrid import HybridDecoder, HybridEncoder
from dlf.nn.model_config import ModelConfig, QuantConfig
from dlf.nn.vq import VectorQuantizer, quantise_grid
from dlf.nn.windows import Grid


class FixedContext(Context):
    """Scales follow from the quality alone, means are 0, steps 1.

    scales: quality (B,) to table indices (B, C), whole numbers; symbols of index 0 are not sent.
    """

    def __init__(self, scales: Callable[[Tensor], Tensor]) -> None:
        super().__init__(integer=True)
        self.scales = scales

    def prior_vector(self, quality: Tensor) -> Tensor:
        """See `Context`: the scales themselves, (B, C, 1, 1)."""
        return self.scales(quality)[..., None, None]

    # products with 0 keep inputs in the exported graph that do not matter
    def prior(self, vector: Tensor, told: Tensor | None = None) -> PriorParams:
        """See `Context`; tokens tell this one nothing."""
        return PriorParams(Params(vector, 0 * vector), 0 * vector + STEP_UNIT, vector)

    def context(self, index: Tensor | int, y_hat: Tensor, common: Tensor) -> Params:
        """See `Context`."""
        return Params(common, 0 * y_hat + 0 * index)


class TokenEncoder(HybridEncoder):
    """The encoder of a codec of tokens alone: its path carries an empty map, which nothing reads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        del self.pix_emb_proj, self.down, self.down_norm, self.down_proj

    def detail_map(self, stem: Tensor, grid: Grid) -> Tensor:
        """The stem's map itself: (B, h, w, stem width)."""
        return stem

    def detail_features(self, detail: Tensor, grid: Grid) -> Tensor:
        """Zeros (B, hidden, h/2, w/2)."""
        batch, rows, cols, _ = detail.shape
        return detail.new_zeros(batch, self.hidden, rows // 2, cols // 2)


class TokenDecoder(HybridDecoder):
    """The decoder of a codec of tokens alone: its path begins with a map of zeros."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        del self.init_feat_up
        self.width = config.detail.width

    def detail_map(self, feature: Tensor, grid: Grid) -> Tensor:
        """Zeros (B, h, w, detail width)."""
        rows, cols = grid.token.scatter.shape
        return 0 * feature[:, :1, :1, :1].expand(-1, rows, cols, self.width)


class NoDetails(DetailBranch):
    """No latent, no bits."""

    def __init__(self, config: QuantConfig) -> None:
        super().__init__()
        self.channels, self.hidden = config.channels, config.hidden
        self.context = FixedContext(lambda quality: (0 * quality)[:, None].expand(-1, config.channels))

    def analyse(self, feature: Tensor, quality: Tensor) -> Tensor:
        """Zeros (B, C, h, w)."""
        return 0 * feature[:, : self.channels] + 0 * quality[:, None, None, None]

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Zeros (B, hidden, h, w)."""
        return (0 * y_hat[:, :1] + 0 * quality[:, None, None, None]).expand(-1, self.hidden, -1, -1)

    def quantise(self, y: Tensor, quality: Tensor, told: Tensor | None = None) -> Quantised:
        """Zeros of y's shape (B, C, h, w), and no bits."""
        return Quantised(0 * y, 0 * quality, 0.0)


class VectorDetails(Transforms):
    """Details as codes: `channels / 2` groups of `code_dim` channels, one codebook each.

    What the codec sends of a code are two digits to the base sqrt(codes), centred on 0.  The better the
    quality, the more groups are sent.  While training, y is the vectors; else it is their digits.
    """

    def __init__(self, config: QuantConfig) -> None:
        self.groups, self.dim = config.channels // 2, config.code_dim
        super().__init__(config, self.groups * self.dim)
        self.base = math.isqrt(config.codes)
        if self.base**2 != config.codes:
            msg = f"{config.codes} codes are not two digits: take a square"
            raise ValueError(msg)
        self.books = nn.ModuleList(
            VectorQuantizer(config.codes, self.dim, normalise=False) for _ in range(self.groups)
        )
        # the Gaussian that fits evenly spread digits best costs a quarter of a bit more than they hold
        self.sigma = math.sqrt((self.base**2 + 2) / 12)
        self.scale = round(math.log(self.sigma / SCALE_LOW) / SCALE_LOG_STEP)
        self.context = FixedContext(lambda quality: self.scale * self.sent(quality).repeat_interleave(2, 1))

    def codebooks(self) -> list[VectorQuantizer]:
        """One of each group."""
        return [book for book in self.books if isinstance(book, VectorQuantizer)]

    def sent(self, quality: Tensor) -> Tensor:
        """Which groups are sent, the first always: 0 or 1, float (B, groups)."""
        count = 1 + (quality * ((self.groups - 1) / 100)).round()
        return (torch.arange(self.groups, device=quality.device) < count[:, None]).to(quality.dtype)

    def analyse(self, feature: Tensor, quality: Tensor) -> Tensor:
        """Features (B, hidden, h, w) to y: vectors (B, groups * dim, h, w), or digits (B, C, h, w)."""
        y = self.latent(feature, quality)
        if self.training:
            return y
        with torch.autocast(y.device.type, enabled=False):
            parts = y.float().chunk(self.groups, 1)
            indices = [
                book.nearest(part.permute(0, 2, 3, 1))
                for book, part in zip(self.codebooks(), parts, strict=True)
            ]
        return self._digits(indices)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat, as `analyse` gives y, to features (B, hidden, h, w)."""
        if not self.training:
            digits = (y_hat + self.base // 2).round().long().clamp(0, self.base - 1)
            codes = [
                book.embedding(self.base * digits[:, 2 * g] + digits[:, 2 * g + 1]).permute(0, 3, 1, 2)
                for g, book in enumerate(self.codebooks())
            ]
            y_hat = torch.cat(codes, 1) * self._mask(quality)
        return super().synthesise(y_hat, quality)

    def quantise(self, y: Tensor, quality: Tensor, told: Tensor | None = None) -> Quantised:
        """Nearest codes of y, in training (B, groups * dim, h, w), else the digits (B, C, h, w) as they are.

        The bits are those of the digits, without a gradient.
        """
        sent = self.sent(quality).repeat_interleave(2, 1)[..., None, None]
        if not self.training:
            return Quantised(y * sent, self._bits(y, sent), sent.mean())
        rows = [part.permute(0, 2, 3, 1) for part in y.chunk(self.groups, 1)]
        results = [quantise_grid(book, row) for book, row in zip(self.codebooks(), rows, strict=True)]
        codes = [result.quantised.permute(0, 3, 1, 2) for result in results]
        digits = self._digits([result.indices for result in results])
        return Quantised(
            torch.cat(codes, 1) * self._mask(quality),
            self._bits(digits, sent),
            sent.mean(),
            torch.stack([result.loss for result in results]).mean(),
            tuple(
                (row.detach().flatten(0, 2), result.indices.flatten())
                for result, row in zip(results, rows, strict=True)
            ),
        )

    def _mask(self, quality: Tensor) -> Tensor:
        """Which channels of the vectors are sent: 0 or 1, float (B, groups * dim, 1, 1)."""
        return self.sent(quality).repeat_interleave(self.dim, 1)[..., None, None]

    def _digits(self, indices: list[Tensor]) -> Tensor:
        """Codes (B, h, w) of each group to (B, channels, h, w)."""
        digits = [digit for i in indices for digit in (i // self.base, i % self.base)]
        return torch.stack(digits, 1).float() - self.base // 2

    def _bits(self, digits: Tensor, sent: Tensor) -> Tensor:
        """Bits (B,) of digits (B, C, h, w) under the fixed Gaussian, of those that are sent (B, C, 1, 1)."""
        sigma = torch.full_like(digits, SCALE_LOW * math.exp(self.scale * SCALE_LOG_STEP))
        return (gaussian_bits(digits, sigma) * sent).sum((1, 2, 3))
