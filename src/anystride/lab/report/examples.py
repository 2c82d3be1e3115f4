"""A sheet of test examples: images, spectrograms or series, each with its class and what the network says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from anystride.lab.data.images import displayed as without_normalisation
from anystride.lab.data.source import Source
from anystride.lab.models.registry import ARCHITECTURES, SOUND_AXES
from anystride.lab.report.fonts import shown
from anystride.lab.report.pictures import new_figure, save_figure
from anystride.lab.run.config import RunConfig

MOST = 60
"""Examples on a sheet."""
TWICE = 10
"""Classes up to which two examples of each are shown."""
SEARCHED = 2048
"""Test examples that are looked through for all classes."""
COLUMNS = 10
RIGHT, WRONG = "#0072B2", "#D55E00"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sheet:
    """What a sheet shows.

    Args:
        images: one per example: (H, W) grey, (H, W, 3) in [0, 1], (time, frequency), or (C, T) for a series.
        labels: the number of the class of each.
        guesses: the number of the class that the network says.
        classes: names of all classes.
        is_sound: whether the images are spectrograms.
    """

    images: Sequence[Array]
    labels: Sequence[int]
    guesses: Sequence[int]
    classes: Sequence[str]
    is_sound: bool = False


def chosen(source: Source) -> Tensor:
    """Rows of test examples: of each class two, or one where classes are many; at most MOST."""
    rows = torch.linspace(0, source.test_length - 1, min(source.test_length, SEARCHED)).long()
    labels = torch.cat([source.test_batch(part)[1] for part in rows.split(source.test_rows)])
    each = 2 if len(source.classes) <= TWICE else 1
    found = [rows[labels == label][:each] for label in labels.unique().tolist()]
    return torch.cat(found)[:MOST]


def displayed(inputs: Tensor, source: Source, config: RunConfig) -> list[Array]:
    """Inputs (N, C, ...) as they are shown: images in [0, 1] as they were before they were normalised."""
    if inputs.ndim == 3:
        return list(inputs.numpy())
    if ARCHITECTURES[config.model].axes != SOUND_AXES and "mean" in source.preprocessing:
        inputs = without_normalisation(inputs, source.preprocessing)
    arrays = inputs.permute(0, 2, 3, 1).numpy()
    return [array[..., 0] if array.shape[-1] == 1 else array for array in arrays]


def draw(sheet: Sheet, path: Path) -> None:
    """Draw a sheet: the class above each example, and below it "✓" or what the network says instead."""
    names = shown(sheet.classes, longest=14)
    columns = min(5 if _is_series(sheet.images[0]) else COLUMNS, len(sheet.images))
    rows = -(-len(sheet.images) // columns)
    width = 1.35 if columns == COLUMNS else 2.4
    figure, axes = new_figure(rows, columns, panel=(max(width, 3.4 / columns), 1.65))
    for panel in axes.flat[len(sheet.images) :]:
        panel.axis("off")
    for panel, image, label, guess in zip(axes.flat, sheet.images, sheet.labels, sheet.guesses, strict=False):
        _draw_one(panel, image, sheet.is_sound)
        right = label == guess
        panel.set_title(names[label], fontsize=8)
        text, colour = ("✓", RIGHT) if right else (f"✗ {names[guess]}", WRONG)
        panel.set_xlabel(text, fontsize=8, color=colour)
    count = sum(label == guess for label, guess in zip(sheet.labels, sheet.guesses, strict=True))
    what = "spectrograms (time runs to the right)" if sheet.is_sound else "examples"
    figure.suptitle(f"Test {what}: class above, prediction below; {count} of {len(sheet.labels)} right", fontsize=10)
    save_figure(figure, path)


def _is_series(image: Array) -> bool:
    return image.ndim == 2 and bool(image.shape[0] < 8 and image.shape[1] > 4 * image.shape[0])


def _draw_one(panel: Axes, image: Array, is_sound: bool) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    if _is_series(image):
        panel.plot(image.T, linewidth=0.8)
        return
    if is_sound:
        panel.imshow(np.asarray(image).T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
    elif image.ndim == 2:
        panel.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    else:
        panel.imshow(image, interpolation="nearest")
    panel.spines[:].set_visible(False)
