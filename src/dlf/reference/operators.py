"""ONNX's operators in integers: those that the networks which decide symbols use, and no others.

A value is `Fixed` where the graph has floats, an array of int64 where it has whole numbers (tokens, indices,
shapes), and one of bool where it has conditions.  docs/bitstream.md, section 3.6, lists the operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dlf.reference.fixed import Fixed, aligned, held, room
from dlf.reference.onnx_file import FLOAT, Node

Value = Fixed | NDArray[np.int64] | NDArray[np.bool_]
"""What goes from one operation to the next."""

Operator = Callable[[Node, Sequence[Value]], Value]
"""Computes the one output of a node from its inputs."""


def fixed(node: Node, value: Value) -> Fixed:
    """Return a value that must be one of floats; raises BundleError."""
    if not isinstance(value, Fixed):
        node.refuse("whole numbers in the place of floats")
    return value


def whole(node: Node, value: Value) -> NDArray[np.int64]:
    """Return a value that must be one of int64; raises BundleError."""
    if isinstance(value, Fixed) or value.dtype != np.int64:
        node.refuse("floats in the place of whole numbers")
    return value.astype(np.int64, copy=False)


def array(value: Value) -> NDArray[np.generic]:
    """Return the numbers of a value of any kind."""
    return value.numbers if isinstance(value, Fixed) else value


def like(value: Value, numbers: NDArray[np.generic]) -> Value:
    """Return numbers that were taken from a value as a value of its kind."""
    return Fixed(numbers.astype(np.int32, copy=False), value.shift) if isinstance(value, Fixed) else numbers  # type: ignore[return-value]


def _broadcast(*values: Value) -> None:
    room(*np.broadcast_shapes(*(array(value).shape for value in values)))


def add(node: Node, inputs: Sequence[Value]) -> Value:
    """Sum, place by place."""
    left, right = inputs
    _broadcast(left, right)
    if not isinstance(left, Fixed):
        return whole(node, left) + whole(node, right)
    other = fixed(node, right)
    shift, (a, b) = aligned(left, other)
    total = Fixed(a + b, shift)
    held(total.largest, shift)
    return total


def mul(node: Node, inputs: Sequence[Value]) -> Value:
    """Product, place by place."""
    left, right = inputs
    _broadcast(left, right)
    if not isinstance(left, Fixed):
        return whole(node, left) * whole(node, right)
    other = fixed(node, right)
    held(left.largest * other.largest, left.shift + other.shift)
    return Fixed(left.numbers * other.numbers, left.shift + other.shift)


def power_of_two(node: Node, value: Fixed) -> int:
    """Return n of a single number 2**n with n >= 0; raises BundleError."""
    number = int(value.numbers.reshape(-1)[0]) if value.numbers.size == 1 else 0
    if value.shift or number <= 0 or number & (number - 1):
        node.refuse("a divisor that is no power of two")
    return number.bit_length() - 1


def div(node: Node, inputs: Sequence[Value]) -> Value:
    """Quotient: of floats by a power of two, of whole numbers that are not negative rounded down."""
    left, right = inputs
    if isinstance(left, Fixed):
        shift = left.shift + power_of_two(node, fixed(node, right))
        held(left.largest, shift)
        return Fixed(left.numbers, shift)
    a, b = whole(node, left), whole(node, right)
    if a.min(initial=0) < 0 or b.min(initial=1) < 1:
        node.refuse("negative whole numbers")
    quotient: NDArray[np.int64] = a // b
    return quotient


def floor(node: Node, inputs: Sequence[Value]) -> Value:
    """Largest whole number that is not above."""
    value = fixed(node, inputs[0])
    return Fixed(value.numbers >> np.int32(value.shift))


def clip(node: Node, inputs: Sequence[Value]) -> Value:
    """Nearest number between two bounds, the second or third input; "" leaves one out."""
    value, *bounds = inputs
    if not isinstance(value, Fixed):
        low, high = (whole(node, bounds[i]) if i < len(bounds) else None for i in range(2))
        return np.clip(whole(node, value), low, high)
    shift, (numbers, *ends) = aligned(value, *(fixed(node, bound) for bound in bounds))
    if len(ends) != 2:
        node.refuse("no bounds")
    return Fixed(np.clip(numbers, ends[0], ends[1]), shift)


def at_least(node: Node, inputs: Sequence[Value]) -> Value:
    """Whether the first is not below the second, place by place."""
    left, right = inputs
    _broadcast(left, right)
    if not isinstance(left, Fixed):
        return np.greater_equal(whole(node, left), whole(node, right))
    _, (a, b) = aligned(left, fixed(node, right))
    return np.greater_equal(a, b)


def equal(node: Node, inputs: Sequence[Value]) -> Value:
    """Whether two whole numbers are the same, place by place."""
    _broadcast(*inputs)
    return np.equal(whole(node, inputs[0]), whole(node, inputs[1]))


def where(node: Node, inputs: Sequence[Value]) -> Value:
    """The second where the first is true, else the third."""
    condition = array(inputs[0])
    if condition.dtype != np.bool_:
        node.refuse("a condition that is none")
    _broadcast(*inputs)
    shift, (yes, no) = aligned(fixed(node, inputs[1]), fixed(node, inputs[2]))
    return Fixed(np.where(condition, yes, no), shift)


def cast(node: Node, inputs: Sequence[Value]) -> Value:
    """To float32: floats as they are, conditions as 0 and 1, whole numbers below 2**24."""
    if node.number("to") != FLOAT:
        node.refuse("another type than float32")
    value = inputs[0]
    if isinstance(value, Fixed):
        return value
    numbers = value.astype(np.int64)
    held(int(np.abs(numbers).max(initial=0)))
    return Fixed(numbers.astype(np.int32))


def conv(node: Node, inputs: Sequence[Value]) -> Value:
    """Sums of products over a square of odd size around each place; what lies outside counts as 0.

    Inputs: (1, c, h, w), weight (d, c / groups, k, k), bias (d,).  All are whole numbers, and for each of the
    d outputs the sum of the sizes of its weights, times the largest input, plus that of its bias is below
    2**24: so no sum is ever rounded, whatever the order.
    """
    value, weight, bias = (fixed(node, part) for part in inputs)
    groups = check_conv(node, value.shift, weight, bias)
    held(reach(weight, bias, value.largest))
    x, w = value.numbers, weight.numbers
    outputs, taken, size, _ = w.shape
    if x.ndim != 4 or x.shape[0] != 1 or x.shape[1] != taken * groups:
        node.refuse("inputs that do not fit its weights")
    rows, cols = x.shape[2:]
    room(max(outputs, x.shape[1]), rows + size, cols + size)
    edge = size // 2
    padded = np.pad(x[0], ((0, 0), (edge, edge), (edge, edge))).reshape(groups, taken, rows + 2 * edge, -1)
    w = w.reshape(groups, outputs // groups, taken, size, size)
    total = np.zeros((groups, outputs // groups, rows * cols), np.int32)
    for i, j in np.ndindex(size, size):
        seen = padded[:, :, i : i + rows, j : j + cols].reshape(groups, taken, -1)
        total += np.einsum("goi,gin->gon", w[..., i, j], seen)
    total = total.reshape(1, outputs, rows, cols) + bias.numbers[:, None, None]
    return Fixed(total)


def check_conv(node: Node, shift: int, weight: Fixed, bias: Fixed) -> int:
    """Refuse a convolution of another form than `conv` computes, BundleError; return its groups.

    shift: of its input.
    """
    groups, shape = node.number("group", 1), weight.numbers.shape
    if shift or weight.shift or bias.shift:
        node.refuse("numbers that are not whole")
    square = len(shape) == 4 and shape[2] == shape[3] and shape[2] % 2 == 1
    if not square or groups < 1 or shape[0] % groups or bias.numbers.shape != shape[:1]:
        node.refuse("the shape of its weights")
    edge = shape[2] // 2
    as_it_must = {
        "pads": (edge,) * 4,
        "strides": (1, 1),
        "dilations": (1, 1),
        "kernel_shape": tuple(shape[2:]),
        "group": groups,
    }
    for name, value in node.attributes.items():
        if as_it_must.get(name) != value:
            node.refuse(f"the attribute {name}")
    if node.numbers("pads", (0, 0, 0, 0)) != as_it_must["pads"]:
        node.refuse("the attribute pads")
    return groups


def reach(weight: Fixed, bias: Fixed, largest: int) -> int:
    """Return how large any partial sum of a convolution can be; largest: size of its inputs."""
    sums = np.abs(weight.numbers.astype(np.int64)).reshape(len(weight.numbers), -1).sum(1)
    biases = np.abs(bias.numbers.astype(np.int64))
    return max((int(s) * largest + int(b) for s, b in zip(sums, biases, strict=True)), default=0)


def concat(node: Node, inputs: Sequence[Value]) -> Value:
    """One behind the other along an axis."""
    axis = node.number("axis")
    room(sum(array(value).size for value in inputs))
    if not any(isinstance(value, Fixed) for value in inputs):
        return np.concatenate([whole(node, value) for value in inputs], axis)
    shift, numbers = aligned(*(fixed(node, value) for value in inputs))
    return Fixed(np.concatenate(numbers, axis), shift)


def gather(node: Node, inputs: Sequence[Value]) -> Value:
    """Rows of the first, or numbers of a list, at the indices that the second holds."""
    source, index = array(inputs[0]), whole(node, inputs[1])
    if node.number("axis", 0) != 0 or source.ndim == 0:
        node.refuse("an axis that is not the first")
    if index.size and (index.min() < 0 or index.max() >= len(source)):
        node.refuse("an index that is out of range")
    room(index.size, *source.shape[1:])
    return like(inputs[0], source[index])


def cut(node: Node, inputs: Sequence[Value]) -> Value:
    """A part along one axis: from a start to before an end, which may lie beyond (Slice)."""
    source = array(inputs[0])
    numbers = [whole(node, part) for part in inputs[1:]]
    if len(numbers) not in (3, 4) or any(part.shape != (1,) for part in numbers):
        node.refuse("more than one axis")
    start, end, axis, step = (int(part[0]) for part in (*numbers, np.ones(1, np.int64))[:4])
    if step != 1 or start < 0 or end < 0 or not 0 <= axis < source.ndim:
        node.refuse("negative numbers or steps")
    return like(inputs[0], source[(slice(None),) * axis + (slice(start, end),)])


def shape(node: Node, inputs: Sequence[Value]) -> Value:
    """The sizes of all axes."""
    if node.attributes:
        node.refuse("a part of the shape")
    return np.array(array(inputs[0]).shape, np.int64)


def reshape(node: Node, inputs: Sequence[Value]) -> Value:
    """The same numbers in their order on other axes; one size may be -1 and follows from the others."""
    sizes = whole(node, inputs[1])
    if node.number("allowzero", 0) or sizes.ndim != 1 or sizes.min(initial=1) < -1 or (sizes == 0).any():
        node.refuse("a size of 0")
    return like(inputs[0], array(inputs[0]).reshape(sizes.tolist()))


def transpose(node: Node, inputs: Sequence[Value]) -> Value:
    """The axes in another order."""
    return like(inputs[0], array(inputs[0]).transpose(node.numbers("perm")))


def unsqueeze(node: Node, inputs: Sequence[Value]) -> Value:
    """A new axis of size 1."""
    return like(inputs[0], np.expand_dims(array(inputs[0]), tuple(whole(node, inputs[1]).tolist())))


def depth_to_space(node: Node, inputs: Sequence[Value]) -> Value:
    """Channels to a square of places, the channel first, then row and column within the square."""
    if node.attributes.get("mode", "DCR") != "CRD":
        node.refuse("another mode than CRD")
    source, block = array(inputs[0]), node.number("blocksize")
    batch, channels, rows, cols = source.shape
    split = source.reshape(batch, channels // block**2, block, block, rows, cols)
    moved = split.transpose(0, 1, 4, 2, 5, 3)
    return like(inputs[0], moved.reshape(batch, channels // block**2, rows * block, cols * block))


def constant(node: Node, inputs: Sequence[Value]) -> Value:
    """The tensor that the node holds."""
    value = node.attributes.get("value")
    if len(node.attributes) != 1 or isinstance(value, (int, str, tuple)) or value is None:
        node.refuse("no tensor")
    return value


def identity(node: Node, inputs: Sequence[Value]) -> Value:
    """The same."""
    return inputs[0]


OPERATORS: dict[str, Operator] = {
    "Add": add,
    "Cast": cast,
    "Clip": clip,
    "Concat": concat,
    "Constant": constant,
    "Conv": conv,
    "DepthToSpace": depth_to_space,
    "Div": div,
    "Equal": equal,
    "Floor": floor,
    "Gather": gather,
    "GreaterOrEqual": at_least,
    "Identity": identity,
    "Mul": mul,
    "Reshape": reshape,
    "Shape": shape,
    "Slice": cut,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Where": where,
}
"""By the names that ONNX gives them."""
