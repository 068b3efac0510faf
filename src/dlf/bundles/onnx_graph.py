"""torch modules to ONNX bytes, with weights stored in fewer bits where that is allowed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from dlf.bundles.eight_bits import Packed

OPSET = 18
SMALL = 1024  # tensors of fewer elements are not worth a cast
# names of what is stored in the place of a tensor
HALF, EIGHT, SCALE = ".half", ".int8", ".int8_scale"


@dataclass(frozen=True)
class Signature:
    """Names of a graph's inputs and outputs, and the input axes that vary: {input: {axis: name}}."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]]


def to_onnx(module: nn.Module, example: Sequence[Tensor], signature: Signature) -> ModelProto:
    """Trace a module into an ONNX graph with varying sizes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # the tracer warns of every shape it follows; the parity check is what proves the graph
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(example),
            buffer,  # type: ignore[arg-type]  # the tracer writes to open files too
            input_names=list(signature.inputs),
            output_names=list(signature.outputs),
            dynamic_axes=signature.dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return model


def store_half(model: ModelProto, *, lossless: bool) -> None:
    """Keep float32 weights as float16 with a cast behind, which the runtime folds when it loads.

    Tensors with numbers beyond float16 stay.  lossless: only those that come back exactly (whole numbers
    up to 2048) are stored so.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name.endswith(SCALE):
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < SMALL or not np.isfinite(half).all():
            continue
        if lossless and not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}{HALF}"))
        casts.append(helper.make_node("Cast", [f"{name}{HALF}"], [name], to=TensorProto.FLOAT))
    _put_first(model, casts)


def store_eight(model: ModelProto, packed: Iterable[Packed]) -> None:
    """Keep the weights that equal a packed one as int8, with Cast and Mul by the channels' scales behind.

    The runtime folds both when it loads.  Others stay.
    """
    by_value = {_key(form.restore()): form for one in packed for form in one.forms()}
    nodes, scales = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        form = by_value.get(_key(numpy_helper.to_array(tensor)))
        if form is None:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(form.codes, f"{name}{EIGHT}"))
        scales.append(numpy_helper.from_array(form.scale, f"{name}{SCALE}"))
        wide = f"{name}.int8_wide"
        nodes.append(helper.make_node("Cast", [f"{name}{EIGHT}"], [wide], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [wide, f"{name}{SCALE}"], [name]))
    model.graph.initializer.extend(scales)
    _put_first(model, nodes)


def _key(array: NDArray[np.float32]) -> tuple[tuple[int, ...], bytes]:
    return array.shape, array.tobytes()


def _put_first(model: ModelProto, new: Sequence[NodeProto]) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*new, *nodes])
