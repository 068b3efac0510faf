"""The graphs that decide symbols, in a form that ONNX Runtime computes several times faster.

They are written as they are defined (docs/model.md, section 6): every step of the arithmetic an operation,
and all three adaptors of the context network computed, of which a step needs one.  Here the same whole
numbers come out of fewer operations:

- Dividing the sums of a convolution and adding a half are part of its weights and bias: w / 64 and
  b / 64 + 1/2, exact in float32, for 64 is a power of two.  All sums are the former ones in units of 1/64.
- For a whole n > 0, floor(floor(x) / n) = floor(x / n), so the slope below zero may come before the floor.
  Slope and floor together never fall as x rises, so the clamp may come last, at what they make of its ends.
- Two halves of a convolution's channels are two convolutions, each with its own slope.
- A choice by a number that is given to the graph computes what it chooses and nothing else.

Where a graph is of another form it stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlf.codec.graph_file import GraphFile, Operation, branch, constant, needed, real, users
from dlf.errors import BundleError

_HALF = 0.5
# Slice: of what, from, to, along which axis
_SLICE_INPUTS = 4


def lean(data: bytes) -> bytes:
    """Return the bytes of a graph that gives the same whole numbers from fewer operations; see above.

    data: an ONNX file that `dlf.reference.bounds` proves to be exact, or anything else, which stays as it is.
    """
    try:
        graph = GraphFile(data)
    except BundleError:  # the runtime has a better word for it
        return data
    before = graph.operations
    rescaled = needed(_Rescaling(graph).operations(), graph.outputs)
    graph.operations = _choosing(rescaled, graph)
    return data if graph.operations == before else graph.to_bytes()


@dataclass(frozen=True)
class _Part:
    """Some channels of a convolution's results.

    name: of the results.  slope: by which those below zero are multiplied; 1 leaves them.
    span: first channel and the one after the last; None is all.
    """

    name: str
    slope: float = 1.0
    span: tuple[int, int] | None = None

    def of(self, number: float) -> float:
        """Return what becomes of a number."""
        is_bent = number < 0 and self.slope != 1
        return float(math.floor(number * self.slope)) if is_bent else float(number)


class _Rescaling:
    """Convolutions, and what turns their sums into whole numbers again."""

    def __init__(self, graph: GraphFile) -> None:
        self._graph = graph
        self._maker = {name: one for one in graph.operations for name in one.outputs}
        self._users = users(graph.operations)

    def operations(self) -> list[Operation]:
        """All operations, with new ones at the places of clamps; what nothing uses any more is among them."""
        made: dict[str, list[Operation]] = {}
        for one in self._graph.operations:
            if one.kind == "Clip":
                made[one.outputs[0]] = list(self._rescaled(one))
        new = {name for ones in made.values() for one in ones for name in one.outputs}
        kept: list[Operation] = []
        for one in self._graph.operations:
            kept += made.get(one.outputs[0], ())
            kept += () if new.intersection(one.outputs) else (one,)
        return kept

    def _number(self, name: str) -> float | None:
        made = self._maker.get(name)
        return None if made is None else made.number()

    def _up(self, name: str, *kinds: str) -> list[Operation]:
        """The makers of a value, of these kinds, along first inputs that nothing else uses; or none."""
        found: list[Operation] = []
        for kind in kinds:
            made = self._maker.get(name)
            if made is None or made.kind != kind or (found and len(self._users[name]) > 1):
                return []
            found.append(made)
            name = made.inputs[0]
        return found

    def _rescaled(self, clip: Operation) -> Iterator[Operation]:
        """What gives the results of a convolution, or of its parts; nothing where it is of another form."""
        found = self._up(clip.outputs[0], "Clip", "Floor", "Add", "Div", "Conv")
        if not found or len(clip.inputs) != 3:
            return
        _, _, half, div, conv = found
        low, high = (self._number(name) for name in clip.inputs[1:])
        divisor = self._number(div.inputs[1])
        is_known = divisor is not None and _is_power(divisor) and self._number(half.inputs[1]) == _HALF
        if not is_known or low is None or high is None or len(conv.inputs) != 3:
            return
        base = conv.outputs[0] + "/lean"
        taken, weight, bias = conv.inputs
        yield Operation("Div", (weight, div.inputs[1]), (base + "/weight",))
        yield Operation("Div", (bias, div.inputs[1]), (base + "/bias",))
        yield Operation("Add", (base + "/bias", half.inputs[1]), (base + "/raised",))
        for number, part in enumerate(self._parts(clip.outputs[0], weight)):
            name = f"{base}/{number}"
            names = base + "/weight", base + "/raised"
            if part.span is not None:
                yield from _cut(names, part.span, name)
                names = name + "/weight", name + "/bias"
            result = name + "/sums"
            yield Operation("Conv", (taken, *names), (result,), conv.attributes)
            if part.slope != 1:
                yield Operation("LeakyRelu", (result,), (name + "/bent",), (real("alpha", part.slope),))
                result = name + "/bent"
            yield Operation("Floor", (result,), (name + "/whole",))
            yield constant(name + "/low", part.of(low))
            yield constant(name + "/high", part.of(high))
            yield Operation("Clip", (name + "/whole", name + "/low", name + "/high"), (part.name,))

    def _parts(self, name: str, weight: str) -> list[_Part]:
        """What is made of clamped results: all with one slope, or parts of the channels, and all as it is."""
        whole = _Part(name)
        bent = self._bent(name)
        if bent is not None:
            return [bent]
        channels = self._channels(weight)
        taken = self._users.get(name, [])
        slices = [one for one in taken if one.kind == "Slice"]
        if channels is None or any(one.kind not in ("Slice", "Shape") for one in taken):
            return [whole]
        parts = [whole]
        for one in slices:
            span = self._span(one, name, channels)
            if span is None:
                return [whole]
            of = self._bent(one.outputs[0]) or _Part(one.outputs[0])
            parts.append(_Part(of.name, of.slope, span))
        return parts

    def _bent(self, name: str) -> _Part | None:
        """What x where x >= 0, else floor(slope * x), gives, if it is all that uses x; else None."""
        taken = {one.kind: one for one in self._users.get(name, [])}
        if {*taken} != {"GreaterOrEqual", "Mul", "Where"} or name in self._graph.outputs:
            return None
        test, mul, where = taken["GreaterOrEqual"], taken["Mul"], taken["Where"]
        slope = self._number(mul.inputs[1])
        floors = self._users.get(mul.outputs[0], [])
        is_known = (
            len(self._users[name]) == len(taken)
            and slope is not None
            and 0 < slope <= 1
            and _is_power(1 / slope)
            and mul.inputs[0] == test.inputs[0] == name
            and self._number(test.inputs[1]) == 0
            and [one.kind for one in floors] == ["Floor"]
            and where.inputs == (test.outputs[0], name, floors[0].outputs[0])
        )
        return _Part(where.outputs[0], slope) if is_known and slope is not None else None

    def _channels(self, weight: str) -> int | None:
        """How many outputs the weight of a convolution has, which may be stored in another type."""
        made = self._maker.get(weight)
        if made is not None and made.kind == "Cast":
            weight = made.inputs[0]
        sizes = self._graph.weights.get(weight)
        return sizes[0] if sizes else None

    def _span(self, one: Operation, name: str, channels: int) -> tuple[int, int] | None:
        """The channels that a Slice of a value with so many takes; None where it is not known."""
        if len(one.inputs) != _SLICE_INPUTS:
            return None
        start, end, axis = (self._size(part, name, channels) for part in one.inputs[1:])
        if start is None or end is None or axis != 1 or not 0 <= start < end <= channels:
            return None
        return start, end

    def _size(self, value: str, name: str, channels: int) -> int | None:
        """A whole number that is reckoned from the number of channels of `name` alone; else None."""
        made = self._maker.get(value)
        if made is None:
            return None
        if made.kind == "Constant":
            number = made.number()
            return number if isinstance(number, int) else None
        if made.kind == "Gather":
            of = self._maker.get(made.inputs[0])
            is_axis = self._size(made.inputs[1], name, channels) == 1
            return (
                channels
                if is_axis and of is not None and of.kind == "Shape" and of.inputs == (name,)
                else None
            )
        if made.kind not in ("Add", "Mul", "Div"):
            return None
        left, right = (self._size(part, name, channels) for part in made.inputs)
        if left is None or right is None or left < 0 or right < 1:
            return None
        return {"Add": left + right, "Mul": left * right, "Div": left // right}[made.kind]


def _is_power(number: float) -> bool:
    """Whether this is 2**n with n >= 0."""
    return number >= 1 and math.frexp(number)[0] == _HALF


def _cut(names: tuple[str, str], span: tuple[int, int], base: str) -> Iterator[Operation]:
    """Those outputs of a weight and a bias."""
    ends = [base + "/first", base + "/end", base + "/axis"]
    yield from (constant(name, number) for name, number in zip(ends, (*span, 0), strict=True))
    for name, made in zip(names, ("/weight", "/bias"), strict=True):
        yield Operation("Slice", (name, *ends), (base + made,))


def _choosing(operations: Sequence[Operation], graph: GraphFile) -> list[Operation]:
    """Operations in which a choice by an input of the graph computes what it chooses alone."""
    maker = {name: one for one in operations for name in one.outputs}
    for one in reversed(operations):
        if one.kind != "Where" or not _is_by_input(maker.get(one.inputs[0]), maker, graph):
            continue
        rest = list(operations)
        attributes = []
        for name, chosen in zip(("then_branch", "else_branch"), one.inputs[1:], strict=True):
            names = _only_for(operations, chosen, one, graph.outputs)
            own = [other for other in rest if other.outputs[0] in names]
            rest = [other for other in rest if other.outputs[0] not in names]
            inner = _choosing(own, graph)
            if not own:
                chosen, before = f"{one.outputs[0]}/{name}", chosen
                inner = [Operation("Identity", (before,), (chosen,))]
            attributes.append(branch(name, inner, chosen))
        new = Operation("If", one.inputs[:1], one.outputs, tuple(attributes))
        return [new if other is one else other for other in rest]
    return list(operations)


def _is_by_input(test: Operation | None, maker: dict[str, Operation], graph: GraphFile) -> bool:
    """Whether an operation compares an input of the graph that is one number with another one."""
    if test is None or test.kind != "Equal":
        return False
    known = [name in maker and isinstance(maker[name].number(), int) for name in test.inputs]
    return any(known) and any(name in graph.scalars for name in test.inputs)


def _only_for(
    operations: Sequence[Operation], value: str, user: Operation, outputs: Sequence[str]
) -> set[str]:
    """Return what is made for one input of one user, and for no output or other operation."""
    takers: dict[str, set[str]] = {}
    for one in operations:
        for name in one.inputs:
            takers.setdefault(name, set()).add(one.outputs[0])
    found: set[str] = set()
    if user.inputs.count(value) > 1:
        return found
    for name in outputs:
        takers.setdefault(name, set()).add("")  # whoever asked for it
    for one in reversed(operations):
        by = set().union(*(takers.get(name, ()) for name in one.outputs))
        if (by and by <= found) or (value in one.outputs and by == {user.outputs[0]}):
            found.add(one.outputs[0])
    return found
