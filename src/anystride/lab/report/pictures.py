"""Functions that draw one picture from numbers and save it; `gallery` finds the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.registry import ARCHITECTURES
from anystride.lab.report.colours import METHOD_COLOURS, METHOD_MARKERS, stride_colour
from anystride.lab.report.figure import add_legend, new_figure, save_figure
from anystride.lab.report.terminal import Group
from anystride.lab.run.record import Record
from anystride.ops.window import window

AXIS_LINES: Any = ("-", (0, (3, 1.5)))
DASHED: Any = (0, (3, 1.5))
WIDE = 4
"""Strides from which on figures of them are wider."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AxisSpectrum:
    """One axis of the map that enters a downsampler.

    Args:
        name: of the axis.
        energy: (length // 2 + 1,), at frequencies 0 .. length // 2.
        length: samples of the map along it.
        start_length: the same before the training.
        start_stride: before the training.
        stride: after it.
    """

    name: str
    energy: Floats
    length: int
    start_length: int
    start_stride: float
    stride: float


def stride_trajectories(groups: Sequence[Group], path: Path) -> None:
    """Figure 3a of the paper: strides over the epochs; one panel per start (row) and method (column)."""
    starts = list(dict.fromkeys(each.start for each in groups))
    methods = list(dict.fromkeys(each.method for each in groups))
    width = 4.2 if len(groups[0].start) < WIDE or len(methods) > 1 else 5.4
    figure, panels = new_figure(len(starts), len(methods), panel=(width, 2.7), sharex=True, sharey=True)
    axes = ARCHITECTURES[groups[0].records[0].config.model].axes
    for each in groups:
        panel = panels[starts.index(each.start), methods.index(each.method)]
        panel.set_title(f"{DOWNSAMPLERS[each.method].title}, from {_wrapped(each.start_text)}")
        for seed, record in enumerate(each.records):
            _trajectory(panel, record, len(axes), is_first=seed == 0)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    for panel in panels[-1]:
        panel.set_xlabel("epoch")
    for panel in panels[:, 0]:
        panel.set_ylabel("stride")
    count = len(groups[0].start)
    handles = [Line2D([], [], color=stride_colour(n), label=f"stride {n + 1}") for n in range(count)]
    if len(axes) > 1:
        lines = zip(axes, AXIS_LINES, strict=False)
        handles += [Line2D([], [], color="black", linestyle=line, label=name) for name, line in lines]
    add_legend(figure, handles)
    save_figure(figure, path)


def _trajectory(panel: Axes, record: Record, axes: int, is_first: bool) -> None:
    curve = np.array([record.start_strides, *(epoch["strides"] for epoch in record.epochs)], dtype=float)
    for number in reversed(range(curve.shape[1])):  # the first ones lie on top
        style: Any = {
            "color": stride_colour(number),
            "alpha": 1.0 if is_first else 0.35,
            "linewidth": 1.8 if is_first else 1,
        }
        for axis in range(axes):
            panel.plot(curve[:, number, axis], linestyle=AXIS_LINES[axis], **style)
        if is_first:
            panel.plot(0, curve[0, number, 0], "o", color=stride_colour(number), markersize=5, clip_on=False)


def windows_over_spectrum(
    spectra: Sequence[Sequence[AxisSpectrum]], smoothness: float, ramp: str, heading: str, path: Path
) -> None:
    """The energy that reaches each downsampler, below its window at the start and its learned window.

    Frequencies are in cycles per sample of the map that enters.

    Args:
        spectra: per downsampler, the axes of its map.
        smoothness: R of Eq. 3.
        ramp: of the windows.
        heading: stands above.
        path: of the picture.
    """
    width = 3.5 if len(spectra) < WIDE else 2.7
    figure, axes = new_figure(len(spectra[0]), len(spectra), panel=(width, 2.3), least=7.2, sharex=True)
    for column, pair in enumerate(spectra):
        for row, axis in enumerate(pair):
            panel = axes[row, column]
            _energy(panel, axis)
            gains = panel.twinx()
            _gain(gains, axis.start_length, axis.start_stride, smoothness, ramp, "#444444", DASHED)
            _gain(gains, axis.length, axis.stride, smoothness, ramp, stride_colour(column), "-")
            gains.set_ylim(0, 1.05)
            gains.grid(False)
            gains.set_yticks([0, 0.5, 1] if column == len(spectra) - 1 else [])
            title = f"stride {column + 1}, {axis.name}: {axis.start_stride:.2f} to {axis.stride:.2f}"
            panel.set_title(title, fontsize=9)
            if column == 0:
                panel.set_ylabel("energy, relative")
            if column == len(spectra) - 1:
                gains.set_ylabel("window")
            if row == len(pair) - 1:
                panel.set_xlabel("frequency (cycles per sample)")
    figure.suptitle(heading)
    handles = [
        Patch(color="#BBBBBB", label="energy of the map that enters"),
        Line2D([], [], color="#444444", linestyle=DASHED, label="window at the start"),
        Line2D([], [], color=stride_colour(0), label="window learned, a colour per stride"),
    ]
    add_legend(figure, handles, entry=2.2)
    save_figure(figure, path)


def _wrapped(strides: str) -> str:
    """Strides of a title: in a line of their own where they are many."""
    return strides if len(strides) < 24 else f"\n{strides}"


def _energy(panel: Axes, axis: AxisSpectrum) -> None:
    relative = np.maximum(axis.energy / (axis.energy.max() or 1.0), 1e-12)
    frequency = np.arange(len(relative)) / axis.length
    panel.bar(frequency, relative, width=0.8 / axis.length, color="#BBBBBB", bottom=0)
    panel.set_yscale("log")
    panel.set_ylim(relative.min() / 3, 2)
    panel.set_xlim(-0.02, 0.52)


def _gain(panel: Axes, length: int, stride: float, smoothness: float, ramp: str, colour: str, line: Any) -> None:
    frequency = torch.linspace(0, length / 2, 400)
    gain = window(frequency, length, stride, smoothness, ramp)
    panel.plot(frequency / length, gain, color=colour, linestyle=line, linewidth=1.8)


def accuracy_chart(groups: Sequence[Group], path: Path) -> None:
    """Accuracy from each start (left), and against the cost of the trained network (right)."""
    figure, axes = new_figure(1, 2, panel=(4.0, 3.2), sharey=True)
    by_start, by_cost = axes[0]
    starts = {each.start: each.start_text for each in groups}
    methods = list(dict.fromkeys(each.method for each in groups))
    for number, method in enumerate(methods):
        mine = [each for each in groups if each.method == method]
        style = {"color": METHOD_COLOURS[method], "marker": METHOD_MARKERS[method], "label": DOWNSAMPLERS[method].title}
        shift = 0.03 * (number - (len(methods) - 1) / 2)
        x = [list(starts).index(each.start) + shift for each in mine]
        y = [each.accuracy for each in mine]
        by_start.plot(x, y, linewidth=1.8, **style)
        if any(each.deviation for each in mine):
            deviations = [each.deviation or 0.0 for each in mine]
            by_start.errorbar(x, y, deviations, color=style["color"], linestyle="none", capsize=3)
        by_cost.plot([each.mega_macs for each in mine], y, color=style["color"], linewidth=0.8, alpha=0.6)
        for each in mine:
            fill = style["color"] if each.start == groups[-1].start else "white"
            by_cost.plot(
                each.mega_macs, each.accuracy, style["marker"], color=style["color"], markerfacecolor=fill, markersize=7
            )
    by_start.set_xticks(range(len(starts)), list(starts.values()))
    by_start.set_xlim(-0.3, len(starts) - 0.7)
    by_start.set_ylim(0, 101)
    by_start.set_xlabel("strides at the start")
    by_start.set_ylabel("test accuracy (%)")
    by_cost.set_xscale("log", base=2)
    by_cost.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    by_cost.set_xlabel("million multiply-accumulates per image, after training")
    for text, fill in ((starts[groups[0].start], "white"), (starts[groups[-1].start], "#444444")):
        by_cost.plot([], [], "o", color="#444444", markerfacecolor=fill, label=f"from {text}")
    by_cost.legend(loc="lower right")
    add_legend(figure, by_start.get_legend_handles_labels()[0], entry=1.9)
    save_figure(figure, path)
