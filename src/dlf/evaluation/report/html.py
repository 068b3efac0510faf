"""One HTML page with everything in it: plots, tables, pictures; it makes no request."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.resources import files
from string import Template

from dlf.evaluation.report.examples import Example
from dlf.evaluation.report.plots import Plot, label
from dlf.evaluation.report.published import Published
from dlf.evaluation.report.tables import (
    COMPLEXITY,
    RATIOS,
    Table,
    bd_table,
    bd_words,
    complexity_table,
    explanation,
    means_table,
    ratio_table,
    rows_table,
)
from dlf.evaluation.results import Results
from dlf.extras import need

NOTHING = Published()


def page(
    results: Results,
    drawn: Sequence[Plot],
    shown: Sequence[Example],
    published: Published = NOTHING,
) -> str:
    """Return the page.

    drawn: plots to show.  shown: images to compare.  published: numbers of others, shown as such.

    Raises:
        MissingExtra: plotly is not installed.
    """
    need("plotly", "eval")
    from plotly.offline import get_plotlyjs

    words, *reasons = bd_words(results) if results.differences else [""]
    targets = [target.label for target in results.comparison.targets]
    data = {
        "plots": [_plot(plot) for plot in drawn],
        "examples": [asdict(example) for example in shown],
        "middle": targets[len(targets) // 2],
    }
    hint = "Dashed curves are published by others and were not measured here." if published.points else ""
    return Template(
        _part("page.html")
    ).substitute(
        style=_part("page.css"),
        script=_part("page.js"),
        plotly=get_plotlyjs(),
        data=json.dumps(data).replace("<", "\\u003c"),  # no name may end the script element
        explanation=html.escape(explanation(results)),
        hint=hint,
        means=_table(means_table(results)),
        rates=f"{_table(bd_table(results))}<p>{html.escape(words)}</p>{_list(r[2:] for r in reasons if r)}",
        ratios=_ratios(results),
        complexity=_complexity(results),
        published=_published(published),
        notes=f"<section><h2>Left out and failed</h2>{_list(results.notes)}</section>"
        if results.notes
        else "",
        count=len(results.rows),
        rows=_table(rows_table(results)),
    )


def _part(name: str) -> str:
    return (files("dlf.evaluation.report") / "page" / name).read_text("utf-8")


def _plot(plot: Plot) -> dict[str, object]:
    lines = [
        {"label": label(x), "points": x.points, "published": x.published} for x in plot.lines if x.points
    ]
    return {"title": plot.title, "axis": plot.axis, "lines": lines}


def _ratios(results: Results) -> str:
    if not results.hull_ratios:
        return ""
    table = _table(ratio_table(results))
    return f"<section><h2>Against the best format</h2>{table}<p>{html.escape(RATIOS)}</p></section>"


def _complexity(results: Results) -> str:
    if not results.complexity:
        return ""
    table = _table(complexity_table(results.complexity))
    return f"<section><h2>Complexity</h2>{table}<p>{html.escape(COMPLEXITY)}</p></section>"


def _published(published: Published) -> str:
    if published == NOTHING:
        return ""
    values = [
        [p.codec, p.metric, p.reading, p.source, f"{p.bpp:g}", f"{p.value:g}"] for p in published.points
    ]
    differences = [
        [r.codec, r.anchor, r.metric, r.reading, r.source, f"{r.percent:+g} %"] for r in published.rates
    ]
    return (
        "<section><h2>Published by others</h2><p>Not measured here; protocols may differ. Plot: centre of a "
        "marker in the authors' plot; eye: read off a plot by eye; computed: from published points.</p>"
        + _table(Table(["codec", "metric", "reading", "source", "bpp", "value"], values, words=4))
        + "<h3>BD-rate</h3>"
        + _table(Table(["codec", "anchor", "metric", "reading", "source", "BD-rate"], differences, words=5))
        + "</section>"
    )


def _table(table: Table) -> str:
    def cells(line: list[str], tag: str) -> str:
        parts = [
            f"<{tag}{' class=word' if place < table.words else ''}>{html.escape(text)}</{tag}>"
            for place, text in enumerate(line)
        ]
        return f"<tr>{''.join(parts)}</tr>"

    body = "".join(cells(line, "td") for line in table.lines)
    head = cells(table.titles, "th")
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{html.escape(s)}</li>" for s in sentences)
    return f"<ul>{items}</ul>" if items else ""
