"""Proof that an exported bundle computes what the torch modules compute; an export that fails it fails.

The context network must agree exactly.  The big networks are floats on both sides, so they must agree
closely; what differs there changes a pixel by a level, never a symbol.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlf.bundles import graphs
from dlf.bundles.onnx_bundle import ANALYSIS, SYNTHESIS, plan_tensors
from dlf.codec.bundle import ModelBundle
from dlf.codec.onnx_backend import OnnxBackend
from dlf.entropy.quadtree import STEPS
from dlf.errors import BundleError
from dlf.geometry import CELL, Plan
from dlf.nn.exact import ACTIVATION_LIMIT
from dlf.nn.model import Dlf
from dlf.nn.token_prior import whole_codes
from dlf.records import Latents, UInt8

ENDS = (ANALYSIS, SYNTHESIS)  # graphs of pixels
TOKENS_AGREE = 0.995  # two codes may lie equally near
LATENT_ERROR = 1e-2  # of the latent's deviation
PIXEL_LEVELS = 2


@dataclass(frozen=True)
class Parity:
    """Worst case over the images.

    tokens: share of equal token indices.  latent: largest difference of y over its deviation.
    pixels: largest difference of the decoded image, in levels of 255.  context: every integer equal.
    """

    tokens: float
    latent: float
    pixels: int
    context: bool

    @property
    def symbols(self) -> bool:
        """Whether all agrees that symbols are made of."""
        return self.tokens >= TOKENS_AGREE and self.latent <= LATENT_ERROR and self.context

    @property
    def holds(self) -> bool:
        """Whether symbols and pixels agree."""
        return self.symbols and self.pixels <= PIXEL_LEVELS

    def check(self) -> None:
        """Raise BundleError unless the bundle may be used."""
        if not self.holds:
            msg = f"the exported model does not compute what the trained one does: {self}"
            raise BundleError(msg)


@torch.no_grad()
def compare(
    model: Dlf, bundle: ModelBundle, images: Sequence[UInt8], quality: int, ends: Collection[str] = ENDS
) -> Parity:
    """Run both on uint8 images (H, W, 3) whose sides are multiples of 32.

    ends: which of `ENDS` are compared; the model's other one may be anything.
    """
    tables = bundle.tables()
    backend, sent = OnnxBackend(bundle, tables), int(tables.token_count[quality])
    return worst([_compare_one(model, backend, image, quality, sent, ends) for image in images])


def worst(parities: Sequence[Parity]) -> Parity:
    """The worst of each of several comparisons' numbers."""
    return Parity(
        tokens=min(one.tokens for one in parities),
        latent=max(one.latent for one in parities),
        pixels=max(one.pixels for one in parities),
        context=all(one.context for one in parities),
    )


def _compare_one(
    model: Dlf, backend: OnnxBackend, rgb: UInt8, quality: int, sent: int, ends: Collection[str]
) -> Parity:
    """sent: tokens of a full window."""
    plans = plan_tensors(model.grid(*rgb.shape[:2]))
    asked = torch.tensor([float(quality)])
    latents = backend.analyse(rgb, quality)
    agreed, latent, pixels = 1.0, 0.0, 0
    tokens, exported_y = torch.from_numpy(latents.tokens).long(), torch.from_numpy(latents.y)
    if ANALYSIS in ends:
        indices, y = graphs.Analysis(model)(torch.tensor(rgb), asked, *plans)
        agreed = float((indices == tokens).float().mean())
        latent = _latent_error(y, exported_y, whole=model.config.quant.kind != "scalar")
    if SYNTHESIS in ends:
        trained = graphs.Synthesis(model)(tokens, exported_y[None], asked, *plans).numpy()
        exported = backend.synthesise(latents.tokens, latents.y, quality)
        pixels = int(np.abs(trained.astype(int) - exported.astype(int)).max())
    return Parity(agreed, latent, pixels, _context_agrees(model, backend, latents, quality, sent))


def _latent_error(trained: Tensor, exported: Tensor, *, whole: bool) -> float:
    """See `Parity`; digits of codes are whole numbers, which agree as tokens do or not at all."""
    if whole:
        return 0.0 if float((trained == exported).float().mean()) >= TOKENS_AGREE else float("inf")
    return float((trained - exported).abs().max() / trained.std())


def _context_agrees(model: Dlf, backend: OnnxBackend, latents: Latents, quality: int, sent: int) -> bool:
    context = model.details.context
    y, (rows, cols) = latents.y, latents.y.shape[1:]
    plan = Plan(rows * CELL, cols * CELL)
    counts = plan.token_counts(sent)
    tokens = np.where(np.arange(latents.tokens.shape[1]) < counts[:, None], latents.tokens, -1)
    prior = backend.prior(rows, cols, quality, tokens)
    vector = context.prior_vector(torch.tensor([float(quality)])).expand(-1, -1, rows, cols)
    told = None
    if model.token_prior is not None:
        indices = torch.from_numpy(tokens).long().reshape(1, *plan.windows, -1)
        told = model.token_prior.read(whole_codes(model.quantize.codebook()), indices)
    trained = context.prior(vector, told)
    pairs = [
        (trained.first.scale, prior.first.scale),
        (trained.first.mean, prior.first.mean),
        (trained.step, prior.step),
        (trained.common, prior.common),
    ]
    y_hat = np.clip(np.rint(16 * y), -ACTIVATION_LIMIT, ACTIVATION_LIMIT).astype(np.int32)
    for step in range(1, STEPS):
        params = backend.context(step, y_hat, prior.common)
        expected = context.context(step - 1, torch.from_numpy(y_hat)[None].float(), trained.common)
        pairs += [(expected.scale, params.scale), (expected.mean, params.mean)]
    return all(np.array_equal(a[0].numpy(), b) for a, b in pairs)
