"""What an encoder gains that looks at what the decoder paints: ``python tools/refine_trial.py FOLDER``.

The details' latent goes down the gradient of a loss of the painted image, through the synthesis network of
the model in torch; tokens, context and decoder stay as they are, and so does the format.  The loss looks
through the first layers of the model's own encoder and at the pixels.  The step with the least sum of loss
and weighted bits is coded by the package's own coder.  Prints the scores of both files at several qualities,
then the change of bytes at equal score (BD-rate, per cent; negative is better) of each image and the mean.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dlf
from dlf.bitstream import container
from dlf.bitstream.container import Stream
from dlf.bundles.recover import recover
from dlf.codec.codec import StreamCodec
from dlf.evaluation.bdrate import NoOverlap, bd_rate
from dlf.evaluation.dataset import find_images
from dlf.evaluation.metrics.feature_distance import hed_dists_metric, hed_metric, stem_metric
from dlf.evaluation.metrics.fidelity import MS_SSIM, PSNR
from dlf.evaluation.metrics.metric import Metric
from dlf.imageio import load_rgb
from dlf.losses.objective import Weights, pixel_terms, weighted_sum
from dlf.losses.perceptual import feature_distance
from dlf.losses.texture import contrast_distance
from dlf.nn.build import PRESETS
from dlf.nn.context import STEP_UNIT
from dlf.nn.detail_branch import gaussian_bits, place_masks, round_ste
from dlf.nn.exact import ACTIVATION_UNIT
from dlf.nn.model import Dlf
from dlf.nn.vqgan import ResBlock
from dlf.records import Latents, UInt8

PIXELS = Weights(l1=0.5, low=1.0, ssim=0.4, phase=6.0)
DISTANCE, TEXTURE = 5.0, 8.0  # weights of the encoder's features and of their deviations
BIT_WEIGHT = 0.6  # of bits, as a share of those of the plain file
RATE = 0.006  # quantisation steps that the mean symbol moves at first
STEEPEST = 6  # times the mean gradient


@dataclass(frozen=True)
class Painter:
    """The model of a codec in torch.  blocks: of its encoder, whose maps are compared."""

    codec: StreamCodec
    model: Dlf
    blocks: Sequence[nn.Module]
    prior: np.ndarray

    def maps(self, image: Tensor) -> list[Tensor]:
        """Return the feature maps of RGB (1, 3, H, W) in [-1, 1]."""
        kept: list[Tensor] = []
        hooks = [block.register_forward_hook(lambda *parts: kept.append(parts[2])) for block in self.blocks]
        self.model.encoder.patch_embed((image + 1) / 2)
        for hook in hooks:
            hook.remove()
        return kept

    def quantise(self, y: Tensor, quality: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return y_hat, the bits of each symbol and the step, as the codec has them, with gradients."""
        details: Any = self.model.details
        vector = torch.from_numpy(self.prior[quality].astype(np.float32))[None, :, None, None]
        params, step, common = details.context.prior(vector.expand(-1, -1, *y.shape[2:]))
        step = step / STEP_UNIT
        masks = place_masks(details.places, *y.shape[2:])
        y_hat, bits = torch.zeros_like(y), torch.zeros_like(y)
        for index in range(4):
            if index:
                params = details.context.context(index - 1, y_hat.detach(), common)
            sent = params.scale >= 1
            symbol = torch.where(sent, round_ste(y / step - params.mean / ACTIVATION_UNIT), 0.0)
            spent = torch.where(sent, gaussian_bits(symbol, details.context.sigma(params.scale)), 0.0)
            y_hat = torch.where(masks[index], symbol * ACTIVATION_UNIT + params.mean, y_hat)
            bits = torch.where(masks[index], spent, bits)
        return y_hat * step / ACTIVATION_UNIT, bits, step


def make_painter(name: str, preset: str) -> Painter:
    """Recover the networks of a shipped model."""
    front = dlf.Codec(name, threads=1)
    model = Dlf(PRESETS[preset]).eval()
    model.load_state_dict(model.state_dict() | recover(front._bundle, preset).tensors)
    model.requires_grad_(False)
    blocks = [part for part in model.encoder.patch_embed.modules() if isinstance(part, ResBlock)]
    return Painter(front._ready(front._bundle), model, blocks, front._bundle.tables().prior)


def refine(painter: Painter, rgb: UInt8, latents: Latents, quality: int, steps: int) -> Latents:
    """Return the latents with the least sum of bits and distance of their painting, both weighted."""
    header = painter.codec.header(rgb, quality)
    plan = painter.codec.plan(header)
    x = torch.from_numpy(plan.pad(rgb)).permute(2, 0, 1)[None].float() / 127.5 - 1
    grid, level = painter.model.grid(*x.shape[2:]), torch.tensor([float(quality)])
    counts = painter.codec._token_counts(plan, quality)
    sent = torch.from_numpy(np.arange(latents.tokens.shape[1])[None] < counts[:, None])
    codes = painter.model.lookup(torch.from_numpy(latents.tokens).long())
    y = torch.from_numpy(latents.y)[None]
    with torch.no_grad():
        originals = painter.maps(x)
        step = painter.quantise(y, quality)[2]
    scaled = (y / step).clone().requires_grad_(True)
    speed, mean, plain, best = torch.zeros_like(scaled), None, 0.0, (math.inf, y)
    for turn in range(steps + 1):
        y_hat, bits, _ = painter.quantise(scaled * step, quality)
        image = painter.model.synthesise(codes, sent, y_hat, level, grid).image
        maps = painter.maps(image)
        loss = weighted_sum(pixel_terms(image, x, PIXELS, None), PIXELS)
        loss = loss + DISTANCE * feature_distance(maps, originals).mean()
        loss = loss + TEXTURE * contrast_distance(maps, originals).mean()
        spent = bits.sum()
        plain = plain or spent.item()
        loss = loss + BIT_WEIGHT * spent / plain
        if loss.item() < best[0]:
            best = loss.item(), (scaled * step).detach().clone()
        if turn == steps:
            break
        scaled.grad = None
        loss.backward()
        gradient = scaled.grad
        assert isinstance(gradient, Tensor)
        with torch.no_grad():
            size = gradient.square().mean().sqrt()
            mean = size if mean is None else 0.9 * mean + 0.1 * size
            speed.mul_(0.6).add_(gradient / mean, alpha=0.4)
            scaled.sub_(RATE * (1 - 0.8 * turn / steps) * speed.clamp(-STEEPEST, STEEPEST))
    return Latents(latents.tokens, best[1][0].numpy())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=12, help="take every Nth image")
    parser.add_argument("--side", type=int, default=256, help="of the square from the middle")
    parser.add_argument("--qualities", type=int, nargs="+", default=[30, 40, 50, 60])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--stem", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    painter = make_painter(args.model, args.preset)
    metrics = [PSNR, MS_SSIM, stem_metric(args.stem), hed_metric(), hed_dists_metric()]
    print("image", "quality", "file", "bytes", *(metric.name for metric in metrics), "seconds", sep="\t")
    changes = []
    for file in find_images(args.folder)[:: args.every]:
        rgb = load_rgb(file.path)[0]
        top, left = ((size - args.side) // 2 for size in rgb.shape[:2])
        rgb = np.ascontiguousarray(rgb[top : top + args.side, left : left + args.side])
        change = compare(painter, rgb, file.name, metrics, args.qualities, args.steps)
        changes.append(change)
        print(file.name, "BD-rate", *(f"{value:+.1f}" for value in change), sep="\t", flush=True)
    print("mean", "BD-rate", *(f"{value:+.1f}" for value in np.nanmean(changes, 0)), sep="\t")


def compare(
    painter: Painter, rgb: UInt8, name: str, metrics: list[Metric], qualities: list[int], steps: int
) -> list[float]:
    """Print the scores of an image's files, and return the BD-rate by each metric."""
    scores: list[Callable[[UInt8], float]] = [metric.against(rgb) for metric in metrics]
    curves: dict[str, list[list[float]]] = {"plain": [], "refined": []}
    for quality in qualities:
        latents, header = painter.codec.analyse(rgb, quality), painter.codec.header(rgb, quality)
        for kind, points in curves.items():
            start = time.process_time()
            if kind == "refined":
                latents = refine(painter, rgb, latents, quality, steps)
            stream: Stream = painter.codec.write(latents, header)
            seconds = time.process_time() - start
            image = painter.codec.decode_stream(stream)
            points.append([len(container.dump(stream)), *(score(image) for score in scores)])
            numbers = [f"{value:.4f}" for value in points[-1][1:]]
            print(name, quality, kind, points[-1][0], *numbers, f"{seconds:.1f}", sep="\t", flush=True)
    changes = []
    for place, metric in enumerate(metrics, 1):
        plain, refined = ([(row[0], row[place]) for row in points] for points in curves.values())
        try:
            changes.append(bd_rate(plain, refined, lower_is_better=metric.lower_is_better).percent)
        except NoOverlap:
            changes.append(math.nan)
    return changes


if __name__ == "__main__":
    main()
