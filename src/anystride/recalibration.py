"""The statistics of batch normalisation, measured anew on data without labels."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate_(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Let batch norms measure the means and variances of a converted network, in place.

    Conversion replaces strides by low-passes: maps change, and the running statistics of batch norms belong to the maps
    that were. One pass over a few hundred inputs, without labels, brings back much of what a trained network loses.
    Each batch counts the same, so give batches of one size, as large as memory allows and in random order.

    Unlike `torch.optim.swa_utils.update_bn`, only batch norms are in training mode in this pass: dropout and stochastic
    depth stay as in evaluation. Weights do not change. When an error is raised, the statistics are what they were.

    Args:
        model: a network with batch normalisation that keeps running statistics; modes and momenta stay.
        batches: each a tensor, a list or tuple whose first entry is the input, such as (images, labels), or a mapping
            of keyword arguments. Tensors are moved to the device of the model.

    Returns:
        `model`.

    Raises:
        ValueError: the model has no such batch norm, or there is no batch.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8))
        >>> _ = recalibrate_(model, [torch.randn(16, 3, 32, 32) for _ in range(4)])
        >>> int(model[1].num_batches_tracked)
        4
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        raise ValueError("model has no batch normalisation with running statistics, so there is nothing to measure")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    modes = {module: module.training for module in model.modules()}
    kept = [({name: buffer.clone() for name, buffer in norm.named_buffers()}, norm.momentum) for norm in norms]
    seen = 0
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        with torch.no_grad():
            for batch in batches:
                positional, named = _arguments(batch, device)
                model(*positional, **named)
                seen += 1
        if not seen:
            raise ValueError("batches must have at least one batch, got none")
    except BaseException:
        for norm, (buffers, _) in zip(norms, kept, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
        raise
    finally:
        for norm, (_, momentum) in zip(norms, kept, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return model


def _arguments(batch: Any, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the model is called with."""
    if isinstance(batch, Mapping):
        return (), {name: _moved(value, device) for name, value in batch.items()}
    first = batch[0] if isinstance(batch, list | tuple) else batch
    return (_moved(first, device),), {}


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
