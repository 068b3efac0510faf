"""A trained model to a bundle folder of four graphs.

A new decoder for old files is a bundle, too: of its files only the synthesis graph is new, or both graphs of
pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from dlf.bundles import graphs
from dlf.bundles.bundle_writer import BundleSpec, seal, seal_like, tables_file
from dlf.bundles.eight_bits import Packed
from dlf.bundles.onnx_graph import Signature, store_eight, store_half, to_onnx
from dlf.bundles.rewriting import rewrite
from dlf.codec.bundle import FILES, GRAPHS, TABLES, ModelBundle
from dlf.entropy.tables import QUALITIES, TOTAL, gaussian_frequencies
from dlf.files import write_bytes
from dlf.geometry import WINDOW_CELLS, ceil_div
from dlf.nn.context import SCALE_LOG_STEP, SCALE_LOW, SCALES
from dlf.nn.model import Dlf
from dlf.nn.schedule import token_schedule
from dlf.nn.windows import Grid

SYMBOL_LIMIT = 24
ANALYSIS, PRIOR, CONTEXT, SYNTHESIS = GRAPHS
TRACE_ROWS, TRACE_COLS = 9, 11  # latent cells of the traced example: several, partly filled windows


def plan_tensors(grid: Grid) -> list[Tensor]:
    """The plan inputs of the analysis and synthesis graphs, in their order."""
    return [part for win in grid for part in (win.gather, win.region, win.slot, win.scatter)]


@dataclass(frozen=True)
class TokenUse:
    """How a model's tokens are coded.

    counts: int64 (tokens, codes), how often each code was used at each place on images like those to come.
    ends: how many a window sends at quality 0 and at 50, see `dlf.nn.schedule.token_schedule`.
    """

    counts: NDArray[np.int64]
    ends: tuple[int, int] | None = None


def write_onnx_bundle(
    model: Dlf, folder: Path, spec: BundleSpec, tokens: TokenUse, packed: Iterable[Packed] = ()
) -> None:
    """Write all files of a bundle; existing ones are replaced.

    packed: weights of the model to store in 8 bits; see `dlf.bundles.eight_bits`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in GRAPHS:
        write_bytes(folder / name, graph_file(model, name, packed))
    write_bytes(folder / TABLES, _tables(model, tokens))
    seal(folder, "onnx", model.config, spec)


def write_partial_bundle(
    model: Dlf,
    folder: Path,
    base: ModelBundle,
    new: Collection[str],
    name: str,
    card: dict[str, Any],
    packed: Iterable[Packed] = (),
) -> None:
    """Write a bundle whose graphs `new` are of `model`; all other files are those of the base, byte for byte.

    name, card: of the new bundle.  packed: as for `write_onnx_bundle`.

    Raises:
        BundleError: a file of the base is missing or damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        write_bytes(folder / file, graph_file(model, file, packed) if file in new else base.read(file))
    seal_like(folder, base.manifest, name, card)


def smooth_frequencies(counts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Counts (tokens, codes) to frequencies >= 1 whose rows sum to 2**16.

    Half a count is added to each code, since a code unseen in the sample is rare, not impossible.
    """
    share = (counts + 0.5) / (counts + 0.5).sum(1, keepdims=True)
    spare = TOTAL - counts.shape[1]
    exact = 1 + share * spare
    rows = np.floor(exact).astype(np.int64)
    # what flooring left over goes to those that lost most by it
    rank = (exact - rows).argsort(1, kind="stable")[:, ::-1].argsort(1)
    rows += rank < TOTAL - rows.sum(1, keepdims=True)
    return rows.astype(np.uint32)


def graph_file(model: Dlf, name: str, packed: Iterable[Packed] = ()) -> bytes:
    """The bytes of one of a bundle's graphs; name: see `trace`.  packed: see `write_onnx_bundle`."""
    onnx_model = trace(model, name)
    exact = name in (PRIOR, CONTEXT)
    store_eight(onnx_model, () if exact else packed)
    store_half(onnx_model, lossless=exact)
    return onnx_model.SerializeToString()


def trace(model: Dlf, name: str) -> ModelProto:
    """One of the graphs of a model, in float32; name: see `dlf.codec.bundle.GRAPHS`."""
    rows, cols = TRACE_ROWS, TRACE_COLS
    grid = model.grid(32 * rows, 32 * cols)
    plans = plan_tensors(grid)
    plan_axes = {
        key: ({0: f"{key[:-5]}_n"} if key.endswith("slot") else {0: f"{key}_0", 1: f"{key}_1"})
        for key in graphs.PLAN_INPUTS
    }
    quality = torch.tensor([50.0])
    channels, count = model.config.quant.channels, model.config.tokens.count
    cells = torch.zeros(1, channels, rows, cols)
    on_cells = {2: "rows", 3: "cols"}
    module: nn.Module
    example: Sequence[Tensor]
    if name == ANALYSIS:
        module = graphs.Analysis(model)
        example = [torch.zeros(32 * rows, 32 * cols, 3, dtype=torch.uint8), quality, *plans]
        inputs: tuple[str, ...] = ("rgb", "quality", *graphs.PLAN_INPUTS)
        outputs: tuple[str, ...] = ("indices", "y")
        axes = {"rgb": {0: "height", 1: "width"}, **plan_axes}
    elif name == PRIOR:
        module, example = graphs.Prior(model), [cells]
        inputs, outputs, axes = ("prior",), ("scale", "mean", "step", "common"), {"prior": on_cells}
        if model.token_prior is not None:
            down, across = (ceil_div(size, WINDOW_CELLS) for size in (rows, cols))
            example = [cells, torch.zeros(down, across, count, dtype=torch.int64)]
            inputs, axes = ("prior", "tokens"), {**axes, "tokens": {0: "down", 1: "across"}}
    elif name == CONTEXT:
        module, example = graphs.Context(model), [cells, cells, torch.tensor(0)]
        inputs, outputs = ("y_hat", "common", "index"), ("scale", "mean")
        axes = {"y_hat": on_cells, "common": on_cells}
    else:
        module = graphs.Synthesis(model)
        tokens = torch.zeros(grid.token.gather.shape[0], count, dtype=torch.int64)
        example = [tokens, cells, quality, *plans]
        inputs, outputs = ("tokens", "y_hat", "quality", *graphs.PLAN_INPUTS), ("rgb",)
        axes = {"tokens": {0: "windows"}, "y_hat": on_cells, **plan_axes}
    traced = to_onnx(module, example, Signature(inputs, outputs, axes))
    if name in (ANALYSIS, SYNTHESIS):  # the others decide symbols, and stay as they were traced
        rewrite(traced)
    return traced


def _tables(model: Dlf, use: TokenUse) -> bytes:
    tokens = model.config.tokens
    scales = SCALE_LOW * np.exp(SCALE_LOG_STEP * np.arange(SCALES))
    with torch.no_grad():
        prior = model.details.context.prior_vector(torch.arange(QUALITIES, dtype=torch.float32))
    # named only where it holds, so that what needs no new reader asks for none
    options = {} if model.token_prior is None else {"token_prior": np.array(1, np.int64)}
    return tables_file(
        gaussian_frequency=gaussian_frequencies(scales, SYMBOL_LIMIT),
        scale_bounds=np.arange(1, SCALES, dtype=np.int32),
        token_frequency=smooth_frequencies(use.counts),
        token_count=token_schedule(tokens.count, tail_drop=tokens.tail_drop, ends=use.ends),
        prior=prior[:, :, 0, 0].numpy().astype(np.int16),
        **options,
    )
