"""Probability tables: what is accepted, what is made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dlf.entropy.tables import Tables, gaussian_frequencies
from dlf.errors import BundleError

Arrays = dict[str, NDArray[np.generic]]


@pytest.mark.parametrize("limit", [1, 15, 64])
def test_gaussian_rows_are_whole_symmetric_and_near_the_truth(limit: int) -> None:
    scales = np.geomspace(0.01, 100, 40)
    rows = gaussian_frequencies(scales, limit)
    assert rows.dtype == np.uint32
    assert rows.shape == (40, 2 * limit + 2)
    assert (rows.sum(1) == 2**16).all()
    assert rows.min() >= 1
    symbols = rows[:, :-1]
    np.testing.assert_array_equal(symbols, symbols[:, ::-1])
    density = np.exp(-((np.arange(-limit, limit + 1) / scales[:, None]) ** 2) / 2) / scales[:, None] / 2.5066
    wide = scales > 3  # where the density tells the mass
    np.testing.assert_allclose(symbols[wide] / 2**16, density[wide], atol=2e-3)
    assert (np.diff(rows[:, -1].astype(int)) >= 0).all()


def test_tables_tell_their_sizes(tables: Tables) -> None:
    assert (tables.limit, tables.tokens, tables.codes) == (15, 6, 16)
    with pytest.raises(ValueError, match="read-only"):
        tables.scale_bounds[0] = 1


def spoil(arrays: Arrays, name: str, place: tuple[int, ...], value: int) -> Arrays:
    arrays[name][place] = value
    return arrays


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a | {"scale_bounds": a["scale_bounds"].astype(np.int64)},
        lambda a: a | {"scale_bounds": a["scale_bounds"][:-1]},
        lambda a: a | {"scale_bounds": a["scale_bounds"][::-1]},
        lambda a: a | {"gaussian_frequency": a["gaussian_frequency"][:, :-1]},
        lambda a: a | {"gaussian_frequency": a["gaussian_frequency"].astype(np.float32)},
        lambda a: a | {"token_frequency": a["token_frequency"][:0]},
        lambda a: a | {"token_count": a["token_count"][:100]},
        lambda a: a | {"token_count": a["token_count"] + 1},
        lambda a: a | {"prior": a["prior"][0]},
        lambda a: a | {"extra": a["prior"]},
        lambda a: {key: a[key] for key in a if key != "prior"},
        lambda a: a | {"prior": np.array([object()])},
        lambda a: spoil(a, "gaussian_frequency", (0, 0), 0),
        lambda a: spoil(a, "gaussian_frequency", (3, 1), 99),
        lambda a: spoil(a, "token_frequency", (1, 1), 2**32 - 1),
        lambda a: spoil(a, "token_count", (100,), 1),
        lambda a: spoil(a, "token_count", (0,), 0),
    ],
)
def test_wrong_arrays_are_refused(
    arrays: Arrays, to_npz: Callable[[Arrays], bytes], change: Callable[[Arrays], Arrays]
) -> None:
    with pytest.raises(BundleError):
        Tables.load(to_npz(change(arrays)))


def test_wrong_files_are_refused(arrays: Arrays, to_npz: Callable[[Arrays], bytes]) -> None:
    good = to_npz(arrays)
    for data in (b"", b"PK\3\4", good[:-30], good[:200], b"\x93NUMPY\1\0"):
        with pytest.raises(BundleError):
            Tables.load(data)


def test_options_are_read_or_have_their_defaults(
    arrays: Arrays, to_npz: Callable[[Arrays], bytes], tables: Tables
) -> None:
    assert (tables.mean_unit, tables.step_unit, tables.padding) == (16, 64, 32)
    assert (tables.symbol_sum, tables.token_prior) == (0, 0)
    chosen = {"mean_unit": 2**14, "padding": 256, "symbol_sum": 1, "token_prior": 1}
    found = Tables.load(to_npz(arrays | {name: np.array(value, np.int64) for name, value in chosen.items()}))
    assert {name: getattr(found, name) for name in chosen} == chosen
    assert found.step_unit == 64


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean_unit", 2**15),
        ("step_unit", 0),
        ("padding", 48),
        ("symbol_sum", 2),
        ("token_prior", 2),
        ("another", 1),
    ],
)
def test_wrong_options_are_refused(
    name: str, value: int, arrays: Arrays, to_npz: Callable[[Arrays], bytes]
) -> None:
    data = to_npz(arrays | {name: np.array(value, np.int64)})
    with pytest.raises(BundleError):
        Tables.load(data)
