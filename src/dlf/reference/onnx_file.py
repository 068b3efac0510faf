"""Reading an ONNX file, as far as the networks that decide symbols use the format; all else is refused.

Field numbers are those of the `onnx.proto` that the ONNX project publishes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from dlf.errors import BundleError
from dlf.reference.fixed import Fixed, from_bits, room
from dlf.reference.wire import Field, fields, malformed

Constant = Fixed | NDArray[np.int64]
"""What a graph holds: numbers of float32 or float16, or int64."""

OPSETS = range(13, 26)
"""Versions of ONNX's operators in which those of `dlf.reference.operators` mean the same."""

FLOAT, INT64, FLOAT16 = 1, 7, 10
"""Numbers of the types of tensors."""

MAX_NODES = 20_000

# message -> what its fields mean; those that change nothing are left out
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_MODEL_REMARKS = {1, 2, 3, 4, 5, 6, 14}
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_GRAPH_REMARKS = {2, 10, 13, 16}
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_NODE_REMARKS = {3, 6, 9}
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TEXT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 1, 3, 4, 5, 8
_ATTRIBUTE_REMARKS = {13, 20}
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_INT64S, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 7, 8, 9
_TENSOR_REMARKS = {12, 16}

Attribute = int | str | tuple[int, ...] | Fixed | NDArray[np.int64]


@dataclass(frozen=True)
class Node:
    """One operation.

    kind: name of the operator.  inputs: names of values, "" for one that is left out.  outputs: likewise.
    attributes: by name.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def number(self, name: str, default: int | None = None) -> int:
        """Return an attribute that is a whole number; raises BundleError."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            self.refuse(f"the attribute {name}")
        return value

    def numbers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return an attribute that is a list of whole numbers; raises BundleError."""
        value = self.attributes.get(name, default)
        if not isinstance(value, tuple):
            self.refuse(f"the attribute {name}")
        return value

    def refuse(self, what: str = "the operator itself") -> NoReturn:
        """Refuse a node whose arithmetic is not known to be exact, BundleError; what: the reason."""
        msg = f"a network that decides symbols uses {self.kind} in a way not known to be exact: {what}"
        raise BundleError(msg)


@dataclass(frozen=True)
class Graph:
    """What a file computes.

    nodes: in an order in which each follows those whose outputs it takes.  constants: by name.
    inputs, outputs: names, in the order of the file; inputs are no constants.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, Constant]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_graph(data: bytes) -> Graph:
    """Read the bytes of an ONNX file; raises BundleError for what is not as this module says."""
    graphs: list[bytes] = []
    versions: list[int] = []
    for part in _known(data, {_MODEL_GRAPH, _MODEL_OPSET}, _MODEL_REMARKS):
        if part.number == _MODEL_GRAPH:
            graphs.append(part.message())
        else:
            versions.append(_opset(part.message()))
    if len(graphs) != 1 or not versions or any(version not in OPSETS for version in versions):
        msg = f"a graph of the model is not of ONNX's operators {OPSETS.start} to {OPSETS.stop - 1}"
        raise BundleError(msg)
    return _graph(graphs[0])


def _opset(message: bytes) -> int:
    domain, version = "", 0
    for part in _known(message, {1, 2}, set()):
        if part.number == 1:
            domain = part.text()
        else:
            version = part.count()
    return version if domain in ("", "ai.onnx") else 0


def _graph(message: bytes) -> Graph:
    nodes: list[Node] = []
    constants: dict[str, Constant] = {}
    inputs: list[str] = []
    outputs: list[str] = []
    wanted = {_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT}
    for part in _known(message, wanted, _GRAPH_REMARKS):
        if part.number == _GRAPH_NODE:
            nodes.append(_node(part.message()))
        elif part.number == _GRAPH_INITIALIZER:
            name, constants_value = _tensor(part.message())
            constants[name] = constants_value
        else:
            (outputs if part.number == _GRAPH_OUTPUT else inputs).append(_value_name(part.message()))
    if len(nodes) > MAX_NODES:
        msg = f"a graph of the model has more than {MAX_NODES:,} operations"
        raise BundleError(msg)
    inputs = [name for name in inputs if name not in constants]
    _check_order(nodes, {*constants, *inputs}, outputs)
    return Graph(tuple(nodes), constants, tuple(inputs), tuple(outputs))


def _check_order(nodes: list[Node], known: set[str], outputs: list[str]) -> None:
    """Refuse what is used before it is made, or made twice."""
    for node in nodes:
        if not known.issuperset(name for name in node.inputs if name):
            raise malformed()
        for name in node.outputs:
            if not name or name in known:
                raise malformed()
            known.add(name)
    if not outputs or not known.issuperset(outputs):
        raise malformed()


def _value_name(message: bytes) -> str:
    """Return the name of an input or output; its type and shape are found out by running."""
    names = [part.text() for part in fields(message) if part.number == 1]
    if len(names) != 1:
        raise malformed()
    return names[0]


def _node(message: bytes) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: dict[str, Attribute] = {}
    kind = domain = ""
    wanted = {_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND, _NODE_ATTRIBUTE, _NODE_DOMAIN}
    for part in _known(message, wanted, _NODE_REMARKS):
        if part.number == _NODE_ATTRIBUTE:
            name, value = _attribute(part.message())
            attributes[name] = value
        elif part.number == _NODE_KIND:
            kind = part.text()
        elif part.number == _NODE_DOMAIN:
            domain = part.text()
        else:
            (inputs if part.number == _NODE_INPUT else outputs).append(part.text())
    node = Node(kind, tuple(inputs), tuple(outputs), attributes)
    if domain not in ("", "ai.onnx"):
        node.refuse(f"the domain {domain}")
    return node


def _attribute(message: bytes) -> tuple[str, Attribute]:
    name = ""
    ints: list[int] = []
    value: Attribute | None = None
    wanted = {_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TEXT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS}
    for part in _known(message, wanted, _ATTRIBUTE_REMARKS):
        if part.number == _ATTRIBUTE_NAME:
            name = part.text()
        elif part.number == _ATTRIBUTE_INT:
            value = part.count()
        elif part.number == _ATTRIBUTE_TEXT:
            value = part.text()
        elif part.number == _ATTRIBUTE_TENSOR:
            value = _tensor(part.message())[1]
        else:
            ints.extend(part.counts())
    return name, tuple(ints) if value is None else value


def _tensor(message: bytes) -> tuple[str, Constant]:
    name, kind = "", 0
    dims: list[int] = []
    raw: list[bytes] = []
    listed: list[int] = []
    wanted = {_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_INT64S, _TENSOR_NAME, _TENSOR_RAW}
    for part in _known(message, wanted, _TENSOR_REMARKS):
        if part.number == _TENSOR_NAME:
            name = part.text()
        elif part.number == _TENSOR_DIMS:
            dims.extend(part.counts())
        elif part.number == _TENSOR_TYPE:
            kind = part.count()
        elif part.number == _TENSOR_INT64S:
            listed.extend(part.counts())
        else:
            raw.append(part.message())
    if kind not in _READERS or any(size < 0 for size in dims):
        msg = f"a graph of the model holds a tensor of a type that is not known to be exact ({kind})"
        raise BundleError(msg)
    room(*dims)
    stored, reader = _READERS[kind]
    data = np.array(listed, "<i8").tobytes() if kind == INT64 and listed else b"".join(raw)
    if len(data) != math.prod(dims) * np.dtype(stored).itemsize:
        raise malformed()
    return name, reader(np.frombuffer(data, stored).astype(np.int64).reshape(dims))


_READERS: dict[int, tuple[str, Callable[[NDArray[np.int64]], Constant]]] = {
    FLOAT: ("<u4", lambda bits: from_bits(bits, 8, 23)),
    FLOAT16: ("<u2", lambda bits: from_bits(bits, 5, 10)),
    INT64: ("<i8", lambda numbers: numbers),
}


def _known(message: bytes, wanted: Collection[int], remarks: Collection[int]) -> list[Field]:
    """Return the fields that say something; raises BundleError where one is in neither collection."""
    parts = list(fields(message))
    if any(part.number not in wanted and part.number not in remarks for part in parts):
        msg = "a graph of the model uses a part of the ONNX format that is not known to be exact"
        raise BundleError(msg)
    return [part for part in parts if part.number in wanted]
