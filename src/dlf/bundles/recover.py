"""From a bundle back to a training checkpoint, so that a shipped model can be trained further.

The graphs of a bundle hold all weights that decide what it computes, but the tracer renamed, transposed
and merged some.  So a model of the same preset with random weights is traced the same way, and what each
of its tensors became there says where the bundle keeps the same tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor

from dlf.bundles.onnx_bundle import ANALYSIS, CONTEXT, PRIOR, SYNTHESIS, trace
from dlf.bundles.onnx_graph import EIGHT, HALF, SCALE
from dlf.bundles.rewriting import rewrite
from dlf.codec.bundle import Manifest, ModelBundle
from dlf.errors import BundleError
from dlf.nn.build import PRESETS
from dlf.nn.exact import ACTIVATION_UNIT, WEIGHT_UNIT
from dlf.nn.hybrid import STEM, TOKENIZER
from dlf.nn.model import Dlf

Array = NDArray[np.float32]


@dataclass
class Recovered:
    """preset: that the model was of.  tensors: of `Dlf`, by name.

    guessed: names of those that no graph holds, for training alone.
    """

    preset: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    guessed: list[str] = field(default_factory=list)


@torch.no_grad()
def recover(bundle: ModelBundle, preset: str) -> Recovered:
    """All weights of a bundle that was exported from `preset`.

    The tokenizer's encoder is in no bundle: it is given the weights of the stem that was trained from it,
    or what a new model has.  The prior's anchors come back rounded to 1/16, so that between them the prior
    may be another by that much.

    Raises:
        BundleError: the bundle is not of this preset, or of another version of it.
    """
    probe = _probe(preset)
    state = probe.state_dict()
    recovered = Recovered(preset)
    for name in (ANALYSIS, SYNTHESIS):
        graph = onnx.load_from_string(bundle.read(name))
        rewrite(graph)  # as `trace` does; bundles of before have other graphs
        for ours, theirs in _pairs(trace(probe, name), graph):
            _place(recovered.tensors, state, ours, torch.from_numpy(theirs))
    for name in (PRIOR, CONTEXT):
        _, constants = _operations(onnx.load_from_string(bundle.read(name)))
        for key in [key for key in constants if key.startswith("context.")]:
            unit = WEIGHT_UNIT if key.endswith(".weight") else WEIGHT_UNIT * ACTIVATION_UNIT
            recovered.tensors[f"details.{key}"] = torch.from_numpy(constants[key]) / unit
    anchors = probe.config.quant.qualities
    prior = bundle.tables().prior.astype(np.float32) / ACTIVATION_UNIT
    places = np.linspace(0, len(prior) - 1, anchors).astype(int)
    recovered.tensors["details.context.factorized_prior_vec"] = torch.from_numpy(prior[places])
    _complete(recovered, probe)
    return recovered


def recover_likely(bundle: ModelBundle) -> Recovered:
    """As `recover`, from the first preset of the bundle's sizes that it can be of.

    Raises:
        BundleError: there is none of these sizes, or the bundle is of no such preset.
    """
    *others, last = likely_presets(bundle.manifest)
    found = (recover_if_of(bundle, preset) for preset in others)
    return next((recovered for recovered in found if recovered is not None), None) or recover(bundle, last)


def recover_if_of(bundle: ModelBundle, preset: str) -> Recovered | None:
    """As `recover`; None where that would raise BundleError."""
    try:
        return recover(bundle, preset)
    except BundleError:
        return None


def likely_presets(manifest: Manifest) -> tuple[str, ...]:
    """Return the presets of the sizes that a manifest names; raises BundleError where there is none."""
    sizes = manifest.tokens, manifest.codes, manifest.channels, manifest.swin_window
    found = tuple(
        name
        for name, config in PRESETS.items()
        if sizes
        == (config.tokens.count, config.tokens.codes, config.quant.channels, config.detail.swin_window)
    )
    if not found:
        msg = f"the model '{manifest.name}' has the sizes of no preset"
        raise BundleError(msg)
    return found


def _probe(preset: str) -> Dlf:
    """A model in which no two numbers are alike."""
    config = PRESETS[preset]
    if not config.quant.integer or config.quant.kind != "scalar":
        msg = f"weights of the preset {preset} cannot be got back from graphs"
        raise BundleError(msg)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dlf(config).eval()
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.0)
        for name, tensor in model.named_buffers():
            if name.endswith("spread.square"):
                tensor.add_(2)  # a mean square is above the squared mean
    return model


def _initializers(graph: ModelProto) -> dict[str, Array]:
    """Floating point constants by name, in float32, whatever they are stored in."""
    stored = {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}
    arrays = {}
    for name, array in stored.items():
        if name.endswith(EIGHT):
            plain = name.removesuffix(EIGHT)
            arrays[plain] = array.astype(np.float32) * stored[plain + SCALE]
        elif array.dtype.kind == "f" and not name.endswith(SCALE):
            arrays[name.removesuffix(HALF)] = array.astype(np.float32)
    return arrays


def _operations(graph: ModelProto) -> tuple[list[NodeProto], dict[str, Array]]:
    """What a graph computes, and its constants by every name that they go by.

    The tracer writes equal constants once, and gives the others their name by an Identity.
    """
    constants = _initializers(graph)
    nodes = []
    for node in graph.graph.node:
        first = node.input[0] if node.input else ""
        if node.op_type == "Identity" and first in constants:
            constants[node.output[0]] = constants[first]
        elif not (first.endswith((HALF, EIGHT)) or (node.input and node.input[-1].endswith(SCALE))):
            nodes.append(node)
    return nodes, constants


def _pairs(ours: ModelProto, theirs: ModelProto) -> Iterator[tuple[Array, Array]]:
    """Constants at the same places of two graphs."""
    (our_nodes, our_constants), (their_nodes, their_constants) = _operations(ours), _operations(theirs)
    if [node.op_type for node in our_nodes] != [node.op_type for node in their_nodes]:
        msg = "the model's graphs are not those of this preset"
        raise BundleError(msg)
    for a, b in zip(our_nodes, their_nodes, strict=True):
        for first, second in zip(a.input, b.input, strict=True):
            if first not in our_constants or second not in their_constants:
                continue
            pair = our_constants[first], their_constants[second]
            if pair[0].shape != pair[1].shape:
                sizes = f"{pair[1].shape} instead of {pair[0].shape}"
                msg = f"the model's graphs are of another form of this preset: {sizes}"
                raise BundleError(msg)
            yield pair


def _place(into: dict[str, Tensor], state: dict[str, Tensor], ours: Array, theirs: Tensor) -> None:
    """Put `theirs` where the probe's state has what became `ours`."""
    traced = torch.from_numpy(ours)
    for key, tensor in state.items():
        if tensor.numel() == traced.numel() and torch.equal(tensor.flatten(), traced.flatten()):
            into[key] = theirs.reshape(tensor.shape)
            return
        if tensor.dim() == 2 and torch.equal(tensor.T, traced):
            into[key] = theirs.T.contiguous()
            return
    _place_combined(into, state, traced, theirs)


def _place_combined(
    into: dict[str, Tensor], state: dict[str, Tensor], traced: Tensor, theirs: Tensor
) -> None:
    """What the tracer computed from two tensors, or some rows of one."""
    for side in ("encoder", "decoder"):
        first, places = f"{side}.path.class_embedding", f"{side}.path.positional_embedding"
        if torch.equal(state[first] + state[places][:1], traced):
            into[first] = theirs  # the sum is all that counts
            into.setdefault(places, torch.zeros_like(state[places]))
            return
    mean, square = "encoder.spread.mean", "encoder.spread.square"
    if mean in state and torch.equal(state[square] - state[mean].square(), traced):
        into[square] = theirs  # `_complete` adds the squared mean
        return
    for key, tensor in state.items():
        if tensor.dim() == traced.dim() == 2 and tensor.shape[1] == traced.shape[1]:
            for row in (tensor == traced[0]).all(1).nonzero().flatten().tolist():
                if torch.equal(tensor[row : row + len(traced)], traced):
                    into.setdefault(key, torch.zeros_like(tensor))[row : row + len(traced)] = theirs
                    return


def _complete(recovered: Recovered, probe: Dlf) -> None:
    tensors = recovered.tensors
    if "encoder.spread.square" in tensors:
        tensors["encoder.spread.square"] = (
            tensors["encoder.spread.square"] + tensors["encoder.spread.mean"].square()
        )
    fresh = Dlf(probe.config).state_dict()
    for name, tensor in fresh.items():
        if name in tensors:
            if tensors[name].shape != tensor.shape:
                msg = f"the model's graphs are of another form of this preset: {name}"
                raise BundleError(msg)
            continue
        stem = tensors.get(STEM + name.removeprefix(TOKENIZER)) if name.startswith(TOKENIZER) else None
        tensors[name] = tensor if stem is None else stem.clone()
        recovered.guessed.append(name)
    unknown = tensors.keys() - fresh.keys()
    lost = [n for n in recovered.guessed if not n.startswith((TOKENIZER, "vqgan.quant_conv."))]
    if unknown or lost:
        names = ", ".join(sorted(unknown | set(lost))[:3])
        msg = f"the model's graphs lack tensors of this preset or hold others: {names}"
        raise BundleError(msg)
