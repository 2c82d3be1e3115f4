"""How maps lie in memory and in which type they run, and the convolution of a program."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anystride.ops.costs import COSTS
from anystride.ops.program import Convolve

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, how: Convolve) -> Tensor:
    """The convolution of a program: (N, C, *spatial) to (N, channels, *how.size)."""
    return _CONVOLUTIONS[len(how.stride) - 1](x, weight, bias, how.stride, how.padding, how.dilation, how.groups)


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, how: Convolve, wanted: list[bool]
) -> tuple[Any, Tensor | None, Tensor | None]:
    """Gradients of `convolve` by its map, its weight and its bias, where they are `wanted`."""
    found: tuple[Any, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        [len(weight)] if wanted[2] else None,
        how.stride,
        how.padding,
        how.dilation,
        False,
        [0] * len(how.stride),
        how.groups,
        wanted,
    )
    return found


def quick_layout(x: Tensor) -> Tensor:
    """On a CPU, channels last: a convolution of so large a stride takes half as long; but not for a few channels."""
    if x.device.type != "cpu" or x.dim() < 4:
        return x
    return _channels_last(x) if x.shape[1] >= COSTS.channels_last else x.contiguous()


def as_laid_out(x: Tensor, y: Tensor) -> Tensor:
    """`y` in the order in which `x` lies."""
    if x.is_contiguous() or x.dim() < 4:
        return y.contiguous()
    return _channels_last(y) if x.movedim(1, -1).is_contiguous() else y


def _channels_last(x: Tensor) -> Tensor:
    # As `contiguous` with a memory format, which torch.func.vmap does not know.
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def autocast(x: Tensor) -> Tensor:
    """Under autocast, the operator is a matrix product like any other: it runs in autocast's type."""
    if x.dtype == torch.float32 and not x.is_meta and torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x
