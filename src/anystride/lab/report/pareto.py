"""The picture of a search: accuracy against multiply-accumulates, each point a mean over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from anystride.lab.paper.front import SERIES, Point, front
from anystride.lab.report.colours import METHOD_COLOURS, METHOD_MARKERS
from anystride.lab.report.figure import add_legend, new_figure, save_figure

ROOM = 1.5
"""Percentage points below the worst point of a front that are shown: what is worse is cut off."""


def draw(found: Sequence[Point], path: Path, heading: str) -> None:
    """Save the picture.

    Args:
        found: all points.
        path: of the picture, a PNG.
        heading: stands above.
    """
    figure, panels = new_figure(1, 1, panel=(6.6, 3.9))
    panel: Axes = panels[0, 0]
    panel.set_title(heading)
    for name in _series(found):
        mine = [point for point in found if point.series == name]
        best = front(mine)
        colour, marker = METHOD_COLOURS[name], METHOD_MARKERS[name]
        x, y = [point.macs / 1e6 for point in best], [point.accuracy for point in best]
        title = SERIES[name] + (f", {len(mine)} strides" if name == "strided" else "")
        panel.plot(x, y, color=colour, marker=marker, markersize=6, linewidth=1.8, label=title)
        panel.errorbar(x, y, [point.sd or 0 for point in best], color=colour, linestyle="none", capsize=2.5)
        others = [point for point in mine if point not in best]
        panel.plot(
            [point.macs / 1e6 for point in others],
            [point.accuracy for point in others],
            marker,
            color=colour,
            markersize=4,
            alpha=0.45,
        )
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "235" else "")
    lowest = min(point.accuracy for point in found)
    fronts = min(min(point.accuracy for point in front([p for p in found if p.series == s])) for s in _series(found))
    panel.set_ylim(bottom=max(lowest - 0.5, fronts - ROOM))
    panel.set_xlabel("million multiply-accumulates per image (logarithmic)")
    panel.set_ylabel("test accuracy (%)")
    add_legend(figure, panel.get_legend_handles_labels()[0], entry=2.1)
    save_figure(figure, path)


def _series(found: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.series for point in found))
