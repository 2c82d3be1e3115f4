"""Strides that move as in training, but too little to change the sizes of maps."""

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
    """A function that moves the learned strides of a module. Then nothing that was made for the last step fits.

    Around a whole stride the output size stays while a stride of "outer" falls and while one of "inner" rises. A stride
    of "outer" at the lower end of its range can only rise.

    Args:
        module: the network or layer.
        step: how far each call moves a stride.
        lengths: of the map's axes, for the lower end of the range; without them, a stride of at most 1.5 rises.
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
