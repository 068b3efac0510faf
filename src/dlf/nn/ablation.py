"""Details without their scalar quantiser: vector-quantised, or none at all.

What the paper compares its design with (DLF, section 4.3).  Both speak the codec's language of symbols,
scales and means, so that such models train, export and are evaluated in real files like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlf.nn.config import QuantConfig
from dlf.nn.context import SCALE_LOG_STEP, SCALE_LOW, STEP_UNIT, Params, PriorParams
from dlf.nn.detail import Quantised, Transforms
from dlf.nn.rate import gaussian_bits
from dlf.nn.vq import VectorQuantizer


class FixedContext(nn.Module):
    """Takes the place of `ContextModel`: scales follow from the quality alone, means are 0, steps 1.

    scales: quality (B,) to table indices (B, C), whole numbers; symbols of index 0 are not sent.
    """

    integer = True

    def __init__(self, scales: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scales = scales

    def prior_vector(self, quality: Tensor) -> Tensor:
        """quality: (B,) in [0, 100].  Returns (B, C, 1, 1): the scales themselves."""
        return self.scales(quality)[..., None, None]

    # products with 0 keep inputs in the exported graph that do not matter
    def prior(self, vector: Tensor, told: Tensor | None = None) -> PriorParams:
        """See `ContextModel.prior`; tokens tell this one nothing."""
        return PriorParams(Params(vector, 0 * vector), 0 * vector + STEP_UNIT, vector)

    def context(self, index: Tensor | int, y_hat: Tensor, common: Tensor) -> Params:
        """See `ContextModel.context`."""
        return Params(common, 0 * y_hat + 0 * index)


class NoDetails(nn.Module):
    """A codec of tokens alone; in the place of `DetailQuantizer`."""

    def __init__(self, config: QuantConfig) -> None:
        super().__init__()
        self.channels, self.hidden = config.channels, config.hidden
        self.context = FixedContext(lambda quality: (0 * quality)[:, None].expand(-1, config.channels))

    def analyse(self, feature: Tensor, quality: Tensor) -> Tensor:
        """Nothing: zeros (B, C, h, w)."""
        return 0 * feature[:, : self.channels] + 0 * quality[:, None, None, None]

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Nothing: zeros (B, hidden, h, w)."""
        return (0 * y_hat[:, :1] + 0 * quality[:, None, None, None]).expand(-1, self.hidden, -1, -1)

    def quantise(self, y: Tensor, quality: Tensor, told: Tensor | None = None) -> Quantised:
        """No bits."""
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
        """Features to y, see the class."""
        y = self.latent(feature, quality)
        if self.training:
            return y
        with torch.autocast(y.device.type, enabled=False):
            parts = y.float().chunk(self.groups, 1)
            found = [
                book.nearest(part.permute(0, 2, 3, 1))
                for book, part in zip(self.codebooks(), parts, strict=True)
            ]
        return self._digits(found)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat to features."""
        if not self.training:
            digits = (y_hat + self.base // 2).round().long().clamp(0, self.base - 1)
            codes = [
                book.embedding(self.base * digits[:, 2 * g] + digits[:, 2 * g + 1]).permute(0, 3, 1, 2)
                for g, book in enumerate(self.codebooks())
            ]
            y_hat = torch.cat(codes, 1) * self._mask(quality)
        return super().synthesise(y_hat, quality)

    def quantise(self, y: Tensor, quality: Tensor, told: Tensor | None = None) -> Quantised:
        """Nearest codes; bits of their digits under the fixed Gaussian, without a gradient."""
        sent = self.sent(quality).repeat_interleave(2, 1)[..., None, None]
        if not self.training:
            return Quantised(y * sent, self._bits(y, sent), sent.mean())
        rows = [part.permute(0, 2, 3, 1) for part in y.chunk(self.groups, 1)]
        found = [book(row.flatten(0, 2)) for book, row in zip(self.books, rows, strict=True)]
        codes = [
            f.quantised.reshape(row.shape).permute(0, 3, 1, 2) for f, row in zip(found, rows, strict=True)
        ]
        digits = self._digits([f.indices.reshape(row.shape[:3]) for f, row in zip(found, rows, strict=True)])
        return Quantised(
            torch.cat(codes, 1) * self._mask(quality),
            self._bits(digits, sent),
            sent.mean(),
            torch.stack([f.loss for f in found]).mean(),
            tuple((row.detach().flatten(0, 2), f.indices) for f, row in zip(found, rows, strict=True)),
        )

    def _mask(self, quality: Tensor) -> Tensor:
        return self.sent(quality).repeat_interleave(self.dim, 1)[..., None, None]

    def _digits(self, indices: list[Tensor]) -> Tensor:
        """Codes (B, h, w) of each group to (B, channels, h, w)."""
        digits = [digit for i in indices for digit in (i // self.base, i % self.base)]
        return torch.stack(digits, 1).float() - self.base // 2

    def _bits(self, digits: Tensor, sent: Tensor) -> Tensor:
        sigma = torch.full_like(digits, SCALE_LOW * math.exp(self.scale * SCALE_LOG_STEP))
        return (gaussian_bits(digits, sigma) * sent).sum((1, 2, 3))
