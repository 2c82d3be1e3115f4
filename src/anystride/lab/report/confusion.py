"""The picture of a confusion matrix, for two classes and for hundreds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm

from anystride.lab.report.figure import save_figure
from anystride.lab.report.fonts import note, shown

CELL, SMALLEST, LARGEST = 0.4, 3.0, 16.0
"""Inches: of a class, and of the whole matrix at least and at most."""
NUMBERED = 20
"""Classes up to which each cell shows its number."""
FONT, SMALLEST_FONT = 9.0, 4.0
"""Points."""
LONGEST = 24
"""Characters of a class's name."""


def draw(confusion: npt.NDArray[np.int64], classes: Sequence[str], title: str, path: Path) -> None:
    """Draw a matrix and save it.

    Colours are shares of the examples of each class, on a scale that shows rare errors, too. With many classes names
    become smaller, and from some hundred on only some are shown.

    Args:
        confusion: (n, n), a row for each class of the examples and a column for each guess.
        classes: their n names.
        title: stands above.
        path: a .png file.
    """
    count = len(classes)
    side = min(max(CELL * count, SMALLEST), LARGEST)
    points = 72 * side / count
    step = max(1, int(np.ceil(SMALLEST_FONT / (0.9 * points))))
    font = min(FONT, max(SMALLEST_FONT, 0.9 * points * step))
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    names = shown(classes, LONGEST)
    margin = 0.6 + 0.6 * font * max(map(len, names)) / 72
    figure, panel = plt.subplots(figsize=(side + margin + 1.2, side + margin + 0.4), layout="constrained", dpi=150)
    image = panel.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    panel.grid(False)
    panel.set_xticks(range(0, count, step), names[::step], rotation=90, fontsize=font)
    panel.set_yticks(range(0, count, step), names[::step], fontsize=font)
    panel.set_xlabel("class that the network says")
    panel.set_ylabel("class of the example")
    figure.suptitle(title, fontsize=10)
    if count <= NUMBERED:
        _write_numbers(panel, confusion, shares, min(9.0, 1.3 * points / len(f"{confusion.max():,}")))
    bar = figure.colorbar(image, ax=panel, shrink=min(0.9, 4 / side), ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "5 %", "25 %", "50 %", "100 %"])
    bar.set_label("share of the class's examples")
    if text := note(classes):
        figure.supxlabel(text, fontsize=8)
    save_figure(figure, path)


def _write_numbers(panel: Axes, confusion: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], size: float) -> None:
    for (row, column), number in np.ndenumerate(confusion):
        if number:
            colour = "white" if shares[row, column] > 0.4 else "black"
            panel.text(column, row, f"{number:,}", ha="center", va="center", color=colour, fontsize=size)
