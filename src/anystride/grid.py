"""`regrid_`: when the sizes of learned maps may change, for layers whose `grid` is "fixed"."""

from typing import Any

from torch import nn

from anystride.execution import Execution
from anystride.layers import DiffStrideNd


def regrid_(model: nn.Module, example_input: Any = None) -> nn.Module:
    """Let the maps of layers with `grid="fixed"` take the sizes of their present strides, in place.

    Between two calls these layers move their windows on grids that stand still, so a compiled network stays as it is
    and runs as a CUDA graph or on a TPU. Call it once before compiling, then for example at the start of each epoch: a
    network whose sizes changed is compiled anew at its next step. Layers with other grids are left alone.

    Args:
        model: the network, not its compiled wrapper.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; only shapes matter. The new sizes
            are noted for it at once, which `torch.compile` needs. Without it, the next call notes them.

    Returns:
        `model`.

    Example:
        >>> import torch
        >>> from anystride import DiffStride2d
        >>> model, x = nn.Sequential(DiffStride2d(2.0, ramp="inner", grid="fixed")), torch.randn(1, 3, 32, 32)
        >>> _ = regrid_(model, x), model[0].stride.data.fill_(2.5)
        >>> model(x).shape, regrid_(model, x)(x).shape
        (torch.Size([1, 3, 16, 16]), torch.Size([1, 3, 13, 13]))
    """
    for module in model.modules():
        if isinstance(module, DiffStrideNd):
            module.regrid()
    if example_input is not None:
        try:
            Execution().run(model, example_input, training=model.training)
        except Exception:  # it cannot run on tensors without data
            Execution().run(model, example_input, training=model.training, meta=False)
    return model
