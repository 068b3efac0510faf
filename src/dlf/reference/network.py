"""Running a graph in integers."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence

import numpy as np

from dlf.errors import BundleError
from dlf.records import Int32
from dlf.reference.fixed import Fixed, room
from dlf.reference.onnx_file import Graph, Node
from dlf.reference.operators import OPERATORS, Value, array


class Network:
    """A graph whose constants are ready, to be run on inputs of any size.

    Raises:
        BundleError: an operation is not one of those that are known to be exact.
    """

    def __init__(self, graph: Graph) -> None:
        known: dict[str, Value] = dict(graph.constants)
        nodes = []
        for node in graph.nodes:
            if node.inputs and any(name not in known for name in node.inputs if name):
                nodes.append(node)
                continue
            known[node.outputs[0]] = compute(node, known)
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._nodes, self._known = nodes, known
        # after which operation a value is needed no more
        self._last = {name: at for at, node in enumerate(nodes) for name in node.inputs}

    def run(self, names: Sequence[str], inputs: Mapping[str, Value]) -> list[Int32]:
        """Return outputs, each int32 of the shape that it has in the graph.

        names: of the outputs.  inputs: by name; those that the graph does not have are passed over.

        Raises:
            BundleError: a number leaves the range in which the graph is exact, an input or output is missing,
                the shapes do not fit, or an output is not whole.
        """
        if missing := {*self.inputs} - {*inputs} or {*names} - {*self.outputs}:
            msg = f"the model's networks lack an input or output: {', '.join(sorted(missing))}"
            raise BundleError(msg)
        values: dict[str, Value] = {name: inputs[name] for name in self.inputs}
        for at, node in enumerate(self._nodes):
            values[node.outputs[0]] = compute(node, ChainMap(values, self._known))
            for name in node.inputs:
                if self._last.get(name) == at and name not in names:
                    values.pop(name, None)
            room(sum(array(value).size for value in values.values()))
        return [_whole(values.get(name, self._known.get(name))) for name in names]


def compute(node: Node, values: Mapping[str, Value]) -> Value:
    """Return the output of one operation; raises BundleError."""
    if node.kind not in OPERATORS or len(node.outputs) != 1:
        node.refuse()
    if "" in node.inputs[: -1 if node.kind == "Clip" else None]:
        node.refuse("an input that is left out")
    try:
        return OPERATORS[node.kind](node, [values[name] for name in node.inputs if name])
    except (ValueError, IndexError, TypeError) as error:  # numpy's ways to say that shapes do not fit
        node.refuse(str(error))


def _whole(value: Value | None) -> Int32:
    if not isinstance(value, Fixed) or value.shift:
        msg = "the model's networks gave a number that is not an integer"
        raise BundleError(msg)
    return value.numbers.astype(np.int32, copy=False)
