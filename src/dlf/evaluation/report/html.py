"""One HTML page with everything in it: plots, tables, images; it makes no request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files

from dlf.evaluation.report.examples import Example
from dlf.evaluation.report.plots import Plot, label
from dlf.evaluation.report.published import Published
from dlf.evaluation.report.tables import (
    COMPLEXITY,
    RATIOS,
    bd_explanation,
    bd_reasons,
    bd_table,
    complexity_table,
    explanation,
    means_table,
    published_points_table,
    published_rates_table,
    ratio_table,
    rows_table,
)
from dlf.evaluation.results import Results
from dlf.extras import need

NOTHING = Published()


@dataclass(frozen=True)
class _Curve:
    label: str
    points: list[tuple[float, float]]
    published: bool


@dataclass(frozen=True)
class _Plot:
    title: str
    axis: str
    lines: list[_Curve]


@dataclass(frozen=True)
class _PageData:
    """What page.js draws; middle: label of the target that is shown first."""

    plots: list[_Plot]
    examples: list[Example]
    middle: str


def page(
    results: Results,
    drawn: Sequence[Plot],
    shown: Sequence[Example],
    published: Published = NOTHING,
) -> str:
    """Return the page.

    drawn: plots to show.  shown: images to compare.  published: numbers of others, shown as such.

    Raises:
        MissingExtra: plotly or jinja2 is not installed.
    """
    jinja2 = need("jinja2", "eval")
    need("plotly", "eval")
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dlf.evaluation.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {}  # codecs and targets stay in their order
    targets = [target.label for target in results.comparison.targets]
    data = _PageData([_plot(plot) for plot in drawn], list(shown), targets[len(targets) // 2])
    text: str = environment.get_template("page.html.jinja").render(
        style=_part("page.css"),
        script=_part("page.js"),
        plotly=get_plotlyjs(),
        data=asdict(data),
        results=results,
        explanation=explanation(results),
        means=means_table(results),
        ratios=ratio_table(results),
        ratios_explanation=RATIOS,
        rates=bd_table(results),
        rates_explanation=bd_explanation(results) if results.differences else "",
        rates_reasons=bd_reasons(results),
        complexity=complexity_table(results.complexity),
        complexity_explanation=COMPLEXITY,
        published=published,
        published_points=published_points_table(published.points),
        published_rates=published_rates_table(published.rates),
        rows=rows_table(results),
    )
    return text


def _part(name: str) -> str:
    return (files("dlf.evaluation.report") / "page" / name).read_text("utf-8")


def _plot(plot: Plot) -> _Plot:
    lines = [_Curve(label(line), line.points, line.published) for line in plot.lines if line.points]
    return _Plot(plot.title, plot.axis, lines)
