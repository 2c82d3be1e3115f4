"""Functions that draw one picture from numbers and save it; `gallery` finds the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.report.terminal import Group
from anystride.ops.window import window

# Okabe and Ito's palette, for every common kind of colour vision.
METHOD_COLOURS = {
    "strided": "#555555",
    "spectral": "#E69F00",
    "outer": "#0072B2",
    "inner": "#009E73",
    "cosine": "#D55E00",
}
METHOD_MARKERS = {"strided": "s", "spectral": "D", "outer": "o", "inner": "^", "cosine": "v"}
STAGE_COLOURS = ("#0072B2", "#D55E00", "#009E73")
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

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AxisSpectrum:
    """One axis of the map that enters a downsampler: `energy` (length // 2 + 1,) at frequencies 0 .. length // 2."""

    energy: Floats
    start_length: int
    start_stride: float
    length: int
    stride: float


def stride_trajectories(groups: Sequence[Group], path: Path) -> None:
    """Figure 3a of the paper: strides over the epochs; one panel per start (row) and method (column)."""
    starts = list(dict.fromkeys(each.start for each in groups))
    methods = list(dict.fromkeys(each.method for each in groups))
    figure, axes = _figure(len(starts), len(methods), panel=(4.2, 2.7), sharex=True, sharey=True)
    for each in groups:
        panel = axes[starts.index(each.start), methods.index(each.method)]
        panel.set_title(f"{DOWNSAMPLERS[each.method].title}, from {each.start_text}")
        for seed, record in enumerate(each.records):
            curve = np.array([record.start_strides, *(epoch["strides"] for epoch in record.epochs)])
            for stage, colour in enumerate(STAGE_COLOURS):
                style = {"color": colour, "alpha": 1.0 if seed == 0 else 0.35, "linewidth": 1.8 if seed == 0 else 1.0}
                panel.plot(curve[:, stage, 0], **style)
                panel.plot(curve[:, stage, 1], linestyle=(0, (3, 1.5)), **style)
                if seed == 0:
                    panel.plot(0, curve[0, stage, 0], "o", color=colour, markersize=5, clip_on=False)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    for panel in axes[-1]:
        panel.set_xlabel("epoch")
    for panel in axes[:, 0]:
        panel.set_ylabel("stride")
    handles = [Line2D([], [], color=colour, label=f"stage {n}") for n, colour in enumerate(STAGE_COLOURS, start=2)]
    handles.append(Line2D([], [], color="#444444", label="vertical"))
    handles.append(Line2D([], [], color="#444444", linestyle=(0, (3, 1.5)), label="horizontal"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    _save(figure, path)


def windows_over_spectrum(
    spectra: Sequence[tuple[AxisSpectrum, AxisSpectrum]], smoothness: float, ramp: str, title: str, path: Path
) -> None:
    """The energy that reaches each downsampler, below its window at the start and its learned window.

    `spectra` has a (vertical, horizontal) pair per stage. Frequencies are in cycles per pixel of the map of that stage.
    """
    figure, axes = _figure(2, len(spectra), panel=(3.5, 2.3), sharex=True)
    for column, pair in enumerate(spectra):
        for row, (direction, axis) in enumerate(zip(("vertical", "horizontal"), pair, strict=True)):
            panel = axes[row, column]
            _energy(panel, axis)
            gains = panel.twinx()
            colour = STAGE_COLOURS[column]
            _gain(gains, axis.start_length, axis.start_stride, smoothness, ramp, "#444444", (0, (3, 1.5)))
            _gain(gains, axis.length, axis.stride, smoothness, ramp, colour, "-")
            gains.set_ylim(0, 1.05)
            gains.grid(False)
            gains.set_yticks([0, 0.5, 1] if column == len(spectra) - 1 else [])
            panel.set_title(f"stage {column + 2}, {direction}: stride {axis.start_stride:.2f} to {axis.stride:.2f}")
            if column == 0:
                panel.set_ylabel("energy, relative")
            if column == len(spectra) - 1:
                gains.set_ylabel("window")
            if row == 1:
                panel.set_xlabel("frequency (cycles per pixel)")
    figure.suptitle(title)
    handles = [
        Patch(color="#BBBBBB", label="energy of the map that enters"),
        Line2D([], [], color="#444444", linestyle=(0, (3, 1.5)), label="window at the start"),
        Line2D([], [], color=STAGE_COLOURS[0], label="window learned"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    _save(figure, path)


def _energy(panel: Axes, axis: AxisSpectrum) -> None:
    relative = np.maximum(axis.energy / axis.energy.max(), 1e-12)
    frequency = np.arange(len(relative)) / axis.length
    panel.bar(frequency, relative, width=0.8 / axis.length, color="#BBBBBB", bottom=0)
    panel.set_yscale("log")
    panel.set_ylim(relative.min() / 3, 2)
    panel.set_xlim(-0.02, 0.52)


def _gain(panel: Axes, length: int, stride: float, smoothness: float, ramp: str, colour: str, line: Any) -> None:
    frequency = torch.linspace(0, length / 2, 400)
    gain = window(frequency, length, stride, smoothness, ramp)
    panel.plot(frequency / length, gain, color=colour, linestyle=line, linewidth=1.8)


def feature_maps(
    scene: Floats, before: Floats, rows: Sequence[tuple[str, Sequence[tuple[str, Floats]]]], path: Path
) -> None:
    """The same feature map after each downsampler: one row per stride, one column per method, one colour scale."""
    columns = 1 + len(rows[0][1])
    figure, axes = _figure(len(rows), columns, panel=(1.75, 1.95))
    largest = float(np.abs(before).max())
    _picture(axes[0, 0], scene, f"scene\n{_size(scene)}", cmap="gray_r")
    _picture(axes[1, 0], before, f"feature map\n{_size(before)}", cmap="RdBu_r", vmin=-largest, vmax=largest)
    for row, (label, maps) in enumerate(rows):
        for column, (title, image) in enumerate(maps, start=1):
            panel = axes[row, column]
            _picture(panel, image, f"{title}\n{_size(image)}", cmap="RdBu_r", vmin=-largest, vmax=largest)
        axes[row, 1].set_ylabel(label, fontsize=10)
    figure.suptitle("One feature map after each downsampler")
    _save(figure, path)


def image_sheet(images: npt.NDArray[np.float32], labels: Sequence[str], title: str, path: Path) -> None:
    """Images (n, H, W) or (n, H, W, 3) with their labels, ten to a row."""
    columns = min(10, len(images))
    rows = -(-len(images) // columns)
    figure, axes = _figure(rows, columns, panel=(1.0, 1.15))
    for panel in axes.flat[len(images) :]:
        panel.axis("off")
    for panel, image, label in zip(axes.flat, images, labels, strict=False):
        _picture(panel, image, label, cmap="gray_r", vmin=0, vmax=1)
    figure.suptitle(title)
    _save(figure, path)


def accuracy_chart(groups: Sequence[Group], path: Path) -> None:
    """Accuracy from each start (left), and against the cost of the trained network (right)."""
    figure, axes = _figure(1, 2, panel=(4.0, 3.2), sharey=True)
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
    figure.legend(*by_start.get_legend_handles_labels(), loc="outside lower center", ncols=len(methods))
    _save(figure, path)


def _figure(rows: int, columns: int, panel: tuple[float, float], **options: Any) -> tuple[Figure, npt.NDArray[Any]]:
    plt.rcParams.update(STYLE)
    size = (panel[0] * columns, panel[1] * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    return figure, axes


def _picture(panel: Axes, image: npt.NDArray[Any], title: str, **options: Any) -> None:
    panel.imshow(image, interpolation="nearest", **options)
    panel.set_title(title, fontsize=8.5)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    panel.spines[:].set_visible(False)


def _size(image: npt.NDArray[Any]) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
