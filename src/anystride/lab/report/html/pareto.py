"""The section of the Pareto recipe: who wins at which costs, what a search takes, and the fronts."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from anystride.lab.paper.front import SERIES, Point, front, points, rivals
from anystride.lab.paper.recipe import TITLES, Grid
from anystride.lab.report.colours import METHOD_COLOURS
from anystride.lab.report.html.figures import figure as framed
from anystride.lab.report.html.plots import Series, plot
from anystride.lab.report.html.tables import html_table
from anystride.lab.report.text import duration_text
from anystride.lab.run.config import RunConfig
from anystride.lab.run.record import Record

RecordOf = Callable[[RunConfig], Record | None]


def tables(grid: Grid, record_of: RecordOf) -> str:
    """Two tables: accuracies under each budget, and hours of training."""
    found = points(grid, record_of)
    body = [
        [
            f"{each.limit / 1e6:.2f}",
            escape(TITLES[each.learned.series]),
            _told(each.learned),
            _told(each.strided),
            "-" if each.gain is None else f"{each.gain:+.1f}",
            _told(each.spectral),
            _told(each.fitted),
        ]
        for each in sorted(rivals(found), key=lambda each: (each.limit, each.learned.series))
    ]
    heads = [
        "budget, MMAC",
        "learned by",
        "learned, %",
        "best strided within it, %",
        "gain",
        "best spectral within it, %",
        "fitted, not learned, %",
    ]
    text = html_table(heads, body, "Accuracy under a budget; below each, its strides or budget and its costs")
    hours = [
        [
            escape(SERIES[name]),
            str(len(mine)),
            duration_text(3600 * sum(point.hours for point in mine) / len(mine)),
            duration_text(3600 * sum(point.hours for point in mine)),
        ]
        for name in dict.fromkeys(point.series for point in found)
        for mine in ([point for point in found if point.series == name],)
    ]
    heads = ["", "configurations", "one run", "all of them"]
    return text + html_table(heads, hours, "Time of training, one seed of each; a run on one processor core")


def _told(point: Point | None) -> str:
    if point is None:
        return "-"
    spread = "" if point.sd is None else f" ± {point.sd:.1f}"
    runs = "1 run" if point.seeds == 1 else f"{point.seeds} runs"
    below = f"{escape(point.name)}, {point.macs / 1e6:.2f} MMAC, {runs}"
    return f'{point.accuracy:.1f}{spread}<span class="known">{below}</span>'


def figure(grid: Grid, record_of: RecordOf) -> str:
    """Means over seeds, with a line along each method's front."""
    found, series = points(grid, record_of), []
    names = dict.fromkeys(point.series for point in found)
    for name in names:
        mine = [point for point in found if point.series == name]
        best = front(mine)
        series.append(Series(METHOD_COLOURS[name], [_mark(point) for point in best], line=True))
        series += [Series(METHOD_COLOURS[name], [_mark(point)], hollow=True) for point in mine if point not in best]
    keys = {SERIES[name]: METHOD_COLOURS[name] for name in names}
    caption = (
        "Accuracy against multiply-accumulates, means over seeds. Discs on a line: no cheaper strides of the same "
    )
    caption += "kind are as good. Rings: the others."
    return framed(plot(series, "million multiply-accumulates per example", "accuracy (%)", log=True), caption, keys)


def _mark(point: Point) -> tuple[float, float, str]:
    text = f"{SERIES[point.series]} {point.name}\n{point.accuracy:.1f} %, {point.macs / 1e6:.2f} MMAC"
    return point.macs / 1e6, point.accuracy, text
