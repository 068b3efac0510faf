"""A graph of ONNX in torch, so that gradients run through what a decoder computes.

The operators are those of exported networks of pixels.  Rounding passes gradients as if it were not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor

from dlf.errors import BundleError

Attributes = Mapping[str, Any]
Operator = Callable[[list[Any], Attributes], Any]
"""Called with the inputs (None for one that is left out) and the attributes of a node."""

_TYPES = {
    1: torch.float32,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float32,
    11: torch.float64,
}
_UINT8 = 2  # pixels; kept as floats, so that they have gradients


@dataclass(frozen=True)
class Node:
    """One operation; inputs, outputs: names, "" for one that is left out."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes


class TorchGraph:
    """What an ONNX file computes.

    nodes: in an order in which each follows those whose outputs it takes.

    Raises:
        BundleError: the file is none, or has an operator that is not known here.
    """

    def __init__(self, data: bytes) -> None:
        try:
            graph = onnx.load_from_string(data).graph
        except Exception as error:  # protobuf's exceptions have no base of their own
            msg = f"a graph of the model cannot be read ({error})"
            raise BundleError(msg) from error
        self._values: dict[str, Tensor] = {each.name: _tensor(each) for each in graph.initializer}
        self.nodes = [
            Node(node.op_type, tuple(node.input), tuple(node.output), _attributes(node))
            for node in graph.node
        ]
        unknown = {node.kind for node in self.nodes} - OPERATORS.keys()
        if unknown:
            msg = (
                f"a graph of the model has operators that have no gradient here: {', '.join(sorted(unknown))}"
            )
            raise BundleError(msg)
        self.inputs = tuple(each.name for each in graph.input)
        self._values |= self._known(self._values, self.nodes)

    def bind(self, outputs: Iterable[str], **feeds: Tensor) -> BoundGraph:
        """Compute whatever feeds decide alone; what is left computes the outputs from the other inputs."""
        wanted = tuple(outputs)
        values = self._values | feeds
        needed, nodes = set(wanted), []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                nodes.append(node)
                needed.update(node.inputs)
        nodes.reverse()
        with torch.no_grad():
            values |= self._known(values, nodes)
        return BoundGraph(wanted, [node for node in nodes if node.outputs[0] not in values], values)

    def _known(self, values: Mapping[str, Tensor], nodes: Iterable[Node]) -> dict[str, Tensor]:
        """Return what follows from values."""
        known = dict(values)
        for node in nodes:
            if all(name in known for name in node.inputs if name) and node.outputs[0] not in known:
                _apply(node, known)
        return known


@dataclass(frozen=True)
class BoundGraph:
    """What is left of a graph of which some inputs are known."""

    outputs: tuple[str, ...]
    nodes: list[Node]
    values: Mapping[str, Tensor]

    def __call__(self, **feeds: Tensor) -> list[Tensor]:
        """Compute the outputs from the inputs that are left."""
        values = dict(self.values) | feeds
        for node in self.nodes:
            _apply(node, values)
        return [values[name] for name in self.outputs]


def _apply(node: Node, values: dict[str, Tensor]) -> None:
    result = OPERATORS[node.kind]([values.get(name) for name in node.inputs], node.attributes)
    results = result if isinstance(result, tuple) else (result,)
    values.update(zip(node.outputs, results, strict=True))


def _tensor(proto: Any) -> Tensor:
    array = torch.from_numpy(numpy_helper.to_array(proto).copy())
    return array.float() if array.dtype == torch.float16 else array


def _attributes(node: Any) -> Attributes:
    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return {
        name: _tensor(value) if isinstance(value, onnx.TensorProto) else value
        for name, value in values.items()
    }


def _ints(tensor: Tensor) -> list[int]:
    values: list[int] = tensor.flatten().tolist()
    return values


def _cast(x: Tensor, to: int) -> Tensor:
    return _floor(x) if to == _UINT8 else x.to(_TYPES[to])


def _floor(x: Tensor) -> Tensor:
    return x + (x.floor() - x).detach()


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, attributes: Attributes) -> Tensor:
    pads = attributes["pads"]
    return F.conv2d(
        x, weight, bias, attributes["strides"], pads[:2], attributes["dilations"], attributes["group"]
    )


def _pad(x: Tensor, pads: Tensor, value: Tensor | None) -> Tensor:
    amounts = _ints(pads)
    half = len(amounts) // 2
    order = [each for axis in reversed(range(half)) for each in (amounts[axis], amounts[half + axis])]
    return F.pad(x, order, value=0.0 if value is None else value.item()) if any(order) else x


def _slice(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first = _ints(starts)
    for axis, start, end, step in zip(
        range(len(first)) if axes is None else _ints(axes),
        first,
        _ints(ends),
        [1] * len(first) if steps is None else _ints(steps),
        strict=True,
    ):
        places = range(*slice(start, end, step).indices(x.shape[axis]))
        if step == 1:
            x = x.narrow(axis, places.start if places else 0, len(places))
        else:
            x = x.index_select(axis, torch.tensor(places))
    return x


def _gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    axis %= x.dim()
    flat = torch.where(index < 0, index + x.shape[axis], index).flatten()
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, flat).reshape(shape)


def _reshape(x: Tensor, shape: Tensor, allow_zero: int = 0) -> Tensor:
    sizes = _ints(shape)
    if not allow_zero:
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    places = _ints(axes)
    for axis in sorted(axis % (x.dim() + len(places)) for axis in places):
        x = x.unsqueeze(axis)
    return x


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, scale: float) -> Tensor:
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    mixed = (scale * q @ k.transpose(2, 3)).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


def _norm(x: Tensor, axes: Tensor, attributes: Attributes) -> Tensor:
    return torch.linalg.vector_norm(x, dim=_ints(axes), keepdim=bool(attributes["keepdims"]))


OPERATORS: dict[str, Operator] = {
    "Add": lambda x, _: x[0] + x[1],
    "ArgMin": lambda x, a: x[0].argmin(a["axis"]),
    "Cast": lambda x, a: _cast(x[0], a["to"]),
    "Clip": lambda x, _: x[0].clamp(*x[1:]),
    "Concat": lambda x, a: torch.cat(x, a["axis"]),
    "Constant": lambda _, a: a["value"],
    "ConstantOfShape": lambda x, a: a["value"].expand(_ints(x[0])) if len(x[0]) else a["value"][0],
    "Conv": lambda x, a: _convolve(x[0], x[1], x[2] if len(x) > 2 else None, a),
    "Div": lambda x, _: _divide(*x),
    "Equal": lambda x, _: x[0] == x[1],
    "Erf": lambda x, _: torch.erf(x[0]),
    "Expand": lambda x, _: x[0].expand(torch.broadcast_shapes(x[0].shape, _ints(x[1]))),
    "Flatten": lambda x, a: x[0].reshape(math.prod(x[0].shape[: a["axis"]]), -1),
    "Floor": lambda x, _: _floor(x[0]),
    "Gather": lambda x, a: _gather(x[0], x[1], a.get("axis", 0)),
    "GreaterOrEqual": lambda x, _: x[0] >= x[1],
    "Identity": lambda x, _: x[0],
    "LayerNormalization": lambda x, a: F.layer_norm(x[0], x[0].shape[-1:], x[1], x[2], a["epsilon"]),
    "LeakyRelu": lambda x, a: F.leaky_relu(x[0], a["alpha"]),
    "Less": lambda x, _: x[0] < x[1],
    "MatMul": lambda x, _: x[0] @ x[1],
    "Max": lambda x, _: torch.maximum(*x),
    "Mod": lambda x, _: torch.remainder(*x),
    "Mul": lambda x, _: x[0] * x[1],
    "MultiHeadAttention": lambda x, a: _attend(x[0], x[1], x[2], a["num_heads"], a["scale"]),
    "Not": lambda x, _: ~x[0],
    "Pad": lambda x, _: _pad(x[0], x[1], x[2]),
    "ReduceL2": lambda x, a: _norm(x[0], x[1], a),
    "ReduceSum": lambda x, a: x[0].sum(_ints(x[1]), keepdim=bool(a["keepdims"])),
    "Reshape": lambda x, a: _reshape(x[0], x[1], a.get("allowzero", 0)),
    "Shape": lambda x, _: torch.tensor(x[0].shape),
    "Sigmoid": lambda x, _: x[0].sigmoid(),
    "Slice": lambda x, _: _slice(*x),
    "Softmax": lambda x, a: x[0].softmax(a["axis"]),
    "Split": lambda x, a: torch.split(x[0], _ints(x[1]), a["axis"]),
    "Sqrt": lambda x, _: x[0].sqrt(),
    "Squeeze": lambda x, _: x[0].squeeze(tuple(_ints(x[1]))),
    "Sub": lambda x, _: x[0] - x[1],
    "Tanh": lambda x, _: x[0].tanh(),
    "Tile": lambda x, _: x[0].repeat(_ints(x[1])),
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
    "Unsqueeze": lambda x, _: _unsqueeze(*x),
    "Where": lambda x, _: torch.where(*x),
}
"""By the names of ONNX, of its own set and of com.microsoft."""
