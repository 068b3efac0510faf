"""Rate-distortion plots for papers, PNG and SVG, through matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from dlf.evaluation.report.published import PublishedPoint
from dlf.evaluation.results import Results
from dlf.extras import need

INCHES, DOTS = (6.4, 4.4), 160
TITLES = {
    "psnr": "PSNR dB",
    "lpips_alex": "LPIPS (Alex)",
    "lpips_vgg": "LPIPS (VGG)",
    "dists": "DISTS",
    "fid": "FID",
    "kid": "KID",
}


@dataclass(frozen=True)
class Line:
    """One curve of a plot: points of (bpp, value) by rate; published: made by others, drawn dashed."""

    name: str
    points: list[tuple[float, float]]
    published: bool = False
    approximate: bool = False


@dataclass(frozen=True)
class Plot:
    """One metric; ratio: as of `dlf.evaluation.metrics.fidelity.Metric`."""

    metric: str
    title: str
    lower_is_better: bool
    lines: list[Line]
    ratio: bool = False

    @property
    def axis(self) -> str:
        """Title and what is good."""
        better = "lower" if self.lower_is_better else "higher"
        return f"{self.title} ({'1 is best' if self.ratio else f'{better} is better'})"


def plots(results: Results, published: Sequence[PublishedPoint] = ()) -> list[Plot]:
    """Return a plot for each metric that was measured or published."""
    drawn = []
    for metric in results.metrics:
        lines = []
        for codec, points in results.curves.items():
            values = [(p.bpp, p.scores[metric.name]) for p in points if metric.name in p.scores]
            lines.append(Line(codec, sorted(value for value in values if abs(value[1]) < float("inf"))))
        drawn.append(Plot(metric.name, metric.title, metric.lower_is_better, lines, metric.ratio))
    for name in dict.fromkeys(point.metric for point in published):
        lines = _published([point for point in published if point.metric == name])
        same = next((plot for plot in drawn if plot.metric == name), None)
        if same is not None:
            same.lines.extend(lines)
        else:  # all but PSNR are distances
            drawn.append(Plot(name, TITLES.get(name, name), name != "psnr", lines))
    return drawn


def _published(points: Sequence[PublishedPoint]) -> list[Line]:
    lines = []
    for codec in dict.fromkeys(point.codec for point in points):
        chosen = [point for point in points if point.codec == codec]
        approximate = any(point.reading == "eye" for point in chosen)
        pairs = sorted((point.bpp, point.value) for point in chosen)
        lines.append(Line(codec, pairs, published=True, approximate=approximate))
    return lines


def label(line: Line) -> str:
    """Return the name of a curve with what must be known about it."""
    if not line.published:
        return line.name
    return f"{line.name}, published{', by eye' if line.approximate else ''}"


def draw(plot: Plot) -> dict[str, bytes]:
    """Return the plot as {"png": ..., "svg": ...}.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    need("matplotlib", "eval")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for line in plot.lines:
        if line.points:
            style = "--" if line.published else "-"
            axes.plot(*zip(*line.points, strict=True), style, marker="o", markersize=3.5, label=label(line))
    axes.set(xlabel="bits per pixel", ylabel=plot.axis)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)
    files = {}
    for kind in ("png", "svg"):
        file = io.BytesIO()
        # without a date and with steady names inside, so that the same results give the same files
        with rc_context({"svg.hashsalt": plot.metric}):
            figure.savefig(file, format=kind, dpi=DOTS, metadata={"Date": None} if kind == "svg" else None)
        files[kind] = file.getvalue()
    return files
