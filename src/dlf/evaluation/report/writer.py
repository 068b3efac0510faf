"""Everything that people and programs read of an evaluation, as files in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlf import imageio
from dlf.errors import MissingExtra
from dlf.evaluation.ledger import write_table
from dlf.evaluation.report.examples import examples
from dlf.evaluation.report.html import page
from dlf.evaluation.report.plots import draw, plots
from dlf.evaluation.report.published import published_for
from dlf.evaluation.report.sheet import contact_sheet
from dlf.evaluation.report.tables import summary
from dlf.evaluation.results import Results, to_json
from dlf.files import write_bytes


@dataclass(frozen=True)
class ReportOptions:
    """What a report holds.

    examples: images to compare in the page.  sheet: images on the sheets, 0 writes none.
    published: data set whose published curves are shown beside ours.
    """

    examples: int = 4
    sheet: int = 0
    published: str | None = None


DEFAULTS = ReportOptions()


def write_report(results: Results, folder: Path, options: ReportOptions = DEFAULTS) -> list[str]:
    """Write tables, summary, plots, page and sheets; see docs/evaluation.md for the files.

    Returns a sentence for each part that is left out, because its library is not installed.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "rows.csv", results.rows)
    write_bytes(folder / "results.json", to_json(results).encode())
    write_bytes(folder / "summary.md", summary(results).encode("utf-8", "surrogateescape"))
    for target in results.comparison.targets if options.sheet else ():
        sheet = contact_sheet(results, options.sheet, target.label)
        if sheet is not None:
            imageio.save(sheet, folder / f"sheet-{target.label}.png")
    try:
        _write_page(results, folder, options)
    except MissingExtra as error:
        return [f"there are no plots and no report: {error}"]
    return []


def _write_page(results: Results, folder: Path, options: ReportOptions) -> None:
    published = published_for(options.published)
    drawn = plots(results, published.points)
    (folder / "plots").mkdir(exist_ok=True)
    for plot in drawn:
        for kind, data in draw(plot).items():
            write_bytes(folder / "plots" / f"{plot.metric}.{kind}", data)
    text = page(results, drawn, examples(results, options.examples), published)
    write_bytes(folder / "report.html", text.encode("utf-8", "replace"))
