"""What a step asks of the device: nothing is read back between log lines, and it can be compiled."""

# ruff: noqa: E402
from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlf.train.engine import Run
from dlf.train.terms import Means
from tiny_runs import Sampler, judged_stage

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("calm")]

KINDS = ("tokenizer", "align", "joint", "decoder", "encoder")
# operators whose result, or its size, the host must know
READING = ("_local_scalar_dense", "nonzero", "is_nonzero", "_unique2", "unique_dim", "masked_select", "equal")
METHODS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def note(self, what: str) -> None:
        place = next(f for f in reversed(traceback.extract_stack()) if "/dlf/" in f.filename)
        self.found.append(f"{what} at {place.filename}:{place.lineno}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        picks = args[1] if name in ("index", "index_put_", "index_put") else ()
        if name in READING or any(i is not None and i.dtype == torch.bool for i in picks):
            self.note(name)
        return func(*args, **(kwargs or {}))


def count_methods(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Tensor, *args: Any) -> Any:
            reads.note(name)
            return own(self, *args)

        return call

    for name in METHODS:
        monkeypatch.setattr(Tensor, name, counted(name, getattr(Tensor, name)))


def test_the_counter_sees_what_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads()
    count_methods(reads, monkeypatch)
    monkeypatch.setattr(reads, "note", reads.found.append)
    x = torch.arange(4.0)
    asks: list[Callable[[], object]] = [
        lambda: x[0].item(), lambda: bool(x[0] > 0), lambda: float(x[1]), lambda: x[x > 1], x.tolist,
        lambda: x.nonzero(), lambda: x.unique(), lambda: list(range(int(x[2]))), lambda: x.cpu(),
    ]  # fmt: skip
    with reads:
        for ask in asks:
            before = len(reads.found)
            ask()
            assert len(reads.found) > before
        means = Means()
        means.add({"a": x[0]}, x[1] > 0)
        before = len(reads.found)
        means.read()
        assert len(reads.found) > before


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_reads_from_the_device(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps of a run, after those in which code books are seeded and pictures are cached."""
    config, stage = judged_stage(kind, tmp_path)
    reads, at = Reads(), {"first": 0, "last": 0}
    count_methods(reads, monkeypatch)

    def hook(step: int) -> None:
        for name, number in (("first", 8), ("last", 18)):
            if step == number:
                at[name] = len(reads.found)

    run = Run(replace(config, steps=19, log_every=100, validate_every=100), stage, Sampler(hook), tmp_path)
    with reads:
        run.train()
    assert len(reads.found) > at["last"]  # the validation at the end does read
    assert reads.found[at["first"] : at["last"]] == []


@pytest.mark.slow
# of dynamo itself, which looks at the pictures that are no leaves
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_networks_and_losses_are_one_graph(kind: str, tmp_path: Path) -> None:
    """All that a stage gives to a compiler, quantised and before, is traced without a break."""
    _, stage = judged_stage(kind, tmp_path)
    explained: list[str] = []

    def wrap(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            torch._dynamo.reset()
            found = torch._dynamo.explain(function)(*args, **kwargs)
            assert found.graph_break_count == 0, found.break_reasons
            assert found.graph_count == 1
            explained.append(getattr(function, "__name__", type(function).__name__))
            return function(*args, **kwargs)

        return call

    stage.compile_with(wrap)
    sampler = Sampler()
    for step in range(3 if kind == "tokenizer" else 1):
        stage.loss(stage.inputs(sampler(step), 0.5)).total.backward()
        stage.after_step(torch.tensor(True))
    wanted = {"tokenizer": {"reconstruct"}, "align": {"code", "_latent_terms"}}.get(kind, {"code"})
    judges = {
        "partial",
        "Distance",
        "LiteFeatures",
        "contrast_distance",
        "feature_distance",
        "embed",
        "judge",
    }
    if kind == "align":
        judges = set()
    assert set(explained) == wanted | judges
