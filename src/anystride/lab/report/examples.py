"""A sheet of test examples: images, spectrograms or series, each with its class and what the network says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from anystride.lab.data.images import displayed as without_normalisation
from anystride.lab.data.source import Source
from anystride.lab.models.registry import ARCHITECTURES, SOUND_AXES
from anystride.lab.report.colours import stride_colour
from anystride.lab.report.figure import new_figure, save_figure
from anystride.lab.report.fonts import note, shown
from anystride.lab.run.config import RunConfig

MOST = 60
"""Examples on a sheet."""
TWICE = 10
"""Classes up to which two examples of each are shown."""
SEARCHED = 2048
"""Test examples that are looked through for all classes."""
RIGHT, WRONG = "#0072B2", "#D55E00"

Kind = Literal["image", "spectrogram", "series"]
COLUMNS: dict[Kind, int] = {"image": 10, "spectrogram": 8, "series": 4}
"""Examples side by side at most."""
WIDTHS: dict[Kind, float] = {"image": 1.35, "spectrogram": 1.7, "series": 2.6}
"""Inches of an example."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sheet:
    """What a sheet shows.

    Args:
        images: one per example: (H, W) grey, (H, W, 3) in [0, 1], (time, frequency), or (C, T) for a series.
        labels: the number of the class of each.
        guesses: the number of the class that the network says.
        classes: names of all classes.
        kind: what the images are.
    """

    images: Sequence[Array]
    labels: Sequence[int]
    guesses: Sequence[int]
    classes: Sequence[str]
    kind: Kind = "image"


def chosen(source: Source) -> Tensor:
    """Rows of test examples: of each class two, or one where classes are many; at most MOST."""
    rows = torch.linspace(0, source.test_length - 1, min(source.test_length, SEARCHED)).long()
    labels = torch.cat([source.test_batch(part)[1] for part in rows.split(source.test_rows)])
    each = 2 if len(source.classes) <= TWICE else 1
    found = [rows[labels == label][:each] for label in labels.unique().tolist()]
    return torch.cat(found)[:MOST]


def kind_of(config: RunConfig) -> Kind:
    """What the inputs of a run are."""
    axes = ARCHITECTURES[config.model].axes
    if len(axes) == 1:
        return "series"
    return "spectrogram" if axes == SOUND_AXES else "image"


def displayed(inputs: Tensor, source: Source, config: RunConfig) -> list[Array]:
    """Inputs (N, C, ...) as they are shown: images in [0, 1] as they were before they were normalised."""
    kind = kind_of(config)
    if kind == "series":
        return list(inputs.numpy())
    if kind == "image" and "mean" in source.preprocessing:
        inputs = without_normalisation(inputs, source.preprocessing)
    arrays = inputs.permute(0, 2, 3, 1).numpy()
    return [array if array.shape[-1] == 3 else array[..., 0] for array in arrays]


def draw(sheet: Sheet, path: Path) -> None:
    """Draw a sheet: the class above each example, what the network says below it, with "✓" or "✗"."""
    names = shown(sheet.classes, longest=34, width=18)
    count = len(sheet.images)
    rows = -(-count // COLUMNS[sheet.kind])
    columns = -(-count // rows)
    figure, axes = new_figure(rows, columns, panel=(WIDTHS[sheet.kind], 1.85), least=6.5, gap=0.08)
    for panel in axes.flat[count:]:
        panel.axis("off")
    for panel, image, label, guess in zip(axes.flat, sheet.images, sheet.labels, sheet.guesses, strict=False):
        draw_input(panel, image, sheet.kind)
        panel.set_title(names[label], fontsize=8)
        mark, colour = ("✓", RIGHT) if label == guess else ("✗", WRONG)
        panel.set_xlabel(f"{mark} {names[guess]}", fontsize=8, color=colour)
    figure.suptitle(_title(sheet), fontsize=10)
    if text := note(sheet.classes):
        figure.supxlabel(text, fontsize=8)
    save_figure(figure, path)


def _title(sheet: Sheet) -> str:
    right = sum(label == guess for label, guess in zip(sheet.labels, sheet.guesses, strict=True))
    seen, every = len(set(sheet.labels)), len(sheet.classes)
    what = {"image": "images", "spectrogram": "spectrograms (time runs to the right)", "series": "series"}[sheet.kind]
    text = f"Test {what}: class above, prediction below; {right} of {len(sheet.labels)} right"
    return text if seen == every else f"{text}\n{seen} of {every} classes are shown"


def draw_input(panel: Axes, image: Array, kind: Kind) -> None:
    """Draw one input of a network into a panel without ticks."""
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    if kind == "series":
        for number, channel in enumerate(image):
            panel.plot(channel, linewidth=0.8, color=stride_colour(number))
        return
    if kind == "spectrogram":
        panel.imshow(np.asarray(image).T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
    elif image.ndim == 2:
        panel.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    else:
        panel.imshow(image, interpolation="nearest")
    panel.spines[:].set(visible=True, color="#CCCCCC", linewidth=0.6)
