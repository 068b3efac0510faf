"""A trained model to a bundle folder: four graphs, tables, manifest with hashes.

A new painter is a bundle, too: of its files only the synthesis graph is new.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from dlf.bundles import graphs
from dlf.bundles.eight_bits import Packed
from dlf.bundles.onnx_graph import Signature, store_eight, store_half, to_onnx
from dlf.codec.bundle import FILES, FORMAT, GRAPHS, MANIFEST, TABLES, Manifest, ModelBundle, numerics_id
from dlf.entropy.tables import TOTAL, gaussian_frequencies
from dlf.files import write_bytes
from dlf.geometry import WINDOW_CELLS, ceil_div
from dlf.nn.context import SCALE_LOG_STEP, SCALE_LOW, SCALES
from dlf.nn.model import Dlf
from dlf.nn.semantic import QUALITIES, token_schedule
from dlf.nn.windows import Grid

SYMBOL_LIMIT = 24
ANALYSIS, PRIOR, CONTEXT, SYNTHESIS = GRAPHS
TRACE_ROWS, TRACE_COLS = 9, 11  # latent cells of the traced example: several, partly filled windows


@dataclass(frozen=True)
class BundleSpec:
    """What the manifest says beside the model itself.

    token_counts: int64 (tokens, codes), how often each code was used at each place on pictures like
    those to come.  token_ends: see `dlf.nn.semantic.token_schedule`.
    """

    name: str
    id: int
    default_quality: int
    token_counts: NDArray[np.int64]
    card: dict[str, Any]
    token_ends: tuple[int, int] | None = None


def plan_tensors(grid: Grid) -> list[Tensor]:
    """The plan inputs of the analysis and synthesis graphs, in their order."""
    return [part for win in grid for part in (win.gather, win.region, win.slot, win.scatter)]


def write_bundle(model: Dlf, folder: Path, spec: BundleSpec, packed: Iterable[Packed] = ()) -> None:
    """Write all files of a bundle; existing ones are replaced.

    packed: weights of the model to store in 8 bits; see `dlf.bundles.eight_bits`.
    """
    data = {name: _graph(model, name, packed) for name in GRAPHS}
    data[TABLES] = _tables(model, spec)
    hashes = _hashes(data)
    config = model.config
    manifest = Manifest(
        format=FORMAT,
        name=spec.name,
        id=spec.id,
        numerics=numerics_id(hashes),
        files=hashes,
        tokens=config.tokens.count,
        codes=config.tokens.codes,
        channels=config.quant.channels,
        swin_window=config.detail.swin_window,
        default_quality=spec.default_quality,
        card=spec.card,
    )
    _write(folder, data, manifest)


@dataclass(frozen=True)
class PainterSpec:
    """What the manifest of a new painter says that is not as in the manifest of `base`."""

    base: ModelBundle
    name: str
    card: dict[str, Any]


def write_painter(model: Dlf, folder: Path, spec: PainterSpec, packed: Iterable[Packed] = ()) -> None:
    """Write a bundle that paints with `model`; all other files are those of the base, byte for byte.

    packed: as for `write_bundle`.

    Raises:
        BundleError: a file of the base is missing or damaged.
    """
    data = {name: spec.base.read(name) for name in FILES if name != SYNTHESIS}
    data[SYNTHESIS] = _graph(model, SYNTHESIS, packed)
    known = spec.base.manifest
    _write(folder, data, replace(known, name=spec.name, card=spec.card, files=_hashes(data)))


def _hashes(data: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}


def _write(folder: Path, data: dict[str, bytes], manifest: Manifest) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in data.items():
        write_bytes(folder / name, content)
    write_bytes(folder / MANIFEST, manifest.dump().encode())


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


def _graph(model: Dlf, name: str, packed: Iterable[Packed] = ()) -> bytes:
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
    return to_onnx(module, example, Signature(inputs, outputs, axes))


def _tables(model: Dlf, spec: BundleSpec) -> bytes:
    config = model.config
    scales = SCALE_LOW * np.exp(SCALE_LOG_STEP * np.arange(SCALES))
    with torch.no_grad():
        prior = model.details.context.prior_vector(torch.arange(QUALITIES, dtype=torch.float32))
    # named only where it holds, so that what needs no new reader asks for none
    options: dict[str, Any] = {} if model.token_prior is None else {"token_prior": np.array(1, np.int64)}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        gaussian_frequency=gaussian_frequencies(scales, SYMBOL_LIMIT),
        scale_bounds=np.arange(1, SCALES, dtype=np.int32),
        token_frequency=smooth_frequencies(spec.token_counts),
        token_count=token_schedule(
            config.tokens.count, tail_drop=config.tokens.tail_drop, ends=spec.token_ends
        ),
        prior=prior[:, :, 0, 0].numpy().astype(np.int16),
        **options,
    )
    return buffer.getvalue()
