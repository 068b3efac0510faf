"""Traced graphs of pixels rewritten into forms that ONNX Runtime computes faster on a CPU.

What a graph computes stays but for the order of float sums, and its weights stay bit for bit: where a form
needs them laid out otherwise, nodes on constants do it, which the runtime folds when it loads.  A graph that
was rewritten already, or has none of the patterns, comes out as it went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"  # operations of the runtime beyond the standard; OpenVINO has this one, too
# what a hidden key adds to a product; not -inf, for all keys of a block that the runtime takes may be hidden
HIDDEN = -1e4
NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def rewrite(model: ModelProto) -> None:
    """Rewrite a graph of pixels in place; see above."""
    graph = _Graph(model)
    for step in (_unshuffle, _attend, _paint, _shuffle):
        step(graph)
    graph.finish()


class _Graph:
    """The nodes while they are rewritten, and who makes and uses what."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._index()

    def _index(self) -> None:
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.users: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def all(self, kind: str) -> list[NodeProto]:
        """The nodes of a type, in their order."""
        return [node for node in self.nodes if node.op_type == kind]

    def up(self, name: str, *kinds: str) -> NodeProto | None:
        """From the maker of `name` up along first inputs through nodes of these types; the last, or None."""
        node = None
        for kind in kinds:
            node = self.maker.get(name)
            if node is None or node.op_type != kind:
                return None
            name = node.input[0]
        return node

    def down(self, name: str, *kinds: str) -> NodeProto | None:
        """From `name` down through nodes of these types, each the only user of what it takes; or None."""
        node = None
        for kind in kinds:
            users = self.users.get(name, [])
            if len(users) != 1 or users[0].op_type != kind:
                return None
            node = users[0]
            name = node.output[0]
        return node

    def constant(self, name: str) -> list[int]:
        """The numbers of a Constant node, in a row; none for what is no such node."""
        node = self.maker.get(name)
        if node is None or node.op_type != "Constant":
            return []
        return [int(number) for number in numpy_helper.to_array(node.attribute[0].t).reshape(-1)]

    def size(self, name: str) -> int | None:
        """First dimension of a weight, through what it may be stored behind; None for what is no weight."""
        while name not in self.initializers:
            node = self.maker.get(name)
            if node is None or node.op_type not in ("Cast", "Mul", "Identity"):
                return None
            name = node.input[0]
        return self.initializers[name].dims[0]

    def replace(self, old: NodeProto, new: Sequence[NodeProto]) -> None:
        """Put nodes in the place of one, whose output the last of them makes."""
        at = next(i for i, node in enumerate(self.nodes) if node is old)
        self.nodes[at : at + 1] = new
        self._index()

    def finish(self) -> None:
        """Drop what nothing uses any more, and write the rest back."""
        wanted = {output.name for output in self.model.graph.output}
        kept: list[NodeProto] = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                copy = NodeProto()
                copy.CopyFrom(node)
                kept.append(copy)
                wanted.update(node.input)
        del self.model.graph.node[:]
        self.model.graph.node.extend(reversed(kept))
        known = {opset.domain for opset in self.model.opset_import}
        if MICROSOFT not in known and any(node.domain == MICROSOFT for node in kept):
            self.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


class _Chain:
    """New nodes in the place of an old one; what they make is named after it."""

    def __init__(self, old: NodeProto) -> None:
        self.old, self.nodes = old, list[NodeProto]()

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node; returns the name of what it makes."""
        name = f"{self.old.output[0]}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def last(self, kind: str, *inputs: str, **attributes: Any) -> list[NodeProto]:
        """The last node, which makes what the old one made; returns all."""
        self.nodes.append(helper.make_node(kind, list(inputs), list(self.old.output), **attributes))
        return self.nodes

    def whole(self, *numbers: int) -> str:
        """A vector of int64."""
        return self._constant(np.array(numbers, np.int64))

    def real(self, number: float) -> str:
        """A float32 scalar."""
        return self._constant(np.array(number, np.float32))

    def _constant(self, value: NDArray[Any]) -> str:
        return self.add("Constant", value=numpy_helper.from_array(value))


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _turns(node: NodeProto | None, *order: int) -> bool:
    """Whether this is a Transpose into that order."""
    return node is not None and node.op_type == "Transpose" and _attributes(node).get("perm") == list(order)


def _unshuffle(graph: _Graph) -> None:
    """PixelUnshuffle and a convolution of stride 1 are one of a larger kernel and stride on the pixels."""
    above = ("Squeeze", "Reshape", "Transpose", "Reshape", "Reshape", "Unsqueeze")
    for conv in graph.all("Conv"):
        first = graph.up(conv.input[0], *above)
        turn = graph.up(conv.input[0], *above[:3])
        if first is None or turn is None or not _turns(turn, 0, 1, 3, 5, 2, 4):
            continue
        side = graph.constant(graph.maker[turn.input[0]].input[1])[-1]
        form = _attributes(conv)
        kernel = [side * size for size in form["kernel_shape"]]
        new = _Chain(conv)
        weight = new.add("Reshape", conv.input[1], new.whole(0, -1, side, side, *form["kernel_shape"]))
        weight = new.add("Transpose", weight, perm=[0, 1, 4, 2, 5, 3])
        weight = new.add("Reshape", weight, new.whole(0, 0, *kernel))
        form |= {
            "kernel_shape": kernel,
            "strides": [side, side],
            "pads": [side * pad for pad in form["pads"]],
        }
        graph.replace(conv, new.last("Conv", first.input[0], weight, conv.input[2], **form))


def _attend(graph: _Graph) -> None:
    """Attention under a key mask is one operation of the runtime, which never writes the products down.

    It does so without a mask only, so the mask becomes one more number of each key, and 1 of each query.
    """
    for softmax in graph.all("Softmax"):
        biased = graph.up(softmax.input[0], "Add")
        mix = graph.down(softmax.output[0], "MatMul")
        last = graph.down(softmax.output[0], "MatMul", "Transpose", "Reshape")
        if biased is None or mix is None or last is None or not _is_key_mask(graph, biased.input[1]):
            continue
        value = graph.up(mix.input[1], "Transpose", "Reshape")
        packed = graph.up(mix.input[1], "Transpose", "Reshape", "Slice", "Add")
        width = None if packed is None else graph.size(packed.input[0])
        shape = None if value is None else graph.up(value.input[1], "Concat")
        if packed is None or width is None or shape is None:
            continue
        (heads,) = graph.constant(shape.input[2])
        head = width // (3 * heads)
        new = _Chain(last)
        each = new.add("Reshape", packed.output[0], new.whole(0, 0, 3 * heads, head))
        query, key, value_name = (f"{last.output[0]}/{part}" for part in ("query", "key", "value"))
        sizes = new.whole(heads, heads, heads)
        new.nodes.append(helper.make_node("Split", [each, sizes], [query, key, value_name], axis=2))
        asks = new.add("Pad", query, new.whole(0, 0, 0, 0, 0, 0, 0, 1), new.real(1))
        hidden = new.add("Max", new.add("Transpose", biased.input[1], perm=NCHW), new.real(HIDDEN))
        tells = new.add("Concat", key, new.add("Tile", hidden, new.whole(1, 1, heads, 1)), axis=3)
        flat = [new.add("Reshape", part, new.whole(0, 0, -1)) for part in (asks, tells, value_name)]
        form = {"domain": MICROSOFT, "num_heads": heads, "scale": head**-0.5}
        graph.replace(last, new.last("MultiHeadAttention", *flat, **form))


def _is_key_mask(graph: _Graph, name: str) -> bool:
    """Whether this is (windows, 1, 1, n), as `dlf.nn.windows.key_bias` makes it, or two of them in a row."""
    while (node := graph.maker.get(name)) is not None and node.op_type in ("Cast", "Concat"):
        name = node.input[0]
    first = graph.up(name, "Unsqueeze", "Unsqueeze")
    return (
        first is not None
        and graph.constant(first.input[1]) == [1]
        and graph.constant(graph.maker[name].input[1]) == [2]
    )


def _paint(graph: _Graph) -> None:
    """The last convolution gives levels, in the order of pixels: what is left is to cut and lay them out."""
    above = ("Reshape", "Cast", "Floor", "Add", "Mul", "Add", "Clip", "Gather", "Conv")
    for turn in graph.all("Transpose"):
        conv, last = graph.up(turn.input[0], *above), graph.down(turn.output[0], "Reshape")
        if conv is None or last is None or not _turns(turn, 3, 1, 4, 2, 0):
            continue
        side = graph.constant(graph.maker[graph.maker[turn.input[0]].input[1]].input[1])[0]
        new = _Chain(last)
        weight, bias = _reordered(new, conv, (3, side, side), (1, 2, 0))
        half = new.real(127.5)  # levels of grey in 1
        weight, bias = new.add("Mul", weight, half), new.add("Mul", bias, half)
        bias = new.add("Add", bias, new.real(128))
        x = new.add("Conv", conv.input[0], weight, bias, **_attributes(conv))
        x = new.add("Transpose", new.add("Clip", x, new.real(0.5), new.real(255.5)), perm=NHWC)
        x = _laid_out(new, new.add("Cast", x, to=TensorProto.UINT8), side, 3)
        graph.replace(last, new.last("Squeeze", x, new.whole(0)))


def _shuffle(graph: _Graph) -> None:
    """PixelShuffle moves rows of numbers instead of single ones, once the channels are last."""
    for shuffle in graph.all("DepthToSpace"):
        conv = graph.up(shuffle.input[0], "Conv")
        total = None if conv is None else graph.size(conv.input[2])
        if conv is None or total is None or len(graph.users[conv.output[0]]) > 1:
            continue
        form = _attributes(shuffle)
        side = form["blocksize"]
        channels = total // side**2
        if form.get("mode") != b"CRD":
            continue
        new = _Chain(shuffle)
        weight, bias = _reordered(new, conv, (channels, side, side), (1, 2, 0))
        x = new.add("Conv", conv.input[0], weight, bias, **_attributes(conv))
        x = _laid_out(new, new.add("Transpose", x, perm=NHWC), side, channels)
        graph.replace(shuffle, new.last("Transpose", x, perm=NCHW))


def _reordered(
    new: _Chain, conv: NodeProto, split: tuple[int, ...], order: tuple[int, ...]
) -> tuple[str, str]:
    """Weight and bias of a convolution whose output channels, split like that, come in another order."""
    kernel = _attributes(conv)["kernel_shape"]
    weight = new.add("Reshape", conv.input[1], new.whole(*split, -1, *kernel))
    weight = new.add("Transpose", weight, perm=[*order, *range(len(order), len(order) + 1 + len(kernel))])
    weight = new.add("Reshape", weight, new.whole(int(np.prod(split)), -1, *kernel))
    bias = new.add("Transpose", new.add("Reshape", conv.input[2], new.whole(*split)), perm=order)
    return weight, new.add("Reshape", bias, new.whole(-1))


def _laid_out(new: _Chain, x: str, side: int, channels: int) -> str:
    """Places of side x side x channels numbers, (1, h, w, ...), as a map (1, side h, side w, channels).

    By shapes that hold for every size: to ask for it would bring the map back from the convolution's layout.
    """
    row = side * channels
    x = new.add("Reshape", x, new.whole(0, 0, 0, side, row))
    x = new.add("Transpose", x, perm=[0, 1, 3, 2, 4])
    x = new.add("Reshape", x, new.whole(0, -1, 1, 0, row))
    return new.add("Reshape", x, new.whole(0, 0, -1, channels))
