"""Judges paintings of one image with the model's own networks, and says where the latent should go.

No other network is needed: beside the pixels, the first maps of the model's own encoder are compared, place
by place and in how strongly they vary, which keeps texture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlf.codec.bundle import ModelBundle
from dlf.codec.effort import Judged
from dlf.codec.tiling import Tile, tiles
from dlf.errors import EngineError
from dlf.geometry import CELL, WINDOW_PIXELS, Plan, window_maps
from dlf.losses.objective import Weights, pixel_terms, weighted_sum
from dlf.losses.perceptual import feature_distance
from dlf.losses.texture import contrast_distance
from dlf.records import Float32, Int32, UInt8
from dlf.refine.graph import BoundGraph, Node, TorchGraph
from dlf.torch_engine.resources import limited_threads

PIXELS = Weights(l1=0.5, low=1.0, ssim=0.4, phase=6.0)
DISTANCE, TEXTURE = 5.0, 8.0
"""Weights of the encoder's maps and of their deviations."""

CORE = 2 * WINDOW_PIXELS
"""Pixels of a side of a tile; gradients take some ten times the memory of painting."""


@dataclass(frozen=True)
class TilePainter:
    """One tile of an image: what paints it, and what it is compared with.

    pixels: (1, 3, H, W) in [-1, 1].  maps: of the encoder.
    share: of the image, by which its distance counts.
    """

    tile: Tile
    share: float
    paint: BoundGraph
    encode: BoundGraph
    pixels: Tensor
    maps: list[Tensor]

    def judge(self, y_hat: Float32) -> Judged:
        """Paint and compare; y_hat: of the whole image; the slope is that of the tile's core."""
        rows, cols = self.tile.seen(CELL)
        cells = torch.from_numpy(np.ascontiguousarray(y_hat[None, :, rows, cols])).requires_grad_(True)
        (rgb,) = self.paint(y_hat=cells)
        distance = self.share * self._distance(rgb)
        (slope,) = torch.autograd.grad(distance, cells)
        rows, cols = self.tile.core_in_seen(CELL)
        return Judged(distance.item(), slope[0, :, rows, cols].numpy())

    def _distance(self, rgb: Tensor) -> Tensor:
        """Compare a painting, (H, W, 3) in [0, 255]."""
        maps = self.encode(rgb=rgb)
        loss = weighted_sum(pixel_terms(_scaled(rgb), self.pixels, PIXELS, None), PIXELS)
        loss = loss + DISTANCE * feature_distance(maps, self.maps).mean()
        return loss + TEXTURE * contrast_distance(maps, self.maps).mean()


class ImageJudge:
    """`dlf.codec.effort.Judge` of one image, tile by tile; check: called before each."""

    def __init__(
        self, painters: Sequence[TilePainter], threads: int | None, check: Callable[[], None]
    ) -> None:
        self._painters, self._threads, self._check = painters, threads, check

    def __call__(self, y_hat: Float32) -> Judged:
        """Paint and compare; see `dlf.codec.effort.Judge`."""
        slope, distance = np.empty_like(y_hat), 0.0
        with limited_threads(self._threads):
            for painter in self._painters:
                self._check()
                part = painter.judge(y_hat)
                rows, cols = painter.tile.core(CELL)
                slope[:, rows, cols] = part.slope
                distance += part.distance
        return Judged(distance, slope)


class Judging:
    """A model whose paintings can be judged.

    threads: within one operation; None leaves it to torch.

    Raises:
        BundleError: a graph of the model cannot be read.
        EngineError: the model has none.
    """

    def __init__(self, bundle: ModelBundle, threads: int | None) -> None:
        if bundle.manifest.engine != "onnx":
            msg = f"the model '{bundle.manifest.name}' cannot be searched with: it has no graphs"
            raise EngineError(msg)
        self._swin, self._threads = bundle.manifest.swin_window, threads
        self._synthesis = TorchGraph(bundle.read("synthesis.onnx"))
        self._analysis = TorchGraph(bundle.read("analysis.onnx"))
        self._maps = residual_maps(self._analysis.nodes)

    def of(
        self, plan: Plan, rgb: UInt8, sent: Int32, quality: int, check: Callable[[], None] | None = None
    ) -> ImageJudge:
        """Return the judge of an image; see `dlf.codec.effort.Judges`."""
        check = check or _no_limit
        painters = []
        with limited_threads(self._threads):
            for tile in tiles(plan, CORE):
                check()
                painters.append(self._painter(plan, tile, rgb, sent, quality))
        return ImageJudge(painters, self._threads, check)

    def _painter(self, plan: Plan, tile: Tile, rgb: UInt8, sent: Int32, quality: int) -> TilePainter:
        pixels = torch.from_numpy(plan.pad(rgb, tile.row.seen, tile.col.seen)).float()
        windows = sent.reshape(*plan.windows, -1)[tile.seen(WINDOW_PIXELS)].reshape(-1, sent.shape[1])
        height, width = pixels.shape[:2]
        maps = window_maps(Plan(height, width, corner=tile.corner), self._swin)
        common = {
            "tokens": torch.from_numpy(windows.astype(np.int64)),
            "quality": torch.tensor([float(quality)]),
            **{name: torch.from_numpy(each) for name, each in maps.items()},
        }
        paint = self._synthesis.bind(("rgb",), **_known_to(self._synthesis, common))
        encode = self._analysis.bind(self._maps, **_known_to(self._analysis, common))
        with torch.no_grad():
            originals = encode(rgb=pixels)
        return TilePainter(tile, _share(plan, tile), paint, encode, _scaled(pixels), originals)


def _no_limit() -> None:
    """Let everything take as long as it does."""


def residual_maps(nodes: Sequence[Node]) -> list[str]:
    """Return the names of the maps behind the residual blocks that an encoder begins with.

    These are sums of two convolutions' results, or of a convolution's and such a sum, before the first
    product of matrices.
    """
    maps: list[str] = []
    convolved: set[str] = set()
    for node in nodes:
        if node.kind == "MultiHeadAttention":
            break
        if node.kind == "Conv":
            convolved.update(node.outputs)
        elif node.kind == "Add" and convolved.issuperset(node.inputs):
            convolved.update(node.outputs)
            maps.extend(node.outputs)
    return maps


def _known_to(graph: TorchGraph, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: feed for name, feed in feeds.items() if name in graph.inputs}


def _scaled(rgb: Tensor) -> Tensor:
    """(H, W, 3) in [0, 255] to (1, 3, H, W) in [-1, 1]."""
    return rgb.permute(2, 0, 1)[None] / 127.5 - 1


def _share(plan: Plan, tile: Tile) -> float:
    """Return which part of an image a tile's core is."""
    rows, cols = (span.core[1] - span.core[0] for span in (tile.row, tile.col))
    return rows * cols / (plan.padded[0] * plan.padded[1])
