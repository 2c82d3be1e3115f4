"""What every network of the lab has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Images or spectrograms (N, C, H, W) or series (N, C, T) to logits (N, sum of heads), one task's after another's.

    `stages` are the parts whose outputs' heights and widths, or lengths, a record lists. Where the first downsampler
    comes after a stage of full size, entry 0 is the map before it (ResNet-18 with three strides, DenseNet, series);
    elsewhere entry 0 is the map after it.
    """

    stages: nn.Sequential


def in_fast_layout(network: nn.Module) -> Any:
    """The network with its weights in channels last, in which a step takes 0.6 to 0.9 times as long on a CPU.

    One with strided 1x1 convolutions of fewer than 8 channels stays as it is: there torch 2.11 writes beyond its memory
    in the backward pass of channels last, on some CPUs.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if any(c.in_channels < 8 and max(c.kernel_size) == 1 and max(c.stride) > 1 for c in convolutions):
        return network
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Heads(nn.Module):
    """A linear layer per task on shared features (N, features); their logits side by side (N, sum of sizes)."""

    def __init__(self, features: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.tasks = nn.ModuleList(nn.Linear(features, size) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([task(x) for task in self.tasks], dim=1)


def linear_heads(features: int, heads: int | Sequence[int]) -> nn.Module:
    """The last layer for tasks with the given numbers of classes; a plain linear layer for one task.

    Raises:
        ValueError: a task has no class, or there is no task.
    """
    sizes = [heads] if isinstance(heads, int) else list(heads)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"heads must give at least one class for each task, got {sizes}")
    return nn.Linear(features, sizes[0]) if len(sizes) == 1 else Heads(features, sizes)
