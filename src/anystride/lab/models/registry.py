"""The networks of the lab by name: what they take, and how to build them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from anystride import DiffStride2d
from anystride.lab.models import audio, densenet, efficientnet, preact, resnet
from anystride.lab.models.downsample import METHODS
from anystride.lab.models.network import Network

IMAGE_AXES = ("vertical", "horizontal")
SOUND_AXES = ("time", "frequency")


class Builder(Protocol):
    """What every network's function takes."""

    def __call__(
        self,
        heads: int | Sequence[int],
        in_channels: int,
        width: int,
        downsampler: str,
        strides: Sequence[float | Sequence[float]],
        smoothness: float = ...,
        shared: bool = ...,
    ) -> Network: ...


@dataclass(frozen=True)
class Architecture:
    """One network: the possible numbers of ``strides``, the ``methods`` it can downsample by, the names of its axes."""

    title: str
    strides: tuple[int, ...]
    build: Builder
    methods: tuple[str, ...] = METHODS
    axes: tuple[str, str] = IMAGE_AXES


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": Architecture("ResNet-18 for small images", (3, 4), resnet.resnet18),
    "resnet18-imagenet": Architecture("ResNet-18", (4,), resnet.resnet18_imagenet),
    "resnet18-release": Architecture("ResNet-18 of the authors' release", (4,), preact.resnet18_release),
    "densenet-bc": Architecture("DenseNet-BC", (2,), densenet.densenet_bc, methods=densenet.METHODS),
    "efficientnet-b0": Architecture("EfficientNet-B0", (7,), efficientnet.efficientnet_b0),
    "audio": Architecture("2D-CNN for log-mel spectrograms", (6,), audio.audio, axes=SOUND_AXES),
}


def build(
    name: str,
    heads: Sequence[int],
    in_channels: int,
    width: int,
    method: str,
    strides: Sequence[float | Sequence[float]],
    *,
    smoothness: float = 4.0,
    shared: bool = False,
    grid: int | str = "free",
) -> Network:
    """Build the network ``name`` of `ARCHITECTURES`, with a head of so many classes for each task.

    ``grid`` says how map sizes follow learned strides, as in `anystride.DiffStride2d`.

    Raises ValueError for an unknown name, and for whatever the network's own function refuses: its docstring says.

    >>> import torch
    >>> build("resnet18", [10], 3, 4, "inner", (2, 2, 2))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"model must be one of {', '.join(ARCHITECTURES)}, got {name!r}")
    network = ARCHITECTURES[name].build(heads, in_channels, width, method, strides, smoothness, shared)
    for module in network.modules():
        if isinstance(module, DiffStride2d):
            module.grid = grid
    return network
