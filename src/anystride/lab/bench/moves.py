"""Strides that move as in training, by so little that the sizes of maps stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anystride import DiffStride1d, DiffStride2d, DiffStride3d
from anystride.lab.bench.oracle import FourierStride
from anystride.ops.window import stride_bounds

STEP = 1e-5
LearnedLayer = DiffStride1d | DiffStride2d | DiffStride3d | FourierStride


class Moves:
    """The learned strides of a module. Calling it moves each, so that nothing that was made for the last step fits.

    A whole stride of "outer" keeps its size while it falls, one of "inner" while it rises. One of "outer" that stands
    at the lower end of its range can only rise: where `lengths` of the map's axes are not given, one near 1.
    """

    def __init__(self, module: nn.Module, step: float = STEP, lengths: Sequence[int] | None = None) -> None:
        layers = [each for each in module.modules() if isinstance(each, LearnedLayer)]
        self.steps = [(layer.stride, step * self._direction(layer, lengths)) for layer in layers]

    @staticmethod
    def _direction(layer: LearnedLayer, lengths: Sequence[int] | None) -> Tensor:
        stride = layer.stride.detach()
        if layer.ramp == "inner":
            return torch.ones_like(stride)
        lowest = torch.full_like(stride, 1.5)
        if lengths is not None:
            lowest = torch.tensor([stride_bounds(n)[0] for n in lengths], device=stride.device)
        return torch.where(stride <= lowest, 1.0, -1.0)

    @torch.no_grad()
    def __call__(self) -> None:
        for stride, step in self.steps:
            stride.add_(step)
