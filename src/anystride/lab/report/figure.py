"""What all pictures have in common: style, legend, fonts that have the letters, files that are never half written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.text import Text

from anystride.lab.files import replacing
from anystride.lab.report.fonts import families

STYLE: Any = {  # matplotlib types the keys one by one
    "figure.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
GAP = 0.04
"""Inches above and below a row of panels."""
ENTRY, LINE = 1.3, 0.18
"""Inches of an entry of a legend: width and height."""


def new_figure(
    rows: int, columns: int, panel: tuple[float, float], least: float = 0.0, gap: float = GAP, **options: Any
) -> tuple[Figure, npt.NDArray[Any]]:
    """A figure of panels.

    Args:
        rows: of panels.
        columns: of panels.
        panel: (width, height) of each, in inches.
        least: inches that the figure is wide at least.
        gap: inches that are free above and below each row.
        options: of `plt.subplots`.

    Returns:
        The figure, and its panels as (rows, columns).
    """
    plt.rcParams.update(STYLE)
    size = (max(least, panel[0] * columns), panel[1] * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(h_pad=gap)
    return figure, axes


def add_legend(figure: Figure, handles: Sequence[Any], entry: float = ENTRY) -> None:
    """A legend below the panels, in as many columns as there is room for; the figure grows with its rows.

    Args:
        figure: of the panels.
        handles: the entries.
        entry: inches that the longest one takes.
    """
    columns = max(1, min(len(handles), int(figure.get_figwidth() / entry)))
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + LINE * rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and forget it. Each text gets the fonts that have its letters."""
    try:
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_fontfamily(list(families(text.get_text())))
        with replacing(path) as unfinished:
            figure.savefig(unfinished, format="png")
    finally:
        plt.close(figure)
