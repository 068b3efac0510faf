"""Reading a model's folder, as far as symbols need it: docs/bitstream.md, section 5."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.errors import BundleError
from dlf.files import open_regular, read_up_to
from dlf.limits import MAX_CHANNELS, MAX_PADDING, MAX_TOKENS
from dlf.reference.bounds import WHOLE, Proof, Range, Unknown, prove
from dlf.reference.network import Network
from dlf.reference.onnx_file import Graph, read_graph

MAX_FILE_BYTES = 1 << 27
"""Limit of each file, and of the tables unfolded."""

MAX_SYMBOL = 1 << 15
"""Largest size of a detail symbol."""

QUALITIES = 101
TOTAL = 1 << 16

_ARRAYS = {
    "token_frequency": (np.uint32, 2),
    "token_count": (np.uint8, 1),
    "gaussian_frequency": (np.uint32, 2),
    "scale_bounds": (np.int32, 1),
    "prior": (np.int16, 2),
}
_OPTIONS = {"mean_unit": 16, "step_unit": 64, "padding": 32, "token_prior": 0, "symbol_sum": 0}
_RANGES = {
    "mean_unit": range(1, 2**14 + 1),
    "step_unit": range(1, 2**20 + 1),
    "padding": range(32, MAX_PADDING + 1, 32),
    "token_prior": range(2),
    "symbol_sum": range(2),
}
_DECIDE = ("context.onnx", "prior.onnx", "tables.npz")


@dataclass(frozen=True, eq=False)
class ReferenceTables:
    """The arrays and options of `tables.npz`, named as there; all integers are int64."""

    token_frequency: NDArray[np.int64]
    token_count: NDArray[np.int64]
    gaussian_frequency: NDArray[np.int64]
    scale_bounds: NDArray[np.int64]
    prior: NDArray[np.int64]
    mean_unit: int
    step_unit: int
    padding: int
    token_prior: int
    symbol_sum: int


@dataclass(frozen=True, eq=False)
class ReferenceModel:
    """What decides the symbols of a model's files.

    id, numerics: of the manifest.  channels: of the detail latent.  prior, context: the networks.
    proofs: what the numbers of each cannot exceed.
    """

    id: int
    numerics: str
    channels: int
    tables: ReferenceTables
    prior: Network
    context: Network
    proofs: tuple[Proof, Proof]

    @classmethod
    def open(cls, folder: Path) -> ReferenceModel:
        """Read a folder and check every hash that matters; raises BundleError."""
        manifest = _manifest(_read(folder, "manifest.json"))
        files = {name: _read(folder, name) for name in _DECIDE}
        hashes = [hashlib.sha256(files[name]).hexdigest() for name in _DECIDE]
        stated = [manifest["files"].get(name) for name in _DECIDE]
        if hashes != stated or hashlib.sha256("".join(hashes).encode()).hexdigest() != manifest["numerics"]:
            msg = f"a file of the model in '{folder}' is damaged: its hash is wrong"
            raise BundleError(msg)
        tables = read_tables(files["tables.npz"])
        channels, tokens, codes = (manifest[name] for name in ("channels", "tokens", "codes"))
        if tables.token_frequency.shape != (tokens, codes):
            msg = f"the tables of the model in '{folder}' do not fit its manifest"
            raise BundleError(msg)
        prior, context = read_graph(files["prior.onnx"]), read_graph(files["context.onnx"])
        proofs = prove_networks(tables.prior, tables.mean_unit, prior, context)
        return cls(
            manifest["id"], manifest["numerics"], channels, tables, Network(prior), Network(context), proofs
        )


def prove_networks(
    vectors: NDArray[Any], mean_unit: int, prior: Graph, context: Graph
) -> tuple[Proof, Proof]:
    """Show that no number in the two networks of a model can reach 2**24, whatever the picture.

    vectors: integers (101, inputs), what the prior network is given at each quality.
    mean_unit: fractions of 1 in which means are counted.

    Raises:
        BundleError: one can, or an operation is not known to be exact.
    """
    first = prove(prior, {"prior": Range(int(vectors.min()), int(vectors.max())), "tokens": WHOLE})
    if missing := {"scale", "mean", "step", "common"} - {*first.outputs}:
        msg = f"the model's prior network lacks an output: {', '.join(sorted(missing))}"
        raise BundleError(msg)
    if first.outputs["step"].low < 1:
        msg = "the model's prior network can give a quantisation step below 1/64"
        raise BundleError(msg)
    # what the walk knows of the latent is symbol * mean_unit + mean, where the mean may be that of any step
    most = MAX_SYMBOL * mean_unit
    known: dict[str, Range | Unknown] = {"common": first.outputs["common"], "index": WHOLE}
    second = prove(context, {**known, "y_hat": Range(-most, most)})
    if missing := {"scale", "mean"} - {*second.outputs}:
        msg = f"the model's context network lacks an output: {', '.join(sorted(missing))}"
        raise BundleError(msg)
    most += max(first.outputs["mean"].largest, second.outputs["mean"].largest)
    again = prove(context, {**known, "y_hat": Range(-most, most)})
    if again.outputs["mean"].largest > second.outputs["mean"].largest:
        msg = "the means of the model's context network grow from step to step, so they have no bound"
        raise BundleError(msg)
    return first, again


def read_tables(data: bytes) -> ReferenceTables:
    """Read the bytes of `tables.npz`; raises BundleError where a promise of the format is broken."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            small = sum(part.file_size for part in file.zip.infolist()) <= MAX_FILE_BYTES
            arrays = dict(file) if small else {}
    except MemoryError:
        raise
    except Exception as error:  # a damaged zip file raises nearly anything
        msg = "the model's probability tables cannot be read"
        raise BundleError(msg) from error
    options = {name: arrays.pop(name, np.array(usual, np.int64)) for name, usual in _OPTIONS.items()}
    _check({*arrays} == {*_ARRAYS}, "arrays are missing, too many or too large")
    for name, (dtype, axes) in _ARRAYS.items():
        found = arrays[name]
        _check(
            found.dtype == dtype and found.ndim == axes and found.size > 0,
            f"{name} has a wrong type or shape",
        )
    for name, value in options.items():
        _check(
            value.dtype == np.int64 and value.ndim == 0 and int(value) in _RANGES[name],
            f"{name} is out of range",
        )
    wide = {name: found.astype(np.int64) for name, found in arrays.items()}
    for name in ("token_frequency", "gaussian_frequency"):
        good = wide[name].min() >= 1 and (wide[name].sum(1) == TOTAL).all()
        _check(bool(good), f"a row of {name} has a zero or does not sum to {TOTAL}")
    count, bounds = wide["token_count"], wide["scale_bounds"]
    tables, entries = wide["gaussian_frequency"].shape
    _check(entries >= 4 and entries % 2 == 0, "gaussian_frequency has an odd number of columns")
    _check(
        len(bounds) == tables - 1 and bool((np.diff(bounds) > 0).all()), "scale_bounds does not fit or ascend"
    )
    tokens = len(wide["token_frequency"])
    ascends = (
        len(count) == QUALITIES and count[0] >= 1 and count[-1] <= tokens and (np.diff(count) >= 0).all()
    )
    _check(bool(ascends), "token_count does not ascend from 1 to the number of tokens")
    _check(len(wide["prior"]) == QUALITIES, "prior has a wrong length")
    chosen: dict[str, Any] = {name: int(value) for name, value in options.items()}
    return ReferenceTables(**wide, **chosen)


def _manifest(data: bytes) -> dict[str, Any]:
    """Return the manifest after checking the entries that matter; raises BundleError."""
    ranges = {"format": (1, 1), "id": (0, 2**35 - 1), "tokens": (1, MAX_TOKENS), "codes": (2, TOTAL)}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    good = (
        isinstance(found, dict)
        and isinstance(found.get("files"), dict)
        and found.get("engine", "onnx") == "onnx"
    )
    for name, (least, most) in {**ranges, "channels": (4, MAX_CHANNELS)}.items():
        good = good and type(found.get(name)) is int and least <= found[name] <= most
    if not good or found["channels"] % 4 or not isinstance(found.get("numerics"), str):
        msg = "the model's manifest is not one of ONNX graphs that the reference decoder reads"
        raise BundleError(msg)
    manifest: dict[str, Any] = found
    return manifest


def _read(folder: Path, name: str) -> bytes:
    try:
        with open_regular(folder / name) as file:
            data = read_up_to(file, MAX_FILE_BYTES + 1)
    except OSError as error:
        msg = f"the model in '{folder}' lacks its file {name} ({error.strerror})"
        raise BundleError(msg) from error
    if len(data) > MAX_FILE_BYTES:
        msg = f"the file {name} of the model in '{folder}' has more than {MAX_FILE_BYTES:,} bytes"
        raise BundleError(msg)
    return data


def _check(condition: bool, what: str) -> None:
    if not condition:
        msg = f"the model's probability tables are wrong: {what}"
        raise BundleError(msg)
