"""How maps lie in memory and in which type they run, and the convolution of a program."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anystride.ops.costs import COSTS
from anystride.ops.program import Convolve

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, how: Convolve) -> Tensor:
    """The convolution of a program: (N, C, *spatial) to (N, channels, *how.size)."""
    x, how = _padded(x, how)
    return _CONVOLUTIONS[len(how.stride) - 1](x, weight, bias, how.stride, how.padding, how.dilation, how.groups)


def _padded(x: Tensor, how: Convolve) -> tuple[Tensor, Convolve]:
    """The map with what lies beyond its border, where these are not zeros, and the convolution that is left."""
    if how.border == "zeros" or not any(how.padding):
        return x, how
    sides = [each for padding in reversed(how.padding) for each in (padding, padding)]
    return F.pad(x, sides, mode=how.border), how._replace(padding=(0,) * len(how.padding))


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, how: Convolve, wanted: list[bool]
) -> tuple[Any, Tensor | None, Tensor | None]:
    """Gradients of `convolve` by its map, its weight and its bias, where they are `wanted`."""
    wide, left = _padded(x, how)
    found: tuple[Any, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        grad,
        wide,
        weight,
        [len(weight)] if wanted[2] else None,
        left.stride,
        left.padding,
        left.dilation,
        False,
        [0] * len(left.stride),
        left.groups,
        wanted,
    )
    if left is how or not wanted[0]:
        return found
    return _folded(found[0], how.padding), *found[1:]


def _folded(grad: Tensor, padding: Sequence[int]) -> Tensor:
    """The gradient by a map from that by the map with circular padding."""
    for axis, p in enumerate(padding):
        n = grad.shape[2 + axis] - 2 * p
        at = (torch.arange(n + 2 * p, device=grad.device) - p) % n
        empty = grad.new_zeros(*grad.shape[: 2 + axis], n, *grad.shape[3 + axis :])
        grad = empty.index_add(2 + axis, at, grad) if p else grad
    return grad


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
