"""How large the numbers of a graph can become, whatever it is given: the proof that it is exact.

Each operation is followed with the smallest and the largest number that its inputs can have.  Where none
reaches 2**24, float32 arithmetic in any order gives what integers give, whatever the picture and the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlf.errors import BundleError
from dlf.reference.fixed import Fixed, held
from dlf.reference.network import compute
from dlf.reference.onnx_file import FLOAT, Graph, Node
from dlf.reference.operators import check_conv, power_of_two, reach


@dataclass(frozen=True)
class Range:
    """Where the numbers of an array of floats lie: low / 2**shift to high / 2**shift, both within."""

    low: int
    high: int
    shift: int = 0

    def __post_init__(self) -> None:
        held(self.largest, self.shift)

    @property
    def largest(self) -> int:
        """Size of the largest number, in units of 1 / 2**shift."""
        return max(abs(self.low), abs(self.high))

    def at(self, shift: int) -> tuple[int, int]:
        """Return both ends in units of 1 / 2**shift, at least as fine; raises BundleError."""
        held(self.largest << (shift - self.shift), shift)
        return self.low << (shift - self.shift), self.high << (shift - self.shift)

    @classmethod
    def of(cls, value: Fixed) -> Range:
        """Return that of numbers which are known."""
        numbers = value.numbers
        if not numbers.size:
            return cls(0, 0)
        return cls(int(numbers.min()), int(numbers.max()), value.shift)


@dataclass(frozen=True)
class Unknown:
    """Whole numbers or conditions, of which there is nothing to say that exactness depends on."""

    conditions: bool = False


WHOLE, CONDITIONS = Unknown(), Unknown(conditions=True)

Known = Range | Unknown | Fixed | NDArray[np.int64]
"""What is known of a value: its range, its kind, or, of constants, all of it."""


@dataclass(frozen=True)
class Proof:
    """What a graph cannot exceed.

    outputs: the range of each output, by name.  largest: size of the largest number anywhere, in units of its
    own shift.  sums: the same of the sums of convolutions alone.
    """

    outputs: dict[str, Range]
    largest: int
    sums: int


def prove(graph: Graph, inputs: Mapping[str, Range | Unknown]) -> Proof:
    """Follow a graph from the ranges of its inputs.

    inputs: by name; those that the graph does not have are passed over.

    Raises:
        BundleError: a number can reach 2**24, an output need not be whole, an input is missing, or an
            operation is not one of those that are known to be exact.
    """
    if missing := {*graph.inputs} - {*inputs}:
        msg = f"the model's networks have an input that is not known: {', '.join(sorted(missing))}"
        raise BundleError(msg)
    known: dict[str, Known] = {**graph.constants, **{name: inputs[name] for name in graph.inputs}}
    largest = sums = 0
    for node in graph.nodes:
        taken = [known[name] for name in node.inputs if name]
        if all(isinstance(value, (Fixed, np.ndarray)) for value in taken):
            value: Known = compute(node, known)  # type: ignore[arg-type, assignment]
        else:
            value = _follow(node, taken)
        known[node.outputs[0]] = value
        if isinstance(value, Range):
            largest = max(largest, value.largest)
            sums = max(sums, value.largest if node.kind == "Conv" else 0)
    outputs = {}
    for name in graph.outputs:
        found = known[name]
        found = Range.of(found) if isinstance(found, Fixed) else found
        if not isinstance(found, Range) or found.shift:
            msg = "the model's networks can give a number that is not an integer"
            raise BundleError(msg)
        outputs[name] = found
    return Proof(outputs, largest, sums)


def _follow(node: Node, inputs: Sequence[Known]) -> Known:
    """Return what is known of the output of an operation; raises BundleError."""
    if len(node.outputs) != 1:
        node.refuse()
    if node.kind == "Conv" and len(inputs) == 3:
        return _conv(node, inputs)
    if node.kind == "Shape":
        return WHOLE
    if node.kind in ("GreaterOrEqual", "Equal"):
        return CONDITIONS
    if node.kind == "Cast":
        return _cast(node, inputs)
    if node.kind in _MOVES and inputs:
        return Range.of(inputs[0]) if isinstance(inputs[0], Fixed) else _unknown_or_range(inputs[0])
    ranges = [Range.of(value) if isinstance(value, Fixed) else value for value in inputs]
    if all(isinstance(value, (Unknown, np.ndarray)) for value in ranges) and node.kind in _OF_WHOLE:
        if node.kind == "Mul" and any(isinstance(value, np.ndarray) and not value.any() for value in ranges):
            return np.zeros(1, np.int64)  # by which a network says that an input is not heeded
        return WHOLE
    of = ranges[1:] if node.kind == "Where" else ranges
    spans = [span for span in of if isinstance(span, Range)]
    if node.kind not in _OF_RANGES or len(spans) != len(of) or len(of) != _ARITY.get(node.kind, len(of)):
        node.refuse()
    return _OF_RANGES[node.kind](node, spans)


_MOVES = {"Slice", "Reshape", "Transpose", "Unsqueeze", "DepthToSpace", "Gather", "Identity"}
_OF_WHOLE = {"Add", "Mul", "Div", "Clip", "Concat"}
_ARITY = {"Add": 2, "Mul": 2, "Div": 2, "Clip": 3, "Floor": 1, "Where": 2}


def _unknown_or_range(value: Known) -> Range | Unknown:
    return value if isinstance(value, (Range, Unknown)) else WHOLE


def _conv(node: Node, inputs: Sequence[Known]) -> Range:
    seen, weight, bias = (
        Range.of(part) if i == 0 and isinstance(part, Fixed) else part for i, part in enumerate(inputs)
    )
    if not (isinstance(seen, Range) and isinstance(weight, Fixed) and isinstance(bias, Fixed)):
        node.refuse("weights that are no constants")
    check_conv(node, seen.shift, weight, bias)
    most = reach(weight, bias, seen.largest)
    return Range(-most, most)


def _cast(node: Node, inputs: Sequence[Known]) -> Range:
    if node.number("to") != FLOAT:
        node.refuse("another type than float32")
    (value,) = inputs
    if isinstance(value, Range):
        return value
    if isinstance(value, np.ndarray) and value.size:
        return Range(int(value.min()), int(value.max()))
    if value is not CONDITIONS:
        node.refuse("whole numbers of any size")
    return Range(0, 1)


def _shared(spans: Sequence[Range]) -> tuple[int, list[tuple[int, int]]]:
    shift = max(span.shift for span in spans)
    return shift, [span.at(shift) for span in spans]


def _add(node: Node, spans: Sequence[Range]) -> Range:
    shift, ((a, b), (c, d)) = _shared(spans)
    return Range(a + c, b + d, shift)


def _mul(node: Node, spans: Sequence[Range]) -> Range:
    left, right = spans
    ends = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
    return Range(min(ends), max(ends), left.shift + right.shift)


def _div(node: Node, spans: Sequence[Range]) -> Range:
    value, divisor = spans
    if divisor.low != divisor.high:
        node.refuse("a divisor that is no constant")
    number = Fixed(np.array([divisor.low], np.int32), divisor.shift)
    return Range(value.low, value.high, value.shift + power_of_two(node, number))


def _floor(node: Node, spans: Sequence[Range]) -> Range:
    (value,) = spans
    return Range(value.low >> value.shift, value.high >> value.shift)


def _clip(node: Node, spans: Sequence[Range]) -> Range:
    shift, ((low, high), (least, _), (_, most)) = _shared(spans)
    return Range(min(max(low, least), most), min(max(high, least), most), shift)


def _join(node: Node, spans: Sequence[Range]) -> Range:
    shift, ends = _shared(spans)
    return Range(min(low for low, _ in ends), max(high for _, high in ends), shift)


_OF_RANGES: dict[str, Callable[[Node, Sequence[Range]], Range]] = {
    "Add": _add,
    "Mul": _mul,
    "Div": _div,
    "Floor": _floor,
    "Clip": _clip,
    "Concat": _join,
    "Where": _join,
}
