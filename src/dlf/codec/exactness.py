"""Whether a model's files decide symbols exactly: `dlf.reference.bounds` on the integers that they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlf.codec import bundle as bundles
from dlf.codec.backend import Network
from dlf.codec.bundle import ModelBundle
from dlf.entropy.tables import Tables

if TYPE_CHECKING:
    from dlf.codec.onnx_backend import Build
    from dlf.reference.bounds import Proof

PRIOR, CONTEXT = "prior.onnx", "context.onnx"

DECIDING = ("prior", "context")
"""Names of the networks that decide symbols."""


@dataclass(frozen=True)
class Checked:
    """What a check of a model's files found out.

    prior, context: size of the largest number that can occur in each network, in units in which 2**24 is the
    limit; None where it computes in floats, whose exactness has no such proof.
    """

    prior: int | None
    context: int | None


def check_model(bundle: ModelBundle) -> Checked:
    """Compare the hash of every file, load the tables, and prove that the networks are exact; BundleError."""
    for name in bundle.manifest.files:
        bundle.check(name)
    tables = bundle.tables()
    if bundle.manifest.engine != "onnx":
        return Checked(None, None)
    prior, context = prove_files(tables, bundle.read(PRIOR), bundle.read(CONTEXT))
    return Checked(prior.largest, context.largest)


def prove_files(tables: Tables, prior: bytes, context: bytes) -> tuple[Proof, Proof]:
    """Prove that no number in the two graphs can reach 2**24; raises BundleError where one can."""
    from dlf.reference.model import prove_networks  # the models of the package do without
    from dlf.reference.onnx_file import read_graph

    return prove_networks(tables.prior, tables.mean_unit, read_graph(prior), read_graph(context))


def proving(bundle: ModelBundle, tables: Tables, build: Build | None) -> Build | None:
    """Return what builds graphs as `build` does, but not before those that decide symbols are proved.

    The models of the package are proved by its tests, and not again whenever one is loaded.
    """
    if bundle.folder.parent == bundles.ASSETS:
        return build
    proved = False

    def built(graph: str, data: bytes, plain: Callable[[], Network]) -> Network:
        nonlocal proved
        if graph in DECIDING and not proved:
            prove_files(tables, bundle.read(PRIOR), bundle.read(CONTEXT))
            proved = True
        return plain() if build is None else build(graph, data, plain)

    return built
