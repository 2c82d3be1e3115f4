"""One feature map of a network after each downsampler, as in Figure 2b of the paper, in one and in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d

from anystride import DiffStride1d, DiffStride2d, SpectralPool1d, SpectralPool2d
from anystride.lab.models.downsample import DOWNSAMPLERS
from anystride.lab.models.release import LAYERS
from anystride.lab.report.examples import Kind, draw_input
from anystride.lab.report.figure import new_figure, save_figure

STRIDES = (2, 3)
SMALLEST = 8
"""Samples of a map along each axis: of smaller ones, little is left to compare."""

Floats = npt.NDArray[np.float32]
POOLS = (DiffStride1d, DiffStride2d, SpectralPool1d, SpectralPool2d, nn.AvgPool1d, nn.AvgPool2d, *LAYERS)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


class LeftOutError(Exception):
    """A picture that makes no sense for a network; the message says why."""


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    maps: Tensor
    convolution: nn.Module | None


@torch.no_grad()
def first_maps(model: nn.Module, inputs: Tensor) -> Tensor:
    """The maps (N, C, ...) that the first downsampler of a network reduces, before it does so.

    A convolution that downsamples, or that runs within a pooling layer, is computed at stride 1.

    Args:
        model: the network.
        inputs: what it takes.

    Raises:
        LeftOutError: nothing in the network downsamples, or maps are small by then.
    """
    calls: list[_Call] = []

    def keep(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        if isinstance(module, POOLS) or max(module.stride) > 1:  # type: ignore[arg-type]  # of a convolution
            calls.append(_Call(module, arguments[0], options.get("convolution")))

    watched = [module for module in model.modules() if isinstance(module, (*POOLS, *CONVOLUTIONS))]
    handles = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in watched]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    # A pooling layer is where the method stands; other networks downsample by their convolutions alone.
    calls.sort(key=lambda call: not isinstance(call.module, POOLS))
    if not calls:
        raise LeftOutError("nothing in the network downsamples")
    convolution = calls[0].module if isinstance(calls[0].module, CONVOLUTIONS) else calls[0].convolution
    maps = calls[0].maps if convolution is None else _unstrided(convolution, calls[0].maps)
    if min(maps.shape[2:]) < SMALLEST:
        size = " x ".join(map(str, maps.shape[2:]))
        raise LeftOutError(f"the map before the first downsampler has {size} samples, too few to compare")
    return maps


def _unstrided(module: nn.Module, maps: Tensor) -> Tensor:
    assert isinstance(module, CONVOLUTIONS)
    convolve: Any = conv1d if isinstance(module, nn.Conv1d) else conv2d
    convolved: Tensor = convolve(
        maps, module.weight, module.bias, padding=module.padding, dilation=module.dilation, groups=module.groups
    )
    return convolved


@torch.no_grad()
def compared(before: Tensor, smoothness: float) -> list[tuple[str, list[tuple[str, Floats]]]]:
    """A map after each downsampler.

    Args:
        before: one map, (1, 1, T) or (1, 1, H, W).
        smoothness: R of Eq. 3.

    Returns:
        A row for each of `STRIDES`: its title, and the title and the map of each method.
    """
    flat = before.ndim == 3
    spectral, learned = (SpectralPool1d, DiffStride1d) if flat else (SpectralPool2d, DiffStride2d)
    rows = []
    for stride in STRIDES:
        pools: dict[str, nn.Module] = {
            "spectral": spectral(stride),
            "outer": learned(stride, smoothness=smoothness, ramp="outer"),
            "inner": learned(stride, smoothness=smoothness, ramp="inner"),
            "cosine": learned(stride, ramp="cosine"),
        }
        # A strided convolution is the same convolution, of which every S-th value is kept.
        strided = before[..., ::stride] if flat else before[..., ::stride, ::stride]
        after = {"strided": strided, **{name: pool(before) for name, pool in pools.items()}}
        named = [(DOWNSAMPLERS[name].title, pooled[0, 0].numpy()) for name, pooled in after.items()]
        rows.append((f"stride {stride}", named))
    return rows


def draw(image: Floats, kind: Kind, maps: Tensor, smoothness: float, path: Path) -> None:
    """Draw the map that varies most after each downsampler: one row per stride, one column per method, one scale.

    Args:
        image: the input of the network, as `examples.displayed` gives it.
        kind: what it is.
        maps: (1, C, T) or (1, C, H, W), the maps of this input.
        smoothness: R of Eq. 3.
        path: of the picture.
    """
    channel = int(maps.flatten(2).var(dim=2)[0].argmax())
    chosen = maps[:, channel : channel + 1]
    before, rows = chosen[0, 0].numpy(), compared(chosen, smoothness)
    largest = float(np.abs(before).max()) or 1.0
    width = 1.75 if before.ndim == 2 else 2.2
    figure, axes = new_figure(len(rows), 1 + len(rows[0][1]), panel=(width, 1.95))
    draw_input(axes[0, 0], image, kind)
    axes[0, 0].set_title(f"{kind}\n{_size(image[0] if kind == 'series' else image)}", fontsize=8.5)
    _draw_map(axes[1, 0], before, "feature map", kind, largest)
    for row, (label, after) in enumerate(rows):
        for column, (title, pooled) in enumerate(after, start=1):
            _draw_map(axes[row, column], pooled, title.replace(", ", "\n"), kind, largest)
        axes[row, 1].set_ylabel(label, fontsize=10)
    sizes = {"image": "", "spectrogram": " (time x frequency)", "series": " in samples"}[kind]
    figure.suptitle(f"One feature map after each downsampler, with its size{sizes}")
    save_figure(figure, path)


def _draw_map(panel: Axes, values: Floats, title: str, kind: Kind, largest: float) -> None:
    panel.set_title(f"{title}\n{_size(values)}", fontsize=8.5)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    if values.ndim == 1:
        panel.plot(values, linewidth=0.9, color="#0072B2")
        panel.set_ylim(-1.1 * largest, 1.1 * largest)
        return
    colours: Any = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest, "interpolation": "nearest"}
    if kind == "spectrogram":
        panel.imshow(values.T, origin="lower", aspect="auto", **colours)
    else:
        panel.imshow(values, **colours)
    panel.spines[:].set_visible(False)


def _size(values: Floats | Sequence[float]) -> str:
    return " x ".join(map(str, np.shape(values)[:2]))
