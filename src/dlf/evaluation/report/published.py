"""Curves and rate differences that others published; shown beside measured ones, never mixed with them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

CURVES, RATES = "published.csv", "published_bd.csv"


@dataclass(frozen=True)
class PublishedPoint:
    """A point of a curve.

    dataset: "kodak", "clic2020", "coco30k".  metric: name as in our tables.  reading: how the number was
    had: "plot" (centre of a marker, measured), "eye" (off a plot by eye), "printed" (in the authors' table)
    or "stated" (a number given for it).  source: where it stands.
    """

    dataset: str
    codec: str
    metric: str
    bpp: float
    value: float
    reading: str
    source: str


@dataclass(frozen=True)
class PublishedRate:
    """A BD-rate of `codec` against `anchor`, in per cent; reading: "stated" or "computed" from points."""

    dataset: str
    codec: str
    anchor: str
    metric: str
    percent: float
    reading: str
    source: str


@dataclass(frozen=True)
class Published:
    """What others published for one data set."""

    points: tuple[PublishedPoint, ...] = ()
    rates: tuple[PublishedRate, ...] = ()


def published_for(dataset: str | None) -> Published:
    """Return the numbers for a data set; nothing for None."""
    return Published() if dataset is None else Published(tuple(points(dataset)), tuple(rates(dataset)))


def datasets() -> list[str]:
    """Return the names of the data sets that there are curves of."""
    return list(dict.fromkeys(point.dataset for point in points()))


def points(dataset: str | None = None) -> list[PublishedPoint]:
    """Return the points of all curves, or of those of one data set."""
    curve_points = []
    for cells in _lines(CURVES, dataset):
        bpp, value = float(cells.pop("bpp")), float(cells.pop("value"))
        curve_points.append(PublishedPoint(**cells, bpp=bpp, value=value))
    return curve_points


def rates(dataset: str | None = None) -> list[PublishedRate]:
    """Return the rate differences, or those of one data set."""
    return [PublishedRate(percent=float(cells.pop("percent")), **cells) for cells in _lines(RATES, dataset)]


def _lines(name: str, dataset: str | None) -> list[dict[str, str]]:
    text = (files("dlf.evaluation.report") / "data" / name).read_text("utf-8")
    return [line for line in csv.DictReader(text.splitlines()) if dataset in (None, line["dataset"])]
