"""A graph of ONNX whose operations can be exchanged for others, while its weights stay byte for byte.

It reads what it has to know of the protocol buffer and passes on the rest.  Field numbers are those of the
`onnx.proto` that the ONNX project publishes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dlf.reference.wire import Field, fields, malformed

FLOAT, INT64 = 1, 7
"""Numbers of the types of tensors."""

# message -> what its fields mean, where something is done with them
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_KIND, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_REAL, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TYPE = 1, 2, 5, 6, 20
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2, 1, 1, 2
# values of an attribute's type
_IS_REAL, _IS_TENSOR, _IS_GRAPH = 1, 4, 5
_VARINT, _BYTES, _FOUR_BYTES = 0, 2, 5


@dataclass(frozen=True)
class Operation:
    """One node.

    kind: name of the operator.  inputs, outputs: names of values, "" for one that is left out.
    attributes: protocol buffers of them.  domain: of the operator, "" for ONNX's own.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[bytes, ...] = ()
    domain: str = ""

    def number(self) -> int | float | None:
        """Return the one number that a Constant holds; None for any other node or tensor."""
        if self.kind != "Constant" or len(self.attributes) != 1:
            return None
        for part in fields(self.attributes[0]):
            if part.number == _ATTRIBUTE_TENSOR:
                return _one_number(part.message())
        return None

    def message(self) -> bytes:
        """Return the protocol buffer."""
        parts = [_text(_NODE_INPUT, name) for name in self.inputs]
        parts += [_text(_NODE_OUTPUT, name) for name in self.outputs]
        parts.append(_text(_NODE_KIND, self.kind))
        parts += [_bytes(_NODE_ATTRIBUTE, attribute) for attribute in self.attributes]
        return b"".join(parts) + (_text(_NODE_DOMAIN, self.domain) if self.domain else b"")


def constant(name: str, number: float) -> Operation:
    """Return the node of a float32 scalar, or where the number is an `int` of a row of one int64."""
    is_whole = isinstance(number, int)
    raw = struct.pack("<q", number) if is_whole else struct.pack("<f", number)
    tensor = _number(_TENSOR_DIMS, 1) if is_whole else b""
    tensor += _number(_TENSOR_TYPE, INT64 if is_whole else FLOAT) + _bytes(_TENSOR_RAW, raw)
    value = _attribute("value", _IS_TENSOR, _bytes(_ATTRIBUTE_TENSOR, tensor))
    return Operation("Constant", (), (name,), (value,))


def real(name: str, number: float) -> bytes:
    """Return an attribute that is a float32."""
    packed = _key(_ATTRIBUTE_REAL, _FOUR_BYTES) + struct.pack("<f", number)
    return _attribute(name, _IS_REAL, packed)


def branch(name: str, operations: Iterable[Operation], output: str) -> bytes:
    """Return an attribute that is a graph without inputs, which gives one tensor of float32."""
    element = _number(_TENSOR_ELEMENT, FLOAT)
    value = _text(_VALUE_NAME, output) + _bytes(_VALUE_TYPE, _bytes(_TYPE_TENSOR, element))
    nodes = b"".join(_bytes(_GRAPH_NODE, operation.message()) for operation in operations)
    graph = nodes + _text(_GRAPH_NAME, name) + _bytes(_GRAPH_OUTPUT, value)
    return _attribute(name, _IS_GRAPH, _bytes(_ATTRIBUTE_GRAPH, graph))


class GraphFile:
    """The one graph of a file.

    operations: its nodes, in an order in which each follows those whose outputs it takes; may be exchanged.
    scalars: names of inputs that are a single number each.  outputs: names.
    weights: the sizes of those that it holds, by name.
    """

    def __init__(self, data: bytes) -> None:
        """Read the bytes of a file; raises BundleError where they are no protocol buffer of a graph."""
        self._model = list(fields(data))
        graphs = [part.message() for part in self._model if part.number == _MODEL_GRAPH]
        if len(graphs) != 1:
            raise malformed()
        parts = list(fields(graphs[0]))
        self._rest = [part for part in parts if part.number != _GRAPH_NODE]
        self.operations = [_operation(part.message()) for part in parts if part.number == _GRAPH_NODE]
        inputs = [part.message() for part in self._rest if part.number == _GRAPH_INPUT]
        self.scalars = tuple(_name(value) for value in inputs if _is_scalar(value))
        self.outputs = tuple(_name(part.message()) for part in self._rest if part.number == _GRAPH_OUTPUT)
        self.weights = dict(
            _sizes(part.message()) for part in self._rest if part.number == _GRAPH_INITIALIZER
        )

    def to_bytes(self) -> bytes:
        """Return the file with the operations as they are now."""
        nodes = b"".join(_bytes(_GRAPH_NODE, operation.message()) for operation in self.operations)
        graph = nodes + b"".join(_field(part) for part in self._rest)
        return b"".join(
            _bytes(_MODEL_GRAPH, graph) if part.number == _MODEL_GRAPH else _field(part)
            for part in self._model
        )


def users(operations: Sequence[Operation]) -> dict[str, list[Operation]]:
    """Return by name of a value the operations that take it."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        for name in dict.fromkeys(operation.inputs):
            found.setdefault(name, []).append(operation)
    return found


def needed(operations: Sequence[Operation], outputs: Iterable[str]) -> list[Operation]:
    """Return those operations that the outputs depend on, in their order."""
    wanted, kept = set(outputs), []
    for operation in reversed(operations):
        if not wanted.isdisjoint(operation.outputs):
            kept.append(operation)
            wanted.update(operation.inputs)
    return kept[::-1]


def _operation(message: bytes) -> Operation:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_KIND: [], _NODE_DOMAIN: []}
    attributes = []
    for part in fields(message):
        if part.number == _NODE_ATTRIBUTE:
            attributes.append(part.message())
        elif part.number in texts:
            texts[part.number].append(part.text())
    kind, domain = "".join(texts[_NODE_KIND]), "".join(texts[_NODE_DOMAIN])
    inputs, outputs = tuple(texts[_NODE_INPUT]), tuple(texts[_NODE_OUTPUT])
    return Operation(kind, inputs, outputs, tuple(attributes), domain)


def _name(value: bytes) -> str:
    """Return the name of an input or output."""
    return "".join(part.text() for part in fields(value) if part.number == _VALUE_NAME)


def _is_scalar(value: bytes) -> bool:
    """Whether an input is declared as a tensor that has a shape of no axes."""
    tensor = _inner(_inner(value, _VALUE_TYPE), _TYPE_TENSOR)
    shapes = [part.message() for part in fields(tensor) if part.number == _TENSOR_SHAPE]
    return shapes == [b""]


def _inner(message: bytes, number: int) -> bytes:
    """Return one message within another, empty where there is none."""
    return b"".join(part.message() for part in fields(message) if part.number == number)


def _sizes(message: bytes) -> tuple[str, tuple[int, ...]]:
    """Return the name and the sizes of a tensor."""
    name, sizes = "", list[int]()
    for part in fields(message):
        if part.number == _TENSOR_DIMS:
            sizes.extend(part.counts())
        elif part.number == _TENSOR_NAME:
            name = part.text()
    return name, tuple(sizes)


def _one_number(tensor: bytes) -> int | float | None:
    kind, raw = 0, b""
    for part in fields(tensor):
        if part.number == _TENSOR_TYPE:
            kind = part.count()
        elif part.number == _TENSOR_RAW:
            raw = part.message()
    form = {FLOAT: "<f", INT64: "<q"}.get(kind, "")
    if not form or len(raw) != struct.calcsize(form):
        return None
    number: int | float = struct.unpack(form, raw)[0]
    return number


def _attribute(name: str, kind: int, value: bytes) -> bytes:
    return _text(_ATTRIBUTE_NAME, name) + value + _number(_ATTRIBUTE_TYPE, kind)


def _field(part: Field) -> bytes:
    """Return a field as it is written; of messages that hold no numbers of fixed size."""
    return (
        _number(part.number, part.value) if isinstance(part.value, int) else _bytes(part.number, part.value)
    )


def _number(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(value)) + value


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    if value <= _SEPTET:  # as nearly all are
        return _SMALL[value]
    septets = []
    while value > _SEPTET:
        septets.append(value & _SEPTET | _SEPTET + 1)
        value >>= 7
    return bytes((*septets, value))


_SEPTET = 0x7F
_SMALL = [bytes((value,)) for value in range(_SEPTET + 1)]
