"""Costs of a model, from one forward pass that leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from anystride import learned_strides, macs
from anystride.lab.models import release
from anystride.lab.models.network import Network

COUNTER = 2
"""Version of what `anystride.macs` counts. It is to be raised when a network gets another number; records carry it."""


def learned(model: nn.Module) -> dict[str, Tensor]:
    """The strides of all learned layers in use, by their names: ours, or those of the authors' release."""
    return learned_strides(model) or release.learned_strides(model)


def multiply_accumulates(model: Network, image: Tensor) -> int:
    """Multiply-accumulates of one forward pass for one input (1, C, H, W), in convolutions and matrix products.

    A series is (1, C, T). The pooling operator is two matrix products; its own cost is counted, too.
    """
    return int(macs(model, image).item())


def map_sizes(model: Network, image: Tensor) -> list[list[int]]:
    """Height and width of the feature map after each stage for `image` (1, C, H, W), or its length for (1, C, T)."""
    sizes: list[list[int]] = []

    def record_size(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append(list(output.shape[2:]))

    handles = [stage.register_forward_hook(record_size) for stage in model.stages]
    with _evaluating(model):
        model(image)
    for handle in handles:
        handle.remove()
    return sizes


def entering_length(sizes: Sequence[Sequence[int]], strides: Sequence[Sequence[float]], number: int, axis: int) -> int:
    """Samples along an axis of the map that enters a downsampler, of `map_sizes` and the strides of all downsamplers.

    The map that enters the first one is not listed where entry 0 is what leaves it: then it is what its stride says, 32
    at least.
    """
    before = number - (len(sizes) == len(strides))
    if 0 <= before < len(sizes) and axis < len(sizes[before]):
        return sizes[before][axis]
    return max(32, round(sizes[0][min(axis, len(sizes[0]) - 1)] * strides[0][axis]))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    before = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        # Lightning keeps the mode that it finds: a model left in evaluation mode would train with frozen statistics.
        model.train(before)
